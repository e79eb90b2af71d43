"""Reading the audit log: search it and export it; and writing into it what the operator's application reports."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Text, cast, or_, select

from evergrant.broker.audit.chain import records_after
from evergrant.broker.audit.record import record
from evergrant.broker.runtime.broker import Broker
from evergrant.db import AuditEvent
from evergrant.errors import InvalidValue

MAX_RECORDS = 1_000
"""Most records that one search returns."""
OWN_ACTIONS = (
    "accounts.",
    "app.",
    "approval.",
    "audit.",
    "branding.",
    "call.",
    "calls.",
    "connect.",
    "connections.",
    "console.",
    "grant.",
    "issuer.",
    "key.",
    "keyring.",
    "policy.",
    "project.",
    "revocation.",
    "session.",
    "token.",
    "webhook.",
)
"""How evergrant's own actions begin. Nobody else can write such a record."""
_LOOK_ALIKE = str.maketrans("01i5:_-", "olls...")
"""Signs that are taken for each other, or that separate as well as a full stop."""


@dataclass(frozen=True, kw_only=True)
class AuditQuery:
    """What to look for. Everything that is given must hold; an empty list asks for nothing in particular."""

    user_ids: Sequence[str] = ()
    actions: Sequence[str] = ()
    excluded_actions: Sequence[str] = ()
    actors: Sequence[str] = ()
    app_ids: Sequence[str] = ()
    remote_addresses: Sequence[str] = ()
    tenant_ids: Sequence[str] = ()
    also_without_tenant: bool = False
    """With `tenant_ids`: records that belong to no tenant too."""
    text: str = ""
    """Found anywhere in a record; the case of the letters a to z does not matter."""
    since: datetime | None = None
    until: datetime | None = None
    limit: int = MAX_RECORDS
    offset: int = 0


async def search_records(broker: Broker, project_id: str, wanted: AuditQuery) -> list[AuditEvent]:
    """Return a project's records, newest first."""
    query = (
        select(AuditEvent)
        .where(AuditEvent.project_id == project_id, *_conditions(wanted))
        .order_by(AuditEvent.sequence.desc())
        .limit(min(wanted.limit, MAX_RECORDS))
        .offset(wanted.offset)
    )
    async with broker.database.browse() as session:
        return list(await session.scalars(query))


def _conditions(wanted: AuditQuery) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.user_ids:
        found.append(AuditEvent.user_id.in_(wanted.user_ids))
    if wanted.actions:
        found.append(AuditEvent.action.in_(wanted.actions))
    if wanted.excluded_actions:
        found.append(AuditEvent.action.not_in(wanted.excluded_actions))
    if wanted.actors:
        found.append(AuditEvent.actor.in_(wanted.actors))
    if wanted.app_ids:
        found.append(AuditEvent.app_id.in_(wanted.app_ids))
    if wanted.remote_addresses:
        found.append(AuditEvent.remote_address.in_(wanted.remote_addresses))
    if wanted.tenant_ids:
        tenants = [*wanted.tenant_ids, *([""] if wanted.also_without_tenant else [])]
        found.append(AuditEvent.tenant_id.in_(tenants))
    if wanted.text:
        columns = (
            AuditEvent.action,
            AuditEvent.actor,
            AuditEvent.remote_address,
            AuditEvent.app_id,
            AuditEvent.user_id,
            AuditEvent.tenant_id,
        )
        # `data` is stored as JSON, where letters beyond ASCII are escaped.
        in_data = cast(AuditEvent.data, Text).icontains(json.dumps(wanted.text)[1:-1], autoescape=True)
        found.append(or_(in_data, *(column.icontains(wanted.text, autoescape=True) for column in columns)))
    if wanted.since is not None:
        found.append(AuditEvent.occurred_at >= wanted.since)
    if wanted.until is not None:
        found.append(AuditEvent.occurred_at <= wanted.until)
    return found


def export_records(
    broker: Broker, project_id: str, *, since: datetime | None = None, until: datetime | None = None
) -> AsyncIterator[AuditEvent]:
    """Return a project's records, oldest first, however many there are."""
    return records_after(broker, project_id, 0, *_conditions(AuditQuery(since=since, until=until)))


async def export_lines(
    broker: Broker, project_id: str, *, since: datetime | None = None, until: datetime | None = None
) -> AsyncIterator[str]:
    """Yield the lines of `export_records`, as `export_line` writes them."""
    async for event in export_records(broker, project_id, since=since, until=until):
        yield export_line(event) + "\n"


def export_line(event: AuditEvent) -> str:
    """Return a record as a line of JSON, with all that its hash is made of."""
    return json.dumps(
        {
            "projectId": event.project_id,
            "sequence": event.sequence,
            "occurred": event.occurred_at.isoformat(timespec="microseconds"),
            "action": event.action,
            "actor": event.actor,
            "address": event.remote_address,
            "app": event.app_id,
            "user": event.user_id,
            "tenant": event.tenant_id,
            "data": event.data,
            "previousHash": event.previous_hash.hex(),
            "hash": event.hash.hex(),
        }
    )


@dataclass(frozen=True, kw_only=True)
class ReportedEvent:
    """Something that happened in the operator's own application."""

    action: str
    type: str
    actor_id: str
    tenant_id: str = ""
    user_id: str = ""
    data: dict[str, object]


async def record_report(broker: Broker, project_id: str, reported: ReportedEvent) -> None:
    """Record an event of the operator's application among ours.

    Raises:
        InvalidValue: the action could be mistaken for one of evergrant's own; nothing is written.
    """
    if _as_it_looks(reported.action).startswith(tuple(_as_it_looks(own) for own in OWN_ACTIONS)):
        raise InvalidValue.of(("action", f"evergrant's own actions begin with {', '.join(OWN_ACTIONS)}: use another"))
    async with broker.database.write() as session:
        await record(
            session,
            project_id,
            reported.action,
            user_id=reported.user_id,
            tenant_id=reported.tenant_id,
            data={**reported.data, "type": reported.type, "actorId": reported.actor_id},
        )


def _as_it_looks(action: str) -> str:
    return action.strip().casefold().translate(_LOOK_ALIKE)
