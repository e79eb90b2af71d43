"""Calls of remote MCP servers: the body as it came, to the one address that an app's tokens are for.

It is the same call as every other, with the same log and limits; only what is asked is inside the body. So what is
about changing things is about `tools/call`, and everything else that the protocol has only reads.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from urllib.parse import urlsplit

from evergrant.broker.access.agent_sessions import count_call
from evergrant.broker.access.policies import call_policies, may_have_tokens
from evergrant.broker.audit.record import actor
from evergrant.broker.calls.asked import AskedCall, CallAnswer
from evergrant.broker.calls.bases import AppApi, api_of
from evergrant.broker.calls.call_log import write_ahead
from evergrant.broker.calls.call_rules import Requested, verdict
from evergrant.broker.calls.calls import deny
from evergrant.broker.calls.connections import (
    WantedConnection,
    find_connection,
    open_credential,
    wanted_connection,
    with_usable_token,
)
from evergrant.broker.calls.outgoing import CallBody, PreparedCall
from evergrant.broker.calls.under_way import CallUnderWay
from evergrant.broker.runtime.admission import TENANT, USER
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.broker.runtime.unwritten_calls import Call
from evergrant.catalog.api import Api
from evergrant.errors import AppNotFound, NotFound
from evergrant.oauth2.hygiene import RawHeaders
from evergrant.oauth2.upstream_decoding import plain

_PASSED = frozenset((b"accept", b"content-type", b"last-event-id", b"mcp-protocol-version", b"mcp-method", b"mcp-name"))
_PASSED_PREFIX = b"mcp-param-"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteRequest:
    """One request to a remote MCP server."""

    app_id: str
    method: str
    """Of HTTP: POST, GET or DELETE."""
    headers: RawHeaders = field(repr=False)
    body: bytes = field(repr=False)
    server_session: str = field(default="", repr=False)
    """The server's own session id."""
    calls_tool: bool
    """Whether it may change something: it calls a tool, or nobody can tell."""


@asynccontextmanager
async def call_remote(
    broker: Broker, principal: Principal, wanted: RemoteRequest, *, now: datetime
) -> AsyncIterator[CallAnswer]:
    """Pass a request on to a remote MCP server, and give its answer while the block lasts.

    Raises:
        NotFound: the app is no MCP server: it has no `resource`.
        EvergrantError: as `calls.call`.
    """
    entry = Call.begun(
        principal,
        kind="mcp",
        at=now,
        app_id=wanted.app_id,
        remote_address=actor.get().remote_address,
        method=wanted.method,
        path="/",
    )

    async def prepare(under_way: CallUnderWay) -> PreparedCall:
        principal.require_app(wanted.app_id)
        connection = wanted_connection(principal, wanted.app_id)
        owner = connection.owner
        entry.user_id, entry.tenant_id = owner.user_id, owner.tenant_id
        principal.require_for(Permission.CALLS, user_id=owner.user_id, tenant_id=owner.tenant_id)
        under_way.begin(owner)
        return await _prepared_for_server(broker, principal, wanted, connection, entry, now=now)

    async with CallUnderWay(broker, principal, entry, prepare) as answer:
        # It is looked into, whoever calls.
        headers, body = plain(answer.headers, answer.body)
        yield replace(answer, headers=headers, body=body)


async def _prepared_for_server(
    broker: Broker,
    principal: Principal,
    wanted: RemoteRequest,
    connection: WantedConnection,
    entry: Call,
    *,
    now: datetime,
) -> PreparedCall:
    owner = connection.owner
    api = _api_of_server(await api_of(broker, principal.project_id, wanted.app_id))
    if api.app.tenant_id and api.app.tenant_id != owner.tenant_id:
        raise AppNotFound
    where = urlsplit(api.app.resource)
    entry.path = where.path or "/"
    await _require_allowed(broker, principal, wanted, entry, level=USER if owner.user_id else TENANT)
    view = await find_connection(broker, principal, connection)
    view = await with_usable_token(broker, principal, connection, view, now=now)
    entry.grant_id = view.id
    credential = await open_credential(broker, principal.project_id, api, view, base_name="")
    await count_call(broker, principal)
    broker.uses.note_grant((principal.project_id, view.id), at=now)
    if wanted.calls_tool:
        await write_ahead(broker, entry)
    headers = [(name, value) for name, value in wanted.headers if _is_passed(name)]
    if wanted.server_session:
        headers.append((b"mcp-session-id", wanted.server_session.encode()))
    length = len(wanted.body) if wanted.method == "POST" else None
    return PreparedCall(
        broker=broker,
        principal=principal,
        asked=AskedCall(
            app_id=wanted.app_id,
            method=wanted.method,
            path="",
            query=where.query,
            headers=headers,
            length=length,
            via="mcp",
        ),
        api=api,
        wanted=connection,
        view=view,
        credential=credential,
        body=CallBody(wanted.body, None, length, len(wanted.body)),
        is_read=not wanted.calls_tool,
        entry=entry,
        may_have_token=await may_have_tokens(broker, principal, wanted.app_id),
    )


def _api_of_server(api: AppApi) -> AppApi:
    """Return an app's API with its MCP server as the only base, which takes bearer tokens.

    Raises:
        NotFound: it has none.
    """
    if not api.app.resource:
        raise NotFound("This app is no MCP server: it has no resource. Make it from its discoveryUrl.")
    where = urlsplit(api.app.resource)
    server = f"{where.scheme}://{where.netloc}{where.path}"
    return replace(api, api=Api(base_url=server), is_fixed=False, bases={})


async def _require_allowed(
    broker: Broker, principal: Principal, wanted: RemoteRequest, entry: Call, *, level: str
) -> None:
    """Check session and policies. What only reads is allowed to whoever may read.

    Raises:
        PermissionDenied: they forbid it; or they want it approved, which they can have for calls of an API alone.
    """
    requested = Requested(app_id=wanted.app_id, method=wanted.method, paths=(entry.path,), via="mcp", level=level)
    safe = () if wanted.calls_tool else ("* /**",)
    said = verdict(await call_policies(broker, principal, wanted.app_id), principal, requested, forbidden=(), safe=safe)
    entry.policy = said.rule
    if said.effect == "deny":
        await deny(broker, principal, entry)
    if said.effect == "approve":
        why = "Calls of this app need approval, and calls of a remote MCP server cannot be approved one by one."
        await deny(broker, principal, entry, why)


def _is_passed(name: bytes) -> bool:
    lower = name.lower()
    return lower in _PASSED or lower.startswith(_PASSED_PREFIX)
