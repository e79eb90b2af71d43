"""The protocol's SDK, with our five tools. Imported when the first request comes: it is an extra, and takes a while."""

import functools
import logging
from dataclasses import dataclass
from typing import Any

from mcp import types
from mcp.server.caching import CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from evergrant import __version__
from evergrant.web.mcp import arguments, calling
from evergrant.web.mcp.caller import Caller
from evergrant.web.mcp.client import Client

for _noisy in ("mcp.server.streamable_http_manager", "mcp.server.streamable_http"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)  # it tells of each request that a manager starts and stops

INSTRUCTIONS = (
    "Call providers' APIs with the accounts that this user has connected. Begin with list_connections. You never get "
    "a token: evergrant adds it to each call. Where an app is not connected, the user is asked to connect it."
)
LIST_MILLISECONDS = 60_000
"""How long a client may keep the list of tools."""

Context = ServerRequestContext[Any, Request]


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request, whichever era it is of. Nothing of it stays."""
    manager = StreamableHTTPSessionManager(_server(), json_response=True, stateless=True)
    async with manager.run():
        await manager.handle_request(scope, receive, send)


@functools.cache
def _server() -> Server[Any]:
    server = Server[Any](
        "evergrant",
        version=__version__,
        title="evergrant",
        instructions=INSTRUCTIONS,
        cache_hints={
            "tools/list": CacheHint(LIST_MILLISECONDS, "private"),
            "server/discover": CacheHint(LIST_MILLISECONDS, "private"),
        },
        get_tool_input_schema=_tools().schemas.get,
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
    )
    server.middleware.append(_note_abilities)
    return server


@dataclass(frozen=True)
class _Tools:
    listed: list[types.Tool]
    schemas: dict[str, dict[str, Any]]


@functools.cache
def _tools() -> _Tools:
    schemas = {tool.name: arguments.schema_of(tool.arguments) for tool in arguments.TOOLS}
    listed = [
        types.Tool(
            name=tool.name,
            title=tool.title,
            description=tool.description,
            input_schema=schemas[tool.name],
            annotations=types.ToolAnnotations(
                title=tool.title,
                read_only_hint=tool.read_only,
                destructive_hint=tool.destructive,
                open_world_hint=tool.open_world,
            ),
        )
        for tool in arguments.TOOLS
    ]
    return _Tools(listed, schemas)


async def _note_abilities(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Keep what a client of the handshake era says of itself once: the answer has it sealed, as its session's id."""
    result = await call_next(ctx)
    if ctx.method == "initialize" and isinstance(result, dict) and ctx.request is not None:
        caller = caller_of(ctx.request)
        caller.is_new, caller.era = True, str(result["protocolVersion"])
        said = (ctx.params or {}).get("capabilities")
        elicitation = said.get("elicitation") if isinstance(said, dict) else None
        caller.abilities = {"elicitation": elicitation} if isinstance(elicitation, dict) else {}
    return result


def caller_of(request: Request) -> Caller:
    """Return who made a request."""
    found: Caller = request.scope["state"]["mcp_caller"]
    return found


async def _list_tools(_context: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    return types.ListToolsResult(tools=_tools().listed)


async def _call_tool(
    context: Context, params: types.CallToolRequestParams
) -> types.CallToolResult | types.InputRequiredResult:
    if params.name not in arguments.BY_NAME:
        raise MCPError(types.INVALID_PARAMS, "There is no tool of this name: list them by tools/list.")
    assert context.request is not None  # noqa: S101 - there is one in every request by HTTP
    caller = caller_of(context.request)
    return await calling.call_tool(context.request.app.state.broker, caller, _client(context, caller), params)


def _client(context: Context, caller: Caller) -> Client:
    """Return what the client is able to do: said in this request, or sealed when it came."""
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return Client(is_modern=False, opens_links=caller.era >= "2025-11-25" and "url" in _elicitation(caller))
    said = context.session.client_capabilities
    elicitation = said.elicitation if said is not None else None
    return Client(is_modern=True, opens_links=elicitation is not None and elicitation.url is not None)


def _elicitation(caller: Caller) -> dict[str, Any]:
    found: dict[str, Any] = caller.abilities.get("elicitation", {})
    return found
