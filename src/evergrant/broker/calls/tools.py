"""What agents do by tools: see which connections there are, begin one, call an API with one.

Nothing here is of a protocol. Whose connections they are, only the credential says.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode

from sqlalchemy import select

from evergrant import clock
from evergrant.broker.calls.answers import as_result
from evergrant.broker.calls.asked import AskedCall
from evergrant.broker.calls.bases import api_of
from evergrant.broker.calls.call_rules import Requested, is_read
from evergrant.broker.calls.calls import call
from evergrant.broker.calls.connections import find_connection, wanted_connection
from evergrant.broker.connect.agent_links import AgentLink, connect_link, trip_state
from evergrant.broker.connections.listing import GrantFilter, list_grants
from evergrant.broker.runtime.admission import TENANT, USER
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.db import Approval, AuthorizationRequest, GrantStatus, OutboundApp
from evergrant.errors import (
    AnswerLost,
    AppNotFound,
    ApprovalNeeded,
    NoApiAddress,
    NotConnected,
    PermissionDenied,
    SeveralConnections,
)
from evergrant.oauth2.hygiene import readings
from evergrant.oauth2.upstream_messages import BrokenOff

Waited = Literal["open", "done", "failed"]
"""How far something has come that a person does in a browser."""
State = TypeVar("State", bound=str)
MOST_LISTED = 200
"""Connections and apps in one list."""
MOST_TRIPS = 5
"""Of an owner's trips for one app, the latest are looked at."""
LOOK_SECONDS = 0.5
"""How long between two looks whether a person is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of an app's API, as a model writes it."""

    app_id: str
    method: str
    path: str = field(repr=False)
    """It begins with `/`, and may have a query."""
    query: Mapping[str, str | Sequence[str]] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content_type: str = ""
    body: bytes | None = field(default=None, repr=False)
    base: str = ""
    account: str | None = None
    approval_id: str = ""
    only_reads: bool = False
    """Whether a POST is to be refused that the app's entry does not call safe."""

    def asked(self) -> AskedCall:
        """Return it as the use case takes it."""
        path, _, query = self.path.partition("?")
        more = urlencode(self.query, doseq=True)
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        names = {name.lower() for name in self.headers}
        if self.body is not None and "content-type" not in names:
            headers.append((b"content-type", self.content_type.encode()))
        if "accept" not in names:
            headers.append((b"accept", b"application/json, */*;q=0.5"))
        headers.append((b"accept-encoding", b"identity"))
        return AskedCall(
            app_id=self.app_id,
            method=self.method,
            path=path,
            query="&".join(part for part in (query, more) if part),
            headers=headers,
            body=_once(self.body) if self.body is not None else None,
            length=len(self.body) if self.body is not None else None,
            base=self.base,
            external_identifier=self.account,
            approval_id=self.approval_id,
            via="mcp",
        )


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def call_api(broker: Broker, principal: Principal, wanted: ToolCall, *, now: datetime) -> dict[str, Any]:
    """Make a call, and return the answer as `answers.as_result` does.

    Raises:
        PermissionDenied: it was only to read, and nobody says that this POST does.
        AnswerLost: the answer broke off.
        EvergrantError: as `calls.call`.
    """
    if wanted.only_reads and wanted.method == "POST":
        await _require_read(broker, principal, wanted.asked())
    try:
        return await _called(broker, principal, wanted, now=now)
    except ApprovalNeeded as needed:
        # Who has no way to name an approval calls again, just the same: it may have been given meanwhile.
        approval_id = needed.details["approvalId"]
        if wanted.approval_id or await wait_for_approval(broker, principal.project_id, approval_id) != "done":
            raise
        return await _called(broker, principal, replace(wanted, approval_id=approval_id), now=now)
    except BrokenOff as error:
        raise AnswerLost(f"The answer broke off: the provider {error}.") from error


async def _called(broker: Broker, principal: Principal, wanted: ToolCall, *, now: datetime) -> dict[str, Any]:
    async with call(broker, principal, wanted.asked(), now=now) as answer:
        return await as_result(answer)


async def _require_read(broker: Broker, principal: Principal, asked: AskedCall) -> None:
    requested = Requested(
        app_id=asked.app_id,
        method=asked.method,
        paths=readings(asked.path),
        via=asked.via,
        level=USER if principal.user_id else TENANT,
        query=asked.query,
    )
    if not is_read(requested, (await api_of(broker, principal.project_id, asked.app_id)).api.safe):
        raise PermissionDenied("Nobody says that this POST changes nothing: use api_write.")


async def list_connections(broker: Broker, principal: Principal, *, app_id: str) -> dict[str, Any]:
    """Return the connections of whom the credential stands for, and the apps that could be connected.

    `app_id` is the only app of interest; empty for all.

    Raises:
        PermissionDenied: the session is limited to other apps.
    """
    apps = await _apps_in_reach(broker, principal, app_id)
    grants, _ = await list_grants(broker, principal, GrantFilter(app_id=app_id), after="", limit=MOST_LISTED)
    connections = [
        {
            "app": grant.app_id,
            "name": apps[grant.app_id],
            "account": grant.external_identifier,
            "tokenSub": grant.token_sub,
            "scopes": grant.scopes,
            "status": "connected" if grant.status == GrantStatus.ACTIVE else grant.status,
            "access": _access(principal, grant.app_id),
            "bases": await _bases(broker, principal.project_id, grant.app_id),
        }
        for grant in grants
        if grant.app_id in apps
    ]
    connected = {connection["app"] for connection in connections}
    available = [{"app": id_, "name": name} for id_, name in apps.items() if id_ not in connected]
    return {"connections": connections, "available": available}


