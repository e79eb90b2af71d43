"""Claims: taking the leases of due grants, of many apps at once, for the background."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    RowMapping,
    Select,
    String,
    Update,
    bindparam,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import tuple_

from evergrant.broker.grants.last_used import last_use
from evergrant.broker.refresh import takeover
from evergrant.broker.refresh.due_apps import OVERDUE
from evergrant.broker.refresh.lease import LeasedGrant
from evergrant.broker.refresh.refresh import ClaimedGrant
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.db.grant import GRANTS
from evergrant.db.types import database_now
from evergrant.pace import Pace

AppKey = tuple[str, str]
"""An app, by its project and id."""


@dataclass(frozen=True, slots=True)
class ClaimQuota:
    """How many of an app's grants to claim: of those that fell due lately, and of those that are long overdue."""

    app: AppKey
    due: int
    overdue: int


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What a claim goes by that stays the same for as long as a process runs."""

    pace: Pace
    takeover_seconds: float
    overdue: bool
    """Whether it takes what has been due for long, or the rest."""


async def claim_due_grants(broker: Broker, wanted: Sequence[ClaimQuota], *, now: datetime) -> list[ClaimedGrant]:
    """Take the leases of due grants, in one short transaction; of each app those that expire first.

    Raises:
        Unavailable: the database is away.
    """
    await broker.holder.wait_for_owners()
    apps = await _load_apps(broker, [one.app for one in wanted])
    leased: list[LeasedGrant] = []
    async with broker.database.write_bare() as connection:
        for overdue in (False, True):
            most = {one.app: one.overdue if overdue else one.due for one in wanted}
            most = {app: number for app, number in most.items() if number > 0 and app in apps}
            if most:
                leased += await _claim(broker, connection, most, overdue=overdue, now=now)
    broker.holder.took(*(one.held for one in leased))
    return [ClaimedGrant(one, apps[one.grant.project_id, one.grant.app_id]) for one in leased]


async def _load_apps(broker: Broker, keys: Sequence[AppKey]) -> dict[AppKey, OutboundApp]:
    """Read the apps as they are now: anybody may have changed or registered one since the look."""
    query = select(OutboundApp).where(tuple_(OutboundApp.project_id, OutboundApp.id).in_(keys))
    async with broker.database.read() as session:
        return {(app.project_id, app.id): app for app in await session.scalars(query)}


async def _claim(
    broker: Broker, connection: AsyncConnection, most: Mapping[AppKey, int], *, overdue: bool, now: datetime
) -> list[LeasedGrant]:
    owner, ends = broker.holder.new_owner(), time.monotonic() + broker.pace.lease
    common = {"holder": owner, "now": now, "long_ago": now - OVERDUE, **takeover.own_state(broker)}
    rules = ClaimRules(broker.pace, broker.settings.takeover_seconds, overdue=overdue)
    rows: list[RowMapping] = []
    if broker.database.is_sqlite:
        statement = _claiming_of_one(rules)
        for (project_id, app_id), number in most.items():
            one = {"project": project_id, "app": app_id, "most": number}
            rows += (await connection.execute(statement, one | common)).mappings()
    else:
        lists = {
            "projects": [project_id for project_id, _ in most],
            "apps": [app_id for _, app_id in most],
            "numbers": list(most.values()),
        }
        rows += (await connection.execute(_claiming_of_many(rules), lists | common)).mappings()
    return sorted((_leased(owner, row, ends=ends) for row in rows), key=due_at)


def _leased(owner: str, row: RowMapping, *, ends: float) -> LeasedGrant:
    from_row = {column.name: row[column.name] for column in GRANTS.c}
    return LeasedGrant.of(owner, grant=Grant(**from_row), at=row["at"], used_at=row["used_at"], ends=ends)


@lru_cache
def _claiming_of_one(rules: ClaimRules) -> Update:
    """Return the statement that claims one app's due grants. It is built once: building costs more than running it."""
    most = bindparam("most", type_=Integer)
    return _claiming(_due(bindparam("project"), bindparam("app"), rules).limit(most), rules)


@lru_cache
def _claiming_of_many(rules: ClaimRules) -> Update:
    """Return the statement that claims due grants of several apps, of each no more than its number (PostgreSQL)."""
    wanted = (
        func.unnest(
            bindparam("projects", type_=ARRAY(String)),
            bindparam("apps", type_=ARRAY(String)),
            bindparam("numbers", type_=ARRAY(Integer)),
        )
        .table_valued("project_id", "app_id", "most")
        .render_derived()
    )
    of_app = _due(wanted.c.project_id, wanted.c.app_id, rules).limit(wanted.c.most).lateral()
    return _claiming(select(of_app).select_from(wanted).join(of_app, true()), rules)


def _due(project_id: ColumnElement[str], app_id: ColumnElement[str], rules: ClaimRules) -> Select[tuple[str, str]]:
    columns = GRANTS.c
    due = select(columns.project_id, columns.id).where(
        columns.project_id == project_id,
        columns.app_id == app_id,
        columns.next_refresh_at <= bindparam("long_ago" if rules.overdue else "now"),
        columns.status == GrantStatus.ACTIVE,
        # Due times are our clock's, pauses are the database's: where the two disagree, the pause counts.
        or_(columns.refresh_not_before.is_(None), columns.refresh_not_before <= database_now()),
        takeover.is_free(takeover.NOBODY, pace=rules.pace, takeover_seconds=rules.takeover_seconds),
    )
    if rules.overdue:  # the latest first: the longer a token has been expired, the less anybody seems to want it
        due = due.order_by(columns.next_refresh_at.desc())
    else:
        due = due.where(columns.next_refresh_at > bindparam("long_ago")).order_by(columns.next_refresh_at)
    # Two refreshers at once must not wait for each other's rows. SQLite has one writer anyway and ignores this.
    return due.with_for_update(skip_locked=True)


def _claiming(due: Select[tuple[str, str]], rules: ClaimRules) -> Update:
    found = due.cte("found")  # looked up once, whatever the plan: or it could lock more than it returns
    return (
        update(GRANTS)
        .where(tuple_(GRANTS.c.project_id, GRANTS.c.id).in_(select(found)))
        .values(
            lease_owner=bindparam("holder"),
            lease_until=database_now(rules.pace.lease),
            interrupted_at=takeover.interruption(takeover.NOBODY),
        )
        .returning(*GRANTS.c, database_now().label("at"), last_use().label("used_at"))
    )


def due_at(leased: LeasedGrant) -> datetime:
    """Return when a claimed grant fell due."""
    assert leased.grant.next_refresh_at is not None  # noqa: S101 - it was claimed because of it
    return leased.grant.next_refresh_at
