"""Calls that are answered before the framework's own layers, which cost more than the hot path itself.

Each has what `RequestMiddleware` gives all others: a request id, the usual headers, what is left of a limit, errors as
JSON, a log line and a count. The framework still knows their routes: it documents them, and refuses other methods.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from evergrant.errors import EvergrantError
from evergrant.logs import new_request_id, request_id
from evergrant.web import errors
from evergrant.web.answer_cycle import AnswerCycle
from evergrant.web.headers import RawHeaders, as_lines, limit_headers, limit_lines, usual_headers
from evergrant.web.middleware import AccessLog

log = logging.getLogger(__name__)

PlainCall = Callable[[Scope, Receive], Awaitable[bytes]]
"""Returns the JSON of a good answer, or raises an `EvergrantError`."""

_JSON = (b"content-type", b"application/json")


class PlainRoute(APIRoute):
    """A route that the framework documents, and whose POST requests never reach the framework."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match what has another method, for the framework to refuse it."""
        match, child = super().matches(scope)
        return (Match.NONE, {}) if match is Match.FULL else (match, child)


class PlainCalls:
    """Answers POST requests to these paths."""

    def __init__(self, calls: Mapping[str, PlainCall], *, public_url: str, trusted_proxies: str) -> None:
        """`public_url` and `trusted_proxies` are the settings."""
        self._calls = calls
        self._headers = usual_headers(public_url)
        self._lines = as_lines([_JSON, *self._headers])
        self._access = AccessLog(trusted_proxies, is_hot=True)

    def takes(self, scope: Scope) -> bool:
        """Tell whether a request is for one of these."""
        return scope["path"] in self._calls and scope["method"] == "POST"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began, status, is_answering = time.perf_counter(), 500, False
        rid = new_request_id()
        named = request_id.set(rid)
        scope.setdefault("state", {})
        try:
            own: RawHeaders | None = None
            try:
                status, body = 200, await self._calls[scope["path"]](scope, receive)
            except ClientDisconnect:
                raise
            except EvergrantError as error:
                status, own, body = _refusal(scope, error)
            except Exception:  # here, where the request still has its id
                log.exception("a bug")
                status, own, body = _refusal(scope, EvergrantError())
            is_answering = True
            await self._send(scope, send, rid.encode(), status, own, body)
        except ClientDisconnect:
            status = 400  # half a body; nobody is there to read an answer
        except Exception:
            if is_answering:
                log.exception("a bug")
            raise
        finally:
            self._access.note(scope, status, began=began)
            request_id.reset(named)

    async def _send(
        self, scope: Scope, send: Send, rid: bytes, status: int, own: RawHeaders | None, body: bytes
    ) -> None:
        """Send an answer. `own` are the headers of a refusal; a good answer has the same ones each time."""
        left = scope["state"].get("left")
        cycle = getattr(send, "__self__", None)
        if own is None and isinstance(cycle, AnswerCycle):  # nobody is between us and the server
            limits = limit_lines(left) if left is not None else b""
            await cycle.send_whole(status, b"%b%bx-request-id: %b\r\n" % (self._lines, limits, rid), body)
            return
        if own is None:
            own = [(b"content-length", b"%d" % len(body)), _JSON]
        headers = [*own, *self._headers, *(limit_headers(left) if left is not None else ()), (b"x-request-id", rid)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _refusal(scope: Scope, error: EvergrantError) -> tuple[int, RawHeaders, bytes]:
    """Return status, headers and body of the answer to what a call has raised."""
    answer = errors.render(Request(scope), error)
    return answer.status_code, answer.raw_headers, bytes(answer.body)
