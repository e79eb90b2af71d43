"""The addresses `/mcp/{projectId}` and `/mcp/{projectId}/~{appId}`.

Everything before the protocol is here: who asks, from which page, and by which method.
"""

import asyncio
import contextlib
import importlib.util
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from evergrant import clock
from evergrant.broker.runtime.broker import Broker
from evergrant.errors import AuthenticationFailed, EvergrantError, OperatorError
from evergrant.web.errors import error_body, note_limit
from evergrant.web.mcp.caller import Caller, OutOfScope, recognise
from evergrant.web.mcp.gateway import pass_through
from evergrant.web.mcp.seals import SESSION, opened_session, seal_session
from evergrant.web.mcp_address import MCP_PATH, challenge

log = logging.getLogger(__name__)

Serve = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]
_SERVER_ERROR, _REFUSED = -32603, -32000
"""JSON-RPC's own code for a server's trouble, and one that is ours to give a meaning (section 5.1)."""


class NotInstalled(EvergrantError):
    """The MCP server is not installed here: install evergrant[mcp]."""

    status = 501


async def _mcp(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a project's MCP server."""
    request = Request(scope, receive)
    broker: Broker = request.app.state.broker
    project_id = request.path_params["project_id"]
    if request.method != "POST":
        await Response(status_code=405, headers={"Allow": "POST"})(scope, receive, send)
        return
    try:
        caller = await recognise(broker, request, project_id)
        await _take_abilities(broker, request, caller)
        serve = await _sdk()
    except EvergrantError as error:
        await answer_to(broker, request, error)(scope, receive, send)
        return
    scope["state"]["mcp_caller"] = caller

    async def send_with_session(message: Message) -> None:
        if message["type"] == "http.response.start" and caller.is_new:
            said = {"era": caller.era, "abilities": caller.abilities}
            session = await seal_session(broker, caller.principal, "session", said, now=clock.now())
            MutableHeaders(scope=message)[SESSION] = session
        await send(message)

    await _until_hung_up(serve, scope, receive, send_with_session)


async def _gateway(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the gateway to an app that is an MCP server."""
    request = Request(scope, receive)
    broker: Broker = request.app.state.broker
    project_id, app_id = request.path_params["project_id"], request.path_params["app_id"]
    if request.method not in ("POST", "GET", "DELETE"):
        await Response(status_code=405, headers={"Allow": "POST, GET, DELETE"})(scope, receive, send)
        return
    try:
        caller = await recognise(broker, request, project_id, app_id)
    except EvergrantError as error:
        await answer_to(broker, request, error)(scope, receive, send)
        return

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await pass_through(broker, caller, Request(scope, receive), app_id, send)
        except EvergrantError as error:
            await answer_to(broker, request, error)(scope, receive, send)

    await _until_hung_up(serve, scope, receive, send)


async def _take_abilities(broker: Broker, request: Request, caller: Caller) -> None:
    """Read what a client of the handshake era said of itself when it came.

    Raises:
        NotFound: it brings what is somebody else's, or is too old: it has to introduce itself again.
    """
    if said := await opened_session(broker, caller.principal, "session", request, now=clock.now()):
        caller.era, caller.abilities = said["era"], said["abilities"]


async def _sdk() -> Serve:
    """Return what serves the protocol. It is imported the first time, beside everything else that goes on."""
    if importlib.util.find_spec("mcp") is None:
        raise NotInstalled
    server = await asyncio.to_thread(importlib.import_module, "evergrant.web.mcp.server")
    serve: Serve = server.serve
    return serve


async def _until_hung_up(serve: Serve, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request, and stop as soon as the caller has hung up."""
    has_come = asyncio.Event()

    async def receive_body() -> Message:
        message = await receive()
        if not message.get("more_body"):
            has_come.set()
        return message

    async def hung_up() -> None:
        await has_come.wait()
        while (await receive())["type"] != "http.disconnect":
            pass

    serving, watching = asyncio.create_task(serve(scope, receive_body, send)), asyncio.create_task(hung_up())
    try:
        await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        for task in (serving, watching):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(serving, watching, return_exceptions=True)


def answer_to(broker: Broker, request: Request, error: EvergrantError) -> Response:
    """Return the answer to a request that does not come to the protocol: a JSON-RPC error with its status."""
    if isinstance(error, OperatorError):
        log.error("not set up correctly", exc_info=error)
        error = OperatorError()  # the reason is the operator's, and is in the log
    note_limit(request, error)
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    where = (broker.settings.public_url, request.path_params["project_id"], request.path_params.get("app_id", ""))
    if isinstance(error, AuthenticationFailed):
        said = "invalid_token" if "authorization" in request.headers else ""
        headers["WWW-Authenticate"] = challenge(*where, error=said)
    elif isinstance(error, OutOfScope):
        headers["WWW-Authenticate"] = challenge(*where, error="insufficient_scope")
    code = _SERVER_ERROR if error.status >= 500 else _REFUSED
    body = {"code": code, "message": error.message, "data": error_body(error)}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": body}, error.status, headers)


class _Endpoint:
    """An ASGI application as a route takes one that answers every method by itself."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        await self._serve(scope, receive, send)


ROUTES = (
    Route(f"{MCP_PATH}/{{project_id}}", _Endpoint(_mcp)),
    Route(f"{MCP_PATH}/{{project_id}}/~{{app_id}}", _Endpoint(_gateway)),
)
