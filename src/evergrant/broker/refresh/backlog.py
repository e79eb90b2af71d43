"""The backlog: how many grants wait for a background refresh, for the metrics and `evergrant refresh status`.

Counting costs what the index of due grants costs, and stops at `CAP` for each app: a backlog of a million must not make
the database busy with being counted.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ScalarSelect, func, literal, select

from evergrant.app_types import AppType
from evergrant.broker.projects.projects import closed_projects
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, OutboundApp

CAP = 100_000
"""Counting stops here: `CAP` + 1 means "more than `CAP`"."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one app has waiting."""

    app: OutboundApp
    due: int
    """Grants whose time has come, those being refreshed among them; at most `CAP` + 1."""
    since: datetime | None
    """When the first of them fell due."""

    def age(self, *, now: datetime) -> float:
        """Return for how many seconds the first of them has been due; 0 where nothing is."""
        return max(0.0, (now - self.since).total_seconds()) if self.since is not None else 0.0


async def read_backlogs(broker: Broker, *, now: datetime, project_id: str | None = None) -> list[Backlog]:
    """Return every app's backlog, or those of one project; in the order of their ids.

    Raises:
        Unavailable: the database is away.
    """
    first = (
        select(func.min(Grant.next_refresh_at))
        .where(
            Grant.project_id == OutboundApp.project_id,
            Grant.app_id == OutboundApp.id,
            Grant.next_refresh_at <= now,
        )
        .scalar_subquery()
    )
    query = select(OutboundApp, count_due(until=now), first.label("since"))
    in_use = (OutboundApp.app_type != AppType.API_KEY, OutboundApp.project_id.not_in(closed_projects()))
    query = query.where(*in_use).order_by(OutboundApp.project_id, OutboundApp.id)
    if project_id is not None:
        query = query.where(OutboundApp.project_id == project_id)
    async with broker.database.browse() as session:
        rows = (await session.execute(query)).all()
    return [Backlog(app, due, since) for app, due, since in rows]


def count_due(*, until: datetime) -> ScalarSelect[int]:
    """Count, in a query over apps, an app's grants that fell due until then; no more than `CAP` + 1 of them."""
    some = (
        select(literal(1))
        .select_from(Grant)
        .where(
            Grant.project_id == OutboundApp.project_id,
            Grant.app_id == OutboundApp.id,
            Grant.next_refresh_at <= until,
        )
        .correlate(OutboundApp)
        .limit(CAP + 1)
        .subquery()
    )
    return select(func.count()).select_from(some).scalar_subquery()
