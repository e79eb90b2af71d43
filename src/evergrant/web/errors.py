"""How errors look: JSON under /v1, a readable page elsewhere. The only place that turns one into a response."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from evergrant.broker.apps.provider_client import CALLBACK_PATH
from evergrant.broker.runtime.limits import Left
from evergrant.errors import (
    ConnectFailed,
    EvergrantError,
    InvalidRequest,
    InvalidValue,
    MalformedRequest,
    MissingArgument,
    NotFound,
    OperatorError,
    RateLimited,
    RequestTooLarge,
)
from evergrant.logs import request_id
from evergrant.web.visitor import error_page

log = logging.getLogger(__name__)


def error_body(error: EvergrantError) -> dict[str, Any]:
    """Return the body of an error: the SDKs' four members, ours (`requestId`, `details`) after them."""
    body: dict[str, Any] = {
        "errorCode": error.code,
        "errorDescription": (type(error).__doc__ or "").strip().splitlines()[0],
        "errorMessage": error.message,
        "message": error.message,
        "requestId": request_id.get(),
    }
    if error.details:
        body["details"] = error.details
    return body


def invalid_request(errors: Sequence[Any]) -> InvalidRequest:
    """Turn pydantic's complaints into ours: field and problem, never the value."""
    problems: list[tuple[str, str]] = []
    kinds: set[type[InvalidRequest]] = set()
    for entry in errors:
        kind, problem = _problem(entry)
        kinds.add(kind)
        problems.append((_field(entry["loc"]), problem))
    worst = next(kind for kind in (MalformedRequest, MissingArgument, InvalidValue) if kind in kinds)
    return worst.of(*problems)


def _field(location: Sequence[str | int]) -> str:
    parts = [part for part in location if part not in ("body", "query", "path")]
    name = ""
    for part in parts:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name or "body"


def _problem(entry: Any) -> tuple[type[InvalidRequest], str]:
    kind, message = str(entry["type"]), str(entry["msg"]).removeprefix("Value error, ")
    # The message of a parser may quote what it read; say what is wanted instead.
    if kind == "json_invalid":
        return MalformedRequest, "send a JSON object"
    limits = entry.get("ctx", {})
    if kind == "missing" or (kind in ("string_too_short", "too_short") and limits.get("min_length") == 1):
        return MissingArgument, "is required"
    if kind in ("string_too_long", "too_long"):
        things = "items" if limits.get("field_type") == "List" else "characters"
        return InvalidValue, f"use at most {limits['max_length']:,} {things}"
    if kind == "extra_forbidden":
        return InvalidValue, "there is no such field; check its spelling"
    if kind in ("model_type", "model_attributes_type", "dict_type", "dataclass_type"):
        return MalformedRequest, "send a JSON object, with Content-Type: application/json"
    if kind == "string_unicode":
        return InvalidValue, "must not contain half a surrogate pair"
    if kind.endswith(("_type", "_parsing")):
        return MalformedRequest, message[:1].lower() + message[1:]
    return InvalidValue, message[:1].lower() + message[1:]


def render(request: Request, error: EvergrantError) -> Response:
    """Make the response for an error."""
    error, headers = sayable(error), error_headers(error)
    note_limit(request, error)
    path = request.scope["path"]
    if path.startswith("/v1/") and not path.startswith(CALLBACK_PATH) and not isinstance(error, ConnectFailed):
        return JSONResponse(error_body(error), error.status, headers)
    return error_page(request, error, headers)


def sayable(error: EvergrantError) -> EvergrantError:
    """Return an error as a caller may see it: the reason of an operator's goes to the log."""
    if not isinstance(error, OperatorError):
        return error
    log.error("not set up correctly", exc_info=error)
    return OperatorError()


def error_headers(error: EvergrantError) -> dict[str, str]:
    """Return the headers that belong to an error."""
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="evergrant"'
    return headers


def note_limit(request: Request, error: EvergrantError) -> None:
    """Let the answer's headers say which limit was reached, if one was, in the place of what is left of another."""
    if isinstance(error, RateLimited):
        request.scope["state"]["left"] = Left(error.limit, 0, error.retry_after or 1)


def _from_framework(error: HTTPException) -> EvergrantError:
    if isinstance(error.__cause__, EvergrantError):
        return error.__cause__  # raised while the framework read the body, which it calls a bad request
    match error.status_code:
        case 404:
            return NotFound()
        case 405:
            return _MethodNotAllowed()
        case 413:
            return RequestTooLarge()
        case _:
            return MalformedRequest()


class _MethodNotAllowed(EvergrantError):
    """This address does not take this HTTP method."""

    status = 405
    code = "E011010"


def install(app: FastAPI) -> None:
    """Register the handlers."""

    @app.exception_handler(EvergrantError)
    async def _ours(request: Request, error: EvergrantError) -> Response:
        return render(request, error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return render(request, invalid_request(error.errors()))

    @app.exception_handler(HTTPException)
    async def _framework(request: Request, error: HTTPException) -> Response:
        return render(request, _from_framework(error))


def bug(request: Request) -> Response:
    """Make the answer to an exception that nobody expected; what it was is in the log."""
    return render(request, EvergrantError())
