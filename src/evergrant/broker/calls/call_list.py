"""Reading the call log: a page at a time, newest first, and all of a period for an export."""

import json
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, literal_column, select

from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.list_places import Place
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.db import CallRecord

MOST_CALLS = 200
"""Most calls that one page has."""


@dataclass(frozen=True, kw_only=True)
class CallFilter:
    """Which calls; an empty field does not limit."""

    app_id: str = ""
    user_id: str = ""
    tenant_id: str = ""
    agent: str = ""
    session_id: str = ""
    kind: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class CallPage:
    """Some calls, newest first."""

    calls: Sequence[CallRecord]
    following: Place | None
    """Where the next page goes on; None on the last."""


async def list_calls(
    broker: Broker, principal: Principal, wanted: CallFilter, *, after: Place | None = None, limit: int = 50
) -> CallPage:
    """Return a page of the call log, newest first; whoever is limited to some apps sees calls of those. One statement.

    Raises:
        PermissionDenied: the key lacks the permission `audit`, or is limited to other apps.
    """
    principal.require(Permission.AUDIT)
    if wanted.app_id:
        principal.require_app(wanted.app_id)
    only = () if wanted.app_id else principal.app_ids
    return await list_all_calls(broker, principal.project_id, wanted, only=only, after=after, limit=limit)


async def list_all_calls(
    broker: Broker,
    project_id: str,
    wanted: CallFilter,
    *,
    only: Collection[str] = (),
    after: Place | None = None,
    limit: int = MOST_CALLS,
) -> CallPage:
    """Return a page for whoever may see all; `only` some apps, where they are named."""
    query = select(CallRecord).where(*_call_conditions(project_id, wanted))
    if only:
        query = query.where(CallRecord.app_id.in_(only))
    if after is not None:
        query = query.where(after.older(CallRecord.at, CallRecord.id))
    query = query.order_by(CallRecord.at.desc(), CallRecord.id.desc()).limit(limit + 1)
    async with broker.database.browse() as session:
        calls = list(await session.scalars(query))
    if len(calls) <= limit:
        return CallPage(calls, None)
    last = calls[limit - 1]
    return CallPage(calls[:limit], Place(last.at, last.id))


async def export_calls(
    broker: Broker, project_id: str, *, since: datetime | None = None, until: datetime | None = None
) -> AsyncIterator[str]:
    """Yield a project's calls as JSON, one a line, newest first, with what each batch's digest is made of."""
    wanted, after = CallFilter(since=since, until=until), None
    while True:
        page = await list_all_calls(broker, project_id, wanted, after=after)
        for call in page.calls:
            yield json.dumps(call_columns(call)) + "\n"
        if (after := page.following) is None:
            return


def call_columns(call: CallRecord) -> dict[str, Any]:
    """Return all that a call's row says, as JSON has it."""
    said = {column.key: getattr(call, column.key) for column in CallRecord.__mapper__.columns}
    return said | {"at": call.at.astimezone(UTC).isoformat(timespec="microseconds")}


def _call_conditions(project_id: str, wanted: CallFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [CallRecord.project_id == project_id]
    if wanted.app_id:
        found.append(CallRecord.app_id == wanted.app_id)
    if wanted.user_id:
        found.append(CallRecord.user_id == wanted.user_id)
    for column, value in (
        (CallRecord.tenant_id, wanted.tenant_id),
        (CallRecord.agent, wanted.agent),
        (CallRecord.session_id, wanted.session_id),
    ):
        if value:  # said in so many words, because the indexes leave out what is empty
            found += [column == value, column != literal_column("''")]
    if wanted.kind:
        found.append(CallRecord.kind == wanted.kind)
    if wanted.since is not None:
        found.append(CallRecord.at >= wanted.since)
    if wanted.until is not None:
        found.append(CallRecord.at <= wanted.until)
    return found
