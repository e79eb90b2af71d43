"""The gateway to one remote MCP server: our credential comes in, the owner's token goes out.

The body is passed on as it came, and the answer streams back. The server's session id, and the state that it has its
clients carry, are sealed with who got them, so that nobody resumes another's.
"""

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Send

from evergrant import clock
from evergrant.broker.calls import tools
from evergrant.broker.calls.asked import CallAnswer
from evergrant.broker.calls.gateway import RemoteRequest, call_remote
from evergrant.broker.runtime.broker import Broker
from evergrant.errors import MalformedRequest, NotConnected, PermissionDenied
from evergrant.web.mcp.caller import Caller
from evergrant.web.mcp.remote_states import with_own_state, with_sealed_states
from evergrant.web.mcp.seals import SESSION, opened_session, seal_session

CALL = "tools/call"
_NAMES = frozenset(("jsonrpc", "id", "method", "params", "result", "error"))
"""What a message has (JSON-RPC 2.0 sections 4 and 5), in these letters."""
LINK_NEEDED = -32042
"""The protocol's word for: a person has to follow a link first (2025-11-25)."""


async def remote_request(broker: Broker, caller: Caller, request: Request, app_id: str) -> RemoteRequest:
    """Read a request as it is to be passed on.

    Raises:
        MalformedRequest: it is not one message of JSON-RPC, or has a state that is not this caller's.
        NotFound: it names a session of somebody else's, or one that is over.
    """
    body = await request.body() if request.method == "POST" else b""
    message = _message(body) if body or request.method == "POST" else {}
    session = await opened_session(broker, caller.principal, "upstream", request, now=clock.now(), bound=(app_id,))
    body = await with_own_state(broker, caller, app_id, message, body)
    return RemoteRequest(
        app_id=app_id,
        method=request.method,
        headers=request.headers.raw,
        body=body,
        server_session=session["id"] if session else "",
        calls_tool=CALL in (message.get("method"), request.headers.get("mcp-method")),
    )


def _message(body: bytes) -> dict[str, Any]:
    """Return the message in a body. What could be read in two ways is refused: rules go by what is read here.

    Raises:
        MalformedRequest: it is no single JSON object with each name once.
    """
    try:
        found = json.loads(body, object_pairs_hook=_once_each)
    except (ValueError, RecursionError):
        found = None
    # Some servers read names in whatever case, and take the last of two that differ in nothing else.
    if not isinstance(found, dict) or any(name.casefold() in _NAMES and name not in _NAMES for name in found):
        raise MalformedRequest.of(("body", "send one JSON-RPC message, with each name once"))
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


async def pass_through(broker: Broker, caller: Caller, request: Request, app_id: str, send: Send) -> None:
    """Pass a request on, and stream the answer back.

    Raises:
        EvergrantError: before anything of the answer was sent.
    """
    wanted = await remote_request(broker, caller, request, app_id)
    try:
        async with call_remote(broker, caller.principal, wanted, now=clock.now()) as answer:
            _require_token_accepted(answer)
            headers, body = _with_sealed_states(broker, caller, app_id, answer)
            names = {name for name, _ in headers}
            response = StreamingResponse(body, answer.status)
            response.raw_headers = [
                (name, await _sealed(broker, caller, app_id, value) if name == SESSION.encode() else value)
                for name, value in headers
            ]
            if b"cache-control" not in names:
                response.raw_headers.append((b"cache-control", b"no-store"))
            await response(request.scope, request.receive, send)
    except NotConnected as error:
        await (await _link_needed(broker, caller, wanted, error))(request.scope, request.receive, send)


def _require_token_accepted(answer: CallAnswer) -> None:
    """Refuse an answer by which the server refuses the owner's token.

    Passed on, it would tell the client that its own credential is not accepted here.
    """
    if answer.status == HTTPStatus.UNAUTHORIZED:
        raise NotConnected(details={"status": answer.status})


def _with_sealed_states(
    broker: Broker, caller: Caller, app_id: str, answer: CallAnswer
) -> tuple[list[tuple[bytes, bytes]], AsyncIterator[bytes]]:
    """Return an answer's headers, in small letters, and its body, where it is of messages with their states sealed."""
    headers = [(name.lower(), value) for name, value in answer.headers]
    kind = next((value.lower() for name, value in headers if name == b"content-type"), b"")
    is_stream = b"text/event-stream" in kind
    if not is_stream and b"json" not in kind:
        return headers, answer.body
    headers = [(name, value) for name, value in headers if name != b"content-length"]  # a sealed state is longer
    return headers, with_sealed_states(broker, caller, app_id, answer.body, is_stream=is_stream)


async def _sealed(broker: Broker, caller: Caller, app_id: str, session: bytes) -> bytes:
    said = {"id": session.decode("latin-1")}
    sealed = await seal_session(broker, caller.principal, "upstream", said, now=clock.now(), bound=(app_id,))
    return sealed.encode()


async def _link_needed(broker: Broker, caller: Caller, wanted: RemoteRequest, error: NotConnected) -> Response:
    """Return the answer for somebody whose app is not connected: with a link, if one may be begun."""
    data: dict[str, Any] = {
        "status": "connection_required",
        "app": wanted.app_id,
        "reason": tools.reason_of(error),
    }
    message = f"{wanted.app_id} is not connected."
    try:
        link = await tools.begin_connection(
            broker, caller.principal, app_id=wanted.app_id, account=None, scopes=(), now=clock.now()
        )
    except PermissionDenied as refused:
        message = f"{message} {refused.message}"
    else:
        message = f"Show the user this link, then call again: {link.url}"
        data["connect_url"] = link.url
        data["elicitations"] = [
            {"mode": "url", "elicitationId": link.trip_id, "url": link.url, "message": f"Connect {wanted.app_id}."}
        ]
    id_ = json.loads(wanted.body).get("id") if wanted.body else None
    body = {"jsonrpc": "2.0", "id": id_, "error": {"code": LINK_NEEDED, "message": message, "data": data}}
    return JSONResponse(body, 200 if id_ is not None else error.status)
