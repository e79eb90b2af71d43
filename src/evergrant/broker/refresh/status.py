"""The status of background refreshing, for `evergrant refresh status`: what waits, what fails, and how fast it goes.

What is due is counted in its index. Errors, dead connections and the rate have none, and looking at every row would
take a large installation minutes, so they come from a sample where there are many: ids are random, so the first of them
in their order are as good as any.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ScalarSelect, and_, case, func, select

from evergrant.app_types import AppType
from evergrant.broker.refresh.backlog import CAP, Backlog, count_due, read_backlogs
from evergrant.broker.refresh.due_apps import OVERDUE
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, GrantStatus, Holder, OutboundApp
from evergrant.db.types import database_now

SAMPLE = 20_000
"""How many of a project's connections are looked at, unless all are wanted."""
RATE_WINDOW = timedelta(minutes=10)
_ID_DIGITS = 12
"""How many of an id's hexadecimal digits are read to tell which part of all ids is smaller."""


@dataclass
class AppStatus:
    """The status of one app. Figures that come from a sample are projected to all connections."""

    backlog: Backlog
    overdue: int
    """Grants that have been due for longer than `OVERDUE`; counted like `Backlog.due`."""
    in_flight: int
    """Due grants whose lease somebody holds: they are being refreshed, or were when their holder died."""
    landed: float = 0
    """Connections that were refreshed within `RATE_WINDOW`; one that was refreshed twice counts once."""
    failing: float = 0
    """Connections whose last refresh failed and will be tried again."""
    reauthorization_required: float = 0
    errors: Counter[str] = field(default_factory=Counter)
    """The errors of failing connections, each with its number among those that were looked at."""


@dataclass(frozen=True, slots=True)
class HolderStatus:
    """A process that refreshes, or did."""

    name: str
    started_at: datetime
    silent_seconds: float
    """For how long it has not shown itself; by the database's clock, like the rest."""


@dataclass(frozen=True)
class RefreshStatus:
    """The status of every app that was asked for, and who is at work."""

    apps: list[AppStatus]
    holders: list[HolderStatus]
    sampled: float
    """The part of the connections that was looked at, 1 for all; of several projects, the smallest."""


async def read_status(broker: Broker, *, project_id: str | None, exactly: bool, now: datetime) -> RefreshStatus:
    """Return the status of one project's apps or of all; `exactly` looks at every connection.

    Raises:
        Unavailable: the database is away.
    """
    backlogs = await read_backlogs(broker, now=now, project_id=project_id)
    counts = await _count(broker, now=now)
    apps = {}
    for backlog in backlogs:
        key = backlog.app.project_id, backlog.app.id
        overdue, in_flight = counts.get(key, (0, 0))
        apps[key] = AppStatus(backlog, overdue, in_flight)
    parts = [
        await _look(broker, project, apps, exactly=exactly, now=now)
        for project in dict.fromkeys(project for project, _ in apps)
    ]
    return RefreshStatus(list(apps.values()), await _read_holders(broker), min(parts, default=1.0))


async def _read_holders(broker: Broker) -> list[HolderStatus]:
    """Return the processes that have a row, those that showed themselves last first."""
    query = select(Holder, database_now().label("at")).order_by(Holder.beat_at.desc())
    async with broker.database.read() as session:
        rows = (await session.execute(query)).all()
    return [
        HolderStatus(holder.name, holder.started_at, max(0.0, (at - holder.beat_at).total_seconds()))
        for holder, at in rows
    ]


async def _count(broker: Broker, *, now: datetime) -> dict[tuple[str, str], tuple[int, int]]:
    """Return how many grants are overdue and in flight, by app."""
    query = select(
        OutboundApp.project_id, OutboundApp.id, count_due(until=now - OVERDUE), _count_in_flight(now=now)
    ).where(OutboundApp.app_type != AppType.API_KEY)
    async with broker.database.read() as session:
        return {(project, app): (late, held) for project, app, late, held in (await session.execute(query)).all()}


def _count_in_flight(*, now: datetime) -> ScalarSelect[int]:
    held = Grant.lease_owner.is_not(None)  # also past its end, while its holder lands an answer
    due = (
        select(case((held, 1), else_=0).label("held"))
        .where(
            Grant.project_id == OutboundApp.project_id,
            Grant.app_id == OutboundApp.id,
            Grant.next_refresh_at <= now,
        )
        .correlate(OutboundApp)
        .order_by(Grant.next_refresh_at.desc())  # where a long backlog is worked off
        .limit(CAP + 1)
        .subquery()
    )
    return select(func.coalesce(func.sum(due.c.held), 0)).scalar_subquery()


async def _look(
    broker: Broker, project_id: str, apps: dict[tuple[str, str], AppStatus], *, exactly: bool, now: datetime
) -> float:
    """Count a project's connections by status and error into `apps`, and return which part of them was looked at."""
    fails = and_(Grant.status == GrantStatus.ACTIVE, Grant.refresh_failures > 0)
    looked_at = select(
        Grant.app_id,
        Grant.status,
        case((fails, 1), else_=0).label("failing"),
        case((fails, Grant.last_refresh_error), else_="").label("error"),
        case((Grant.last_refresh_time >= now - RATE_WINDOW, 1), else_=0).label("landed"),
    ).where(Grant.project_id == project_id)
    end = select(Grant.id).where(Grant.project_id == project_id).order_by(Grant.id).offset(SAMPLE).limit(1)
    part = 1.0
    async with broker.database.read() as session:
        first_left_out = None if exactly else await session.scalar(end)
        if first_left_out is not None:
            looked_at = looked_at.where(Grant.id < first_left_out)
            part = max(1, int(first_left_out[:_ID_DIGITS], 16)) / 16**_ID_DIGITS
        row = looked_at.subquery().c
        groups = (row.app_id, row.status, row.failing, row.error)
        rows = (await session.execute(select(*groups, func.count(), func.sum(row.landed)).group_by(*groups))).all()
    for app_id, status, fails_now, text, count, landed_lately in rows:
        app = apps.get((project_id, app_id))
        if app is None:
            continue  # one that holds API keys
        app.landed += landed_lately / part
        if status == GrantStatus.REAUTHORIZATION_REQUIRED:
            app.reauthorization_required += count / part
        if fails_now:
            app.failing += count / part
            app.errors[text] += count
    return part
