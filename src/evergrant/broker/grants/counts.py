"""How many connections there are: by app counted now and then, and live where a state needs somebody's attention.

Counting a million rows takes a database a fifth of a second. So nobody who opens a page counts them: a refresher does,
seldom enough that counting is a small part of its work. What is not healthy has an index of its own, and is few.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, insert, select

from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, GrantCount, GrantDirectory, Project
from evergrant.db.grant import ATTENTION

AT_MOST_EVERY = timedelta(minutes=2)
ROWS_PER_SECOND_OF_REST = 2_500
"""For so many rows counted, the next count is a second later: a million is counted every seven minutes."""
LOOK_SECONDS = 5.0
"""A turn begins no further count after so long; the rest comes with the next."""
FEW = 1_000
"""So many are counted while somebody waits, and are then known exactly."""


@dataclass(frozen=True, slots=True)
class Total:
    """How many connections there are."""

    n: int
    counted_at: datetime | None
    """When they were counted; None where the number is exact and of now, or where nobody has counted yet."""
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """So many connections of an app that are not as they should be, in one state."""

    app_id: str
    status: str
    n: int


async def app_counts(broker: Broker, project_id: str) -> Mapping[str, tuple[int, datetime | None]]:
    """Return, by app, how many connections it has: now where the project has few, else when they were counted last.

    The moment of the count stands beside it; None for now. An app that is not in it has none, or was made since.
    """
    few = select(GrantDirectory.app_id).where(GrantDirectory.project_id == project_id).limit(FEW + 1).subquery()
    query = select(GrantCount).where(GrantCount.project_id == project_id, GrantCount.app_id != "")
    async with broker.database.browse() as session:
        live = {row[0]: row[1] for row in await session.execute(select(*few.c, func.count()).group_by(*few.c))}
        if sum(live.values()) <= FEW:
            return {app_id: (n, None) for app_id, n in live.items()}
        return {row.app_id: (row.n, row.counted_at) for row in await session.scalars(query)}


async def totals(broker: Broker, project_id: str, *groups: Collection[str]) -> list[Total]:
    """Return how many connections each group of apps has, exactly where they are few; an empty group is all apps."""
    columns: list[ColumnElement[Any]] = []
    for app_ids in groups:
        few = select(GrantDirectory.grant_id).where(GrantDirectory.project_id == project_id)
        counted = select(GrantCount).where(GrantCount.project_id == project_id)
        if app_ids:
            few = few.where(GrantDirectory.app_id.in_(app_ids))
            counted = counted.where(GrantCount.app_id.in_(app_ids))
        columns += [
            select(func.count()).select_from(few.limit(FEW + 1).subquery()).scalar_subquery(),
            counted.with_only_columns(func.coalesce(func.sum(GrantCount.n), 0)).scalar_subquery(),
            counted.with_only_columns(func.min(GrantCount.counted_at)).scalar_subquery(),
        ]
    async with broker.database.browse() as session:
        found = (await session.execute(select(*columns))).one()
    return [_total(*found[start : start + 3]) for start in range(0, len(columns), 3)]


def _total(exact: int, counted: int, counted_at: datetime | None) -> Total:
    return Total(exact, None) if exact <= FEW else Total(max(int(counted), exact), counted_at, is_exact=False)


async def unhealthy_counts(broker: Broker, project_id: str) -> list[Unhealthy]:
    """Return, by app and status, how many connections are not as they should be, now.

    An active one is among them if its last refresh failed.
    """
    async with broker.database.browse() as session:
        return [Unhealthy(*row) for row in await session.execute(unhealthy_query(project_id))]


def unhealthy_query(project_id: str, app_ids: Collection[str] = ()) -> Select[str, str, int]:
    """Return the statement for that, of these apps only if any are given.

    It says the index's own condition and groups in its order, so that no database sorts or looks at a row.
    """
    query = select(Grant.app_id, Grant.status, func.count()).where(Grant.project_id == project_id, ATTENTION)
    if app_ids:
        query = query.where(Grant.app_id.in_(app_ids))
    return query.group_by(Grant.app_id, Grant.status)


async def recount(broker: Broker, *, now: datetime) -> int:
    """Count the connections of projects whose counts are old, and return of how many projects.

    Raises:
        Unavailable: the database is away.
    """
    began, done = time.monotonic(), 0
    known = select(GrantCount.project_id, func.sum(GrantCount.n), func.min(GrantCount.counted_at))
    async with broker.database.read() as session:
        open_projects = list(await session.scalars(select(Project.id).where(Project.closed_at.is_(None))))
        counts = {row[0]: (int(row[1]), row[2]) for row in await session.execute(known.group_by(GrantCount.project_id))}
    for project_id in sorted(open_projects, key=lambda one: (one in counts, str(counts.get(one, ("", ""))[1]))):
        n, at = counts.get(project_id, (0, None))
        if at is not None and now - at < max(AT_MOST_EVERY, timedelta(seconds=n / ROWS_PER_SECOND_OF_REST)):
            continue
        if time.monotonic() - began > LOOK_SECONDS:
            break
        await _count_project(broker, project_id, now=now)
        done += 1
    for project_id in counts.keys() - set(open_projects):
        async with broker.database.write() as session:
            await session.execute(delete(GrantCount).where(GrantCount.project_id == project_id))
    return done


async def _count_project(broker: Broker, project_id: str, *, now: datetime) -> None:
    query = (
        select(GrantDirectory.app_id, func.count())
        .where(GrantDirectory.project_id == project_id)
        .group_by(GrantDirectory.app_id)
        .order_by(GrantDirectory.app_id)
    )
    async with broker.database.read() as session:
        found = [tuple(row) for row in await session.execute(query)]
    # A row for "no app" says that the project was counted, also where it has no connection.
    rows = [("", 0), *found]
    columns = [{"project_id": project_id, "app_id": app_id, "n": n, "counted_at": now} for app_id, n in rows]
    async with broker.database.write() as session:
        # Two refreshers that count at once wait for each other here.
        await session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))
        await session.execute(delete(GrantCount).where(GrantCount.project_id == project_id))
        await session.execute(insert(GrantCount), columns)