async def _apps_in_reach(broker: Broker, principal: Principal, app_id: str) -> dict[str, str]:
    """Return the names of the apps that a caller may use, by id."""
    if app_id:
        _require_app(principal, app_id)
    query = select(OutboundApp.id, OutboundApp.name).where(OutboundApp.project_id == principal.project_id)
    if principal.session is not None:
        query = query.where(OutboundApp.id.in_(principal.session.apps))
    if app_id:
        query = query.where(OutboundApp.id == app_id)
    query = query.where(OutboundApp.tenant_id.in_({"", *principal.tenant_ids})).order_by(OutboundApp.id)
    async with broker.database.read() as session:
        rows = (await session.execute(query.limit(MOST_LISTED))).all()
    return {row.id: row.name for row in rows}


def _require_app(principal: Principal, app_id: str) -> None:
    if principal.session is not None and app_id not in principal.session.apps:
        raise PermissionDenied("This session is limited to other apps.")


def _access(principal: Principal, app_id: str) -> str:
    return principal.session.apps[app_id].access if principal.session is not None else "write"


async def _bases(broker: Broker, project_id: str, app_id: str) -> list[str]:
    """Return the names of an app's further bases: of the main one, nobody has to know a name."""
    try:
        return sorted((await api_of(broker, project_id, app_id)).api.further)
    except (AppNotFound, NoApiAddress):
        return []


async def connection_state(
    broker: Broker, principal: Principal, *, app_id: str, account: str | None, scopes: Sequence[str] = ()
) -> str:
    """Return `connected`, or why nothing answers, as `reason_of` does.

    Raises:
        PermissionDenied: the session is limited to other apps, or to another account of this one.
        AppNotFound: there is no such app.
    """
    _require_app(principal, app_id)
    wanted = wanted_connection(principal, app_id, external_identifier=account, scopes=scopes)
    try:
        await find_connection(broker, principal, wanted)
    except SeveralConnections:
        return "connected"
    except NotConnected as error:
        return reason_of(error)
    return "connected"


def reason_of(error: NotConnected) -> str:
    """Return why nothing answers: `not_connected`, `scopes_missing` or `reauthorization_required`."""
    if "missingScopes" in error.details:
        return "scopes_missing"
    return "reauthorization_required" if error.details else "not_connected"


async def wait_for_connection(
    broker: Broker, principal: Principal, *, app_id: str, account: str | None, seconds: float
) -> str:
    """Return what `connection_state` does, as soon as it is `connected` and after so many seconds at most.

    It is `pending` where a trip is under way. Raises as `connection_state`.
    """

    async def look() -> str:
        return await connection_state(broker, principal, app_id=app_id, account=account)

    state = await _watch(look, lambda state: state == "connected", seconds)
    return "pending" if state != "connected" and await _is_under_way(broker, principal, app_id) else state


async def _is_under_way(broker: Broker, principal: Principal, app_id: str) -> bool:
    """Tell whether somebody is about to connect an app for whom the credential stands for."""
    owner, trip = wanted_connection(principal, app_id).owner, AuthorizationRequest
    query = select(trip.id).where(
        trip.project_id == principal.project_id,
        trip.expires_at > clock.now(),
        trip.app_id == app_id,
        trip.user_id == owner.user_id,
        trip.tenant_id == owner.tenant_id,
    )
    async with broker.database.read() as session:
        trips = (await session.scalars(query.order_by(trip.created_at.desc()).limit(MOST_TRIPS))).all()
    return any([await trip_state(broker, principal.project_id, one) == "open" for one in trips])


async def begin_connection(
    broker: Broker, principal: Principal, *, app_id: str, account: str | None, scopes: Sequence[str], now: datetime
) -> AgentLink:
    """Begin a trip for whom the credential stands for, and return its link.

    Raises:
        PermissionDenied: the credential may not connect, or not this app.
        EvergrantError: as `agent_links.connect_link`.
    """
    _require_app(principal, app_id)
    wanted = wanted_connection(principal, app_id, external_identifier=account, scopes=scopes)
    principal.require_for(Permission.CONNECT, user_id=wanted.owner.user_id, tenant_id=wanted.owner.tenant_id)
    return await connect_link(
        broker,
        principal,
        app_id=app_id,
        owner=wanted.owner,
        scopes=wanted.scopes,
        external_identifier=wanted.external_identifier or "",
        now=now,
    )


async def wait_for_trip(broker: Broker, project_id: str, trip_id: str, *, seconds: float) -> Waited:
    """Wait until a connect trip is over, for so many seconds at most."""

    async def look() -> Waited:
        state = await trip_state(broker, project_id, trip_id)
        return "done" if state == "connected" else state

    return await _watch(look, _is_over, seconds)


async def wait_for_approval(broker: Broker, project_id: str, approval_id: str, *, seconds: float = 0.0) -> Waited:
    """Wait until an approval is decided, for so many seconds at most."""
    query = select(Approval.status, Approval.expires_at).where(
        Approval.project_id == project_id, Approval.id == approval_id
    )

    async def look() -> Waited:
        async with broker.database.read() as session:
            row = (await session.execute(query)).one_or_none()
        if row is None or (row.status == "pending" and row.expires_at <= clock.now()):
            return "failed"
        return "open" if row.status == "pending" else "done" if row.status == "approved" else "failed"

    return await _watch(look, _is_over, seconds)


def _is_over(state: Waited) -> bool:
    return state != "open"


async def _watch(look: Callable[[], Awaitable[State]], is_enough: Callable[[State], bool], seconds: float) -> State:
    """Return what a look says, as soon as that is enough and after so many seconds at most."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        state = await look()
        if is_enough(state) or asyncio.get_running_loop().time() >= end:
            return state
        await asyncio.sleep(LOOK_SECONDS)
