"""One call of a tool: its arguments, what it does, and what comes instead where somebody has to do something first."""

import json
from urllib.parse import urlencode

from mcp import types
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from evergrant import clock
from evergrant.broker.calls import tools
from evergrant.broker.runtime.broker import Broker
from evergrant.errors import (
    ApprovalNeeded,
    EvergrantError,
    InvalidValue,
    NotConnected,
    NotFound,
    OperatorError,
    PermissionDenied,
)
from evergrant.web.errors import invalid_request
from evergrant.web.mcp.arguments import (
    BY_NAME,
    ApiRead,
    ApiWrite,
    Arguments,
    ConnectApp,
    ConnectionStatus,
    ListConnections,
)
from evergrant.web.mcp.asking import Missing, Turn
from evergrant.web.mcp.caller import Caller
from evergrant.web.mcp.client import Client
from evergrant.web.mcp.results import failed, succeeded, told

Result = types.CallToolResult | types.InputRequiredResult


async def call_tool(broker: Broker, caller: Caller, client: Client, params: types.CallToolRequestParams) -> Result:
    """Call a tool. What goes wrong is the tool's result, so that a model reads it and mends its call.

    Raises:
        MCPError: a client of the handshake era is to show a link; or `requestState` is not this call's.
    """
    try:
        asked = BY_NAME[params.name].arguments.model_validate(params.arguments or {})
    except ValidationError as error:
        return failed(invalid_request(error.errors(include_input=False, include_url=False)))
    try:
        turn = await Turn.begun(broker, caller, client, params, now=clock.now())
    except NotFound:
        raise MCPError(types.INVALID_PARAMS, "This requestState is not for this call: call again without it.") from None
    try:
        return await turn.settle(broker) or await _do(broker, asked, turn)
    except OperatorError:
        raise  # what is not set up is the operator's to know: the SDK logs it, and says nothing of it
    except EvergrantError as error:
        return failed(error)


async def _do(broker: Broker, asked: Arguments, turn: Turn) -> Result:
    principal = turn.caller.principal
    match asked:
        case ListConnections():
            return succeeded(await tools.list_connections(broker, principal, app_id=asked.app))
        case ConnectionStatus():
            state = await tools.wait_for_connection(
                broker, principal, app_id=asked.app, account=asked.account, seconds=asked.wait_seconds
            )
            return succeeded({"app": asked.app, "status": state})
        case ConnectApp():
            return await _connect(broker, asked, turn)
        case ApiRead() | ApiWrite():
            return await _call_api(broker, asked, turn)
        case _:
            raise AssertionError("every tool has its arguments")


async def _connect(broker: Broker, asked: ConnectApp, turn: Turn) -> Result:
    state = await tools.connection_state(
        broker, turn.caller.principal, app_id=asked.app, account=asked.account, scopes=asked.scopes
    )
    if state == "connected":
        return succeeded({"app": asked.app, "status": state})
    return await _ask_to_connect(broker, asked, turn, scopes=asked.scopes, reason=state)


async def _call_api(broker: Broker, asked: ApiRead | ApiWrite, turn: Turn) -> Result:
    principal = turn.caller.principal
    wanted = _tool_call(asked, approval_id=turn.approval_id)
    try:
        result = await tools.call_api(broker, principal, wanted, now=turn.now)
    except NotConnected as error:
        scopes = list(error.details.get("missingScopes", ()))
        return await _ask_to_connect(broker, asked, turn, scopes=scopes, reason=tools.reason_of(error))
    except ApprovalNeeded as error:
        missing = Missing(
            what="approve",
            app_id=asked.app,
            id=error.details["approvalId"],
            url=error.details["approvalUrl"],
            reason="approval_needed",
        )
        return await turn.ask(broker, missing)
    return succeeded(result, is_error=result["status"] >= 400)


async def _ask_to_connect(
    broker: Broker, asked: ConnectApp | ApiRead | ApiWrite, turn: Turn, *, scopes: list[str], reason: str
) -> Result:
    try:
        link = await tools.begin_connection(
            broker, turn.caller.principal, app_id=asked.app, account=asked.account, scopes=scopes, now=turn.now
        )
    except PermissionDenied as error:
        text = f"{asked.app} is not connected ({reason}), and no connection can be begun here: {error.message}"
        return told(text, {"status": "connection_required", "app": asked.app, "reason": reason})
    return await turn.ask(
        broker, Missing(what="connect", app_id=asked.app, id=link.trip_id, url=link.url, reason=reason)
    )


def _tool_call(asked: ApiRead | ApiWrite, *, approval_id: str) -> tools.ToolCall:
    content_type, body = _body(asked)
    headers = dict(asked.headers)
    if isinstance(asked, ApiWrite) and asked.idempotency_key is not None:
        headers["Idempotency-Key"] = asked.idempotency_key
    return tools.ToolCall(
        app_id=asked.app,
        method=asked.method,
        path=asked.path,
        query=asked.query,
        headers=headers,
        content_type=content_type,
        body=body,
        base=asked.base,
        account=asked.account,
        approval_id=approval_id,
        only_reads=isinstance(asked, ApiRead),
    )


def _body(asked: ApiRead | ApiWrite) -> tuple[str, bytes | None]:
    given = asked.model_fields_set & {"json_body", "form", "text"}
    if len(given) > 1:
        raise InvalidValue.of(("json", "give only one of json, form and text"))
    if "json_body" in given:
        return "application/json", json.dumps(asked.json_body).encode()
    if isinstance(asked, ApiWrite) and asked.form is not None:
        return "application/x-www-form-urlencoded", urlencode(asked.form, doseq=True).encode()
    if isinstance(asked, ApiWrite) and asked.text is not None:
        return "text/plain; charset=utf-8", asked.text.encode()
    return "", None
