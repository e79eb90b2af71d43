"""Timelines: what happened to each connection, for the operator who asks why it does not work.

An event is written in the transaction of what it tells about, with one statement and no lookup, because one is written
with each refresh. The audit log says who did what, for good; this says how a connection fared, and is kept short.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain, islice
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import Table, delete, func, insert, select, text, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.timelines import Fetches
from evergrant.db import GrantEvent, Project
from evergrant.db.grant_event import IS_ENDING
from evergrant.errors import Unavailable

KEPT = 50
"""So many events of a connection are kept; a few more until somebody tidies up."""
KEPT_AFTER_END = timedelta(days=30)
BATCH = 200
MOST_CLEARED = 20
"""How many batches are cleared at once at most: the rest goes with the next time."""
TIDY_EVERY = 16
"""With every so many refreshes of a connection it is looked whether its timeline is too long."""


class GrantEventKind(StrEnum):
    """What can happen to a connection."""

    CONNECTED = "connected"
    """`data`: `madeBy` who asked for the link, `from` the address of the browser, `scopes`, `pending`, `renewed`."""
    UPLOADED = "uploaded"
    CONFIRMED = "confirmed"
    REPLACES = "replaces"
    """`data`: `ids` of the connections whose place it took."""
    REPLACED = "replaced"
    """`data`: `by` the id of the one that took its place."""
    REFRESHED = "refreshed"
    """`data`: `why` (`background`, `fetch` or `forced`), `ms` that the provider took, `rotated`."""
    FAILED = "failed"
    """A refresh that is tried again. `data`: `error`, `next` try in epoch seconds. Summed by hour."""
    APP_REFUSED = "app_refused"
    """The same where the provider refuses the app and not the connection."""
    ENDED = "ended"
    """The consent ended. `data`: `error`."""
    SUPERSEDED = "superseded"
    """The consent ended and another connection of the same owner answers: this one is gone. `data`: `by`, `error`."""
    FETCHED = "fetched"
    """Summed by hour and by who fetched."""
    FETCH_REFUSED = "fetch_refused"
    """The same. `data`: `reason`."""
    REFRESH_TOKEN_SEEN = "refresh_token_seen"
    TESTED = "tested"
    """The provider's API was asked whether the credential works. `data`: `error`, where it did not."""
    DELETED = "deleted"
    """`data`: `reason`, `appId`."""
    REVOKED = "revoked"
    REVOCATION_FAILED = "revocation_failed"
    """`data`: `error`."""


EVENTS = cast(Table, GrantEvent.__table__)
RECORD_EVENT = insert(EVENTS)
"""Writes the row of an event that stands by itself; where it belongs, see `record_event`."""


