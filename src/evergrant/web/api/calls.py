"""The call log over HTTP: who called what, with whose connection."""

from typing import Annotated, Literal

from fastapi import Query
from fastapi.responses import StreamingResponse
from pydantic import Field

from evergrant.broker.calls.call_list import CallFilter, export_calls, list_calls
from evergrant.broker.runtime.list_places import Place
from evergrant.db import CallRecord
from evergrant.web.api.wire import From, OptionalId, Text, To, WireModel, epoch_milliseconds, errors, example, moment
from evergrant.web.deps import Auditor, BrokerDep
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["calls"])

_CALL = {
    "id": "01956a3c7d2e0f4b8a6c1d",
    "at": "1741103514123",
    "kind": "call",
    "appId": "google-contacts",
    "userId": "alice",
    "tenantId": "",
    "grantId": "7Yb2Qf9sKd1LmX4c",
    "actor": "session:8Zx3vR1qTn6WkY5uJm2Lp4",
    "agent": "inbox-helper",
    "act": ["inbox-helper"],
    "sessionId": "8Zx3vR1qTn6WkY5uJm2Lp4",
    "remoteAddress": "203.0.113.7",
    "method": "POST",
    "base": "",
    "path": "/v1/people:createContact",
    "status": 201,
    "source": "provider",
    "code": "",
    "bytesSent": 214,
    "bytesReceived": 3170,
    "milliseconds": 187,
    "attempts": 1,
    "policy": "session",
    "approvalId": "",
    "sealed": True,
}


class CallBody(WireModel):
    """One call, fetch or exchange. No query string, no body and no token is in it."""

    id: str
    at: str = Field(description="When it began: epoch milliseconds as text.")
    kind: str = Field(description="`call` through the proxy, `mcp`, `fetch` or `exchange`.")
    app_id: str
    user_id: str = Field(description="Whose connection.")
    tenant_id: str
    grant_id: str = Field(description="The connection; empty where none was found.")
    actor: str = Field(description="`key:<id>`, `session:<id>`, `user:<id>` or `tenant:<id>`.")
    agent: str = Field(description="The agent that acted; empty where none did.")
    act: list[str] = Field(description="The chain of actors behind it (RFC 8693 section 4.1), outermost first.")
    session_id: str
    remote_address: str
    method: str
    base: str = Field(description="One of the app's further bases, by name; empty for its first.")
    path: str = Field(description="Without its query; at most 2,000 characters.")
    status: int = Field(description="Of the answer; 0 where there was none, or none is known.")
    source: str = Field(description="Whose answer it was: `provider`, `evergrant`, or empty where none is known.")
    code: str = Field(description="evergrant's error; empty where there was none.")
    bytes_sent: int
    bytes_received: int
    milliseconds: int
    attempts: int = Field(description="How often it was sent to the provider.")
    policy: str = Field(description="The rule that decided: a policy's id, or `session`.")
    approval_id: str = Field(description="The approval that it used up.")
    sealed: bool = Field(description="Whether the audit log has sealed it; a write under way is not yet.")


class CallsAnswer(WireModel):
    """A page of calls, newest first."""

    model_config = example({"calls": [_CALL], "nextCursor": ""})

    calls: list[CallBody]
    next_cursor: str = Field(description="`cursor` of the next page; empty on the last.")


def _body(call: CallRecord) -> CallBody:
    return CallBody(
        id=call.id,
        at=epoch_milliseconds(call.at),
        kind=call.kind,
        app_id=call.app_id,
        user_id=call.user_id,
        tenant_id=call.tenant_id,
        grant_id=call.grant_id,
        actor=call.actor,
        agent=call.agent,
        act=call.act,
        session_id=call.session_id,
        remote_address=call.remote_address,
        method=call.method,
        base=call.base,
        path=call.path,
        status=call.status,
        source=call.source,
        code=call.code,
        bytes_sent=call.bytes_sent,
        bytes_received=call.bytes_received,
        milliseconds=call.ms,
        attempts=call.attempts,
        policy=call.policy,
        approval_id=call.approval_id,
        sealed=bool(call.batch),
    )


@router.get("/calls", operation_id="listCalls", summary="List calls", responses=errors(400))
async def list_logged_calls(
    broker: BrokerDep,
    principal: Auditor,
    user_id: Annotated[OptionalId, Query(alias="userId", examples=["alice"])] = "",
    tenant_id: Annotated[OptionalId, Query(alias="tenantId", examples=["acme"])] = "",
    agent_id: Annotated[OptionalId, Query(alias="agentId", description="The agent's id.", examples=["helper"])] = "",
    app_id: Annotated[Text, Query(alias="appId", max_length=64, examples=["google-contacts"])] = "",
    session_id: Annotated[
        Text, Query(alias="sessionId", max_length=22, pattern="^[0-9A-Za-z]*$", examples=["8Zx3vR1qTn6WkY5uJm2Lp4"])
    ] = "",
    kind: Annotated[Literal["", "call", "mcp", "fetch", "exchange"], Query(examples=["call"])] = "",
    from_: From = 0,
    to: To = 0,
    cursor: Annotated[
        Text,
        Query(
            max_length=48,
            pattern=r"^[0-9a-f]*(\.[0-9A-Za-z]+)?$",
            description="`nextCursor` of the page before.",
            examples=["63b8c8a1f2e40.01956a3c7d2e0f4b8a6c1d"],
        ),
    ] = "",
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.", examples=[50])] = 50,
) -> CallsAnswer:
    """Return calls, newest first; every filter is optional. A key that is limited to some apps sees calls of those."""
    wanted = CallFilter(
        app_id=app_id,
        user_id=user_id,
        tenant_id=tenant_id,
        agent=agent_id,
        session_id=session_id,
        kind=kind,
        since=moment(from_),
        until=moment(to),
    )
    place = Place.parse(cursor, field="cursor")
    page = await list_calls(broker, principal, wanted, after=place, limit=limit)
    return CallsAnswer(calls=[_body(call) for call in page.calls], next_cursor=str(page.following or ""))


@router.get(
    "/calls/export",
    operation_id="exportCalls",
    summary="Export the call log",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                "application/jsonl": {
                    "schema": {"type": "string"},
                    "example": '{"id": "01956a3c7d2e0f4b8a6c1d", "kind": "call", "batch": "9Kp2..."}\n',
                }
            }
        },
        **errors(400),
    },
)
async def export_call_log(broker: BrokerDep, principal: Auditor, from_: From = 0, to: To = 0) -> StreamingResponse:
    """Return the calls of a period, newest first, as JSON, one a line, with all that their seals are made of."""
    principal.require_every_app()
    lines = export_calls(broker, principal.project_id, since=moment(from_), until=moment(to))
    return StreamingResponse(lines, media_type="application/jsonl")
