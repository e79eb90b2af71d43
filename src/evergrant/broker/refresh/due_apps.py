"""Which apps have connections that are due: one look into the index for each app, and short rows for those that do."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, ScalarSelect, SQLColumnExpression, Subquery, func, literal, select, tuple_

from evergrant.app_types import AppType
from evergrant.broker.projects.projects import closed_projects
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, OutboundApp

OVERDUE = timedelta(minutes=5)
"""What is due for longer than this has most likely expired: nobody is better off if it comes before the rest."""
PAGE = 1000
"""How many apps one look returns at most."""
MANY = 16
"""Counting an app's due grants ends here: so many, or more."""


@dataclass(frozen=True, slots=True)
class DueApp:
    """An app with grants that are due."""

    project_id: str
    app_id: str
    token_url: str
    client_id: str
    since: datetime
    """When the first of them fell due."""
    due: int
    """How many fell due lately; `MANY` for that or more. Those that are being refreshed count."""
    overdue: int
    """How many are long overdue, counted in the same way."""


async def due_apps(
    broker: Broker, *, now: datetime, after: DueApp | None = None, beside: Collection[tuple[str, str]] = ()
) -> list[DueApp]:
    """Return apps with due grants, at most `PAGE`, those that wait longest first.

    It costs one look into the index for each app that there is, and a few more for those that it returns.

    Args:
        broker: the runtime.
        now: the moment.
        after: leave out this one and all that wait longer.
        beside: leave out these token URLs with these client ids: there is enough for them already.

    Raises:
        Unavailable: the database is away.
    """
    first = (
        select(Grant.next_refresh_at)
        .where(*_grants_of(OutboundApp.project_id, OutboundApp.id), Grant.next_refresh_at.is_not(None))
        .order_by(Grant.next_refresh_at)
        .limit(1)
        .scalar_subquery()
    )
    apps = (
        select(
            OutboundApp.project_id,
            OutboundApp.id,
            OutboundApp.token_url,
            OutboundApp.client_id,
            first.label("since"),
        )
        .where(
            OutboundApp.app_type != AppType.API_KEY, OutboundApp.project_id.not_in(closed_projects()), *_not_for(beside)
        )
        .offset(0)  # or the look for the first would be made once for the condition and once for the order
        .subquery()
    )
    order = (apps.c.since, apps.c.project_id, apps.c.id)
    page = select(apps).where(apps.c.since <= now).order_by(*order).limit(PAGE)
    if after is not None:
        page = page.where(tuple_(*order) > tuple_(literal(after.since), after.project_id, after.app_id))
    some = page.subquery()
    query = select(
        some,
        _some_of(some, Grant.next_refresh_at > now - OVERDUE, Grant.next_refresh_at <= now),
        _some_of(some, Grant.next_refresh_at <= now - OVERDUE),
    ).order_by(some.c.since, some.c.project_id, some.c.id)
    async with broker.database.read() as session:
        return [DueApp(*row) for row in await session.execute(query)]


def is_overdue(due: datetime, *, now: datetime) -> bool:
    """Tell whether something that fell due at `due` is long overdue."""
    return due <= now - OVERDUE


def _not_for(lines: Collection[tuple[str, str]]) -> list[ColumnElement[bool]]:
    return [tuple_(OutboundApp.token_url, OutboundApp.client_id).not_in(lines)] if lines else []


def _some_of(apps: Subquery, *when: ColumnElement[bool]) -> ScalarSelect[int]:
    some = (
        select(literal(1))
        .select_from(Grant)
        .where(*_grants_of(apps.c.project_id, apps.c.id), *when)
        .correlate(apps)
        .limit(MANY)
        .subquery()
    )
    return select(func.count()).select_from(some).scalar_subquery()


def _grants_of(
    project_id: SQLColumnExpression[str], app_id: SQLColumnExpression[str]
) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Grant.project_id == project_id, Grant.app_id == app_id