async def record_event(
    session: AsyncSession | AsyncConnection,
    project_id: str,
    grant_id: str,
    kind: GrantEventKind,
    *,
    at: datetime,
    actor: str = "",
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write an event into the caller's transaction. `actor` is who did it, empty for evergrant; nothing secret goes in.

    It belongs before the audit record.
    """
    row = event_row(project_id, grant_id, kind, at=at, actor=actor, data=data or {})
    await session.execute(RECORD_EVENT, row)


async def sum_event(
    session: AsyncSession | AsyncConnection,
    project_id: str,
    grant_id: str,
    kind: GrantEventKind,
    *,
    at: datetime,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Do the same for what comes again and again: within an hour it is one event that counts, with the last `data`."""
    row = event_row(project_id, grant_id, kind, at=at, actor="", data=data or {})
    row["id"] = _id_in_hour(at.replace(minute=0, second=0, microsecond=0), kind)
    await _add_up(session, [row])


async def write_fetches(broker: Broker) -> None:
    """Write down how often tokens were fetched. Called about once a minute; a crash loses no more than that.

    Raises:
        Unavailable: the database is away; what is left is written the next time.
    """
    waiting = broker.timelines.take_fetches()
    while part := list(islice(waiting, BATCH)):
        try:
            await _write_counts(broker, part)
        except Unavailable:
            broker.timelines.put_back(chain(part, waiting))
            raise
        broker.timelines.note_long((one.by.project_id, one.grant_id) for one in part)


async def _write_counts(broker: Broker, fetches: Sequence[Fetches]) -> None:
    async with broker.database.write() as session:
        query = select(Project.id).where(
            Project.closed_at.is_(None), Project.id.in_({one.by.project_id for one in fetches})
        )
        there = set(await session.scalars(query))
        if rows := [_counted(one) for one in fetches if one.by.project_id in there]:
            await _add_up(session, rows)


def _counted(fetches: Fetches) -> dict[str, Any]:
    by = fetches.by
    kind = GrantEventKind.FETCH_REFUSED if by.refused else GrantEventKind.FETCHED
    data = {"reason": by.refused} if by.refused else {}
    row = event_row(by.project_id, fetches.grant_id, kind, at=by.hour, actor=by.who, data=data)
    return row | {"id": _id_in_hour(by.hour, kind, by.who, by.refused), "n": fetches.n}


def _adding_up(add: sqlite.Insert | postgresql.Insert) -> sqlite.Insert | postgresql.Insert:
    sums = {"n": EVENTS.c.n + add.excluded.n, "at": add.excluded.at, "data": add.excluded.data}
    return add.on_conflict_do_update(index_elements=["project_id", "grant_id", "id"], set_=sums)


_ADD_UP = {"sqlite": _adding_up(sqlite.insert(EVENTS)), "postgresql": _adding_up(postgresql.insert(EVENTS))}
"""For one row. It is executed for many: a statement that has many has to be made anew each time, which takes long."""


async def _add_up(session: AsyncSession | AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows that count, in the order of their keys; what is there already counts on."""
    dialect = session.get_bind().dialect if isinstance(session, AsyncSession) else session.dialect
    await session.execute(_ADD_UP[dialect.name], sorted(rows, key=itemgetter("project_id", "grant_id", "id")))


async def tidy_timelines(broker: Broker) -> None:
    """Take the oldest events of the timelines that have become too long.

    Raises:
        Unavailable: the database is away; what is left is taken the next time.
    """
    keys = broker.timelines.take_long()
    for start in range(0, len(keys), BATCH):
        try:
            await _tidy(broker, keys[start : start + BATCH])
        except Unavailable:
            broker.timelines.note_long(keys[start:])
            raise


async def _tidy(broker: Broker, keys: Sequence[tuple[str, str]]) -> None:
    grant = (EVENTS.c.project_id, EVENTS.c.grant_id)
    place = func.row_number().over(partition_by=grant, order_by=EVENTS.c.id.desc()).label("place")
    placed = select(*grant, EVENTS.c.id, place).where(tuple_(*grant).in_(keys)).subquery()
    old = select(placed.c.project_id, placed.c.grant_id, placed.c.id).where(placed.c.place > KEPT)
    async with broker.database.write() as session:
        await session.execute(delete(EVENTS).where(tuple_(*grant, EVENTS.c.id).in_(old)))


async def clear_timelines(broker: Broker, *, now: datetime) -> int:
    """Delete timelines of connections that are gone for long, batch by batch, and return of how many.

    Raises:
        Unavailable: the database is away.
    """
    grant = (EVENTS.c.project_id, EVENTS.c.grant_id)
    over = (
        select(*grant)
        .where(text(IS_ENDING), EVENTS.c.at <= now - KEPT_AFTER_END)  # the index's own words, or it is not used
        .order_by(EVENTS.c.at)
        .limit(BATCH)
    )
    cleared = 0
    for _ in range(MOST_CLEARED):
        async with broker.database.write() as session:
            keys = [tuple(row) for row in await session.execute(over)]
            if keys:
                await session.execute(delete(EVENTS).where(tuple_(*grant).in_(keys)))
        cleared += len(keys)
        if len(keys) < BATCH:
            break
    return cleared


async def events_of(broker: Broker, project_id: str, grant_id: str) -> list[GrantEvent]:
    """Return what happened to a connection, the latest first; also of one that is gone."""
    query = (
        select(GrantEvent)
        .where(GrantEvent.project_id == project_id, GrantEvent.grant_id == grant_id)
        .order_by(GrantEvent.id.desc())
        .limit(KEPT)
    )
    async with broker.database.browse() as session:
        found = list(await session.scalars(query))
    return sorted(found, key=lambda event: (event.at, event.id), reverse=True)


def event_row(
    project_id: str, grant_id: str, kind: GrantEventKind, *, at: datetime, actor: str, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an event as the row that it is stored as."""
    return {
        "project_id": project_id,
        "grant_id": grant_id,
        "id": f"{_milliseconds(at)}{secrets.token_hex(8)}",
        "at": at,
        "n": 1,
        "kind": str(kind),
        "actor": actor[:300],
        "data": dict(data),
    }


def _id_in_hour(hour: datetime, *by: str) -> str:
    """Return the id of what is summed within an hour; it stands before whatever else happened in that hour."""
    words = "\n".join(by)
    return f"{_milliseconds(hour)}{hashlib.sha256(words.encode()).hexdigest()[:16]}"


def _milliseconds(at: datetime) -> str:
    return f"{int(at.timestamp() * 1000):012x}"
