"""The sweep: finds grants that will soon need a refresh and refreshes them before anybody has to wait.

Each app is a queue of its own. Its queue has two parts: what is due, and what has been overdue for long, after a stop
or an outage. What is due goes first, because a fetch may want it any moment and still finds a valid token; the overdue
is worked off beside it.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from sqlalchemy import Integer, Update, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import tuple_

from evergrant.broker.grants.schedule import is_wanted, next_refresh, refreshed_at, used_at
from evergrant.broker.refresh import lease
from evergrant.broker.refresh.lease import LEASE_SECONDS, LeasedGrant, new_owner
from evergrant.broker.refresh.refresh import ClaimedGrant, refresh_grant
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.db.grant import GRANTS
from evergrant.db.types import database_now
from evergrant.errors import EvergrantError

log = logging.getLogger(__name__)

OVERDUE = timedelta(minutes=5)
"""What is due for longer than this has most likely expired: nobody is better off if it comes before the rest."""


@dataclass(frozen=True, slots=True)
class DueApp:
    """An app with grants that are due."""

    app: OutboundApp
    since: datetime
    """When the first of them fell due."""


@dataclass(frozen=True, slots=True)
class ClaimQuota:
    """How many of an app's grants to claim: of those that fell due lately, and of those that are long overdue."""

    app: OutboundApp
    due: int
    overdue: int


async def due_apps(broker: Broker, *, now: datetime) -> list[DueApp]:
    """Return the apps with due grants, those that wait longest first. Costs one look into the index per app."""
    first = (
        select(Grant.next_refresh_at)
        .where(
            Grant.project_id == OutboundApp.project_id,
            Grant.app_id == OutboundApp.id,
            Grant.next_refresh_at.is_not(None),
        )
        .order_by(Grant.next_refresh_at)
        .limit(1)
        .scalar_subquery()
    )
    query = select(OutboundApp, first.label("since")).where(first <= now).order_by("since")
    async with broker.database.read() as session:
        rows = (await session.execute(query)).all()
    return [DueApp(app, since) for app, since in rows if since is not None]


async def claim_due_grants(broker: Broker, wanted: Sequence[ClaimQuota], *, now: datetime) -> list[ClaimedGrant]:
    """Take the leases of due grants, in one short transaction; of each app those that expire first."""
    leased: list[tuple[LeasedGrant, OutboundApp]] = []
    long_ago = now - OVERDUE
    async with broker.database.write_bare() as connection:
        for one in wanted:
            for since, until, limit in ((long_ago, now, one.due), (None, long_ago, one.overdue)):
                if limit > 0:
                    rows = await _claim_of_app(connection, one.app, since=since, until=until, limit=limit)
                    leased += [(row, one.app) for row in rows]
    return [ClaimedGrant(row, app) for row, app in leased]


async def _claim_of_app(
    connection: AsyncConnection, app: OutboundApp, *, since: datetime | None, until: datetime, limit: int
) -> list[LeasedGrant]:
    owner = new_owner()
    limits = {"until": until, "most": limit} | ({} if since is None else {"since": since})
    asked_at = time.monotonic()
    found = await connection.execute(
        _claiming(overdue=since is None),
        {"holder": owner, "project": app.project_id, "app": app.id, **limits},
    )
    rows = [dict(row) for row in found.mappings()]
    leased = (LeasedGrant.of(owner, at=row.pop("at"), grant=Grant(**row), asked_at=asked_at) for row in rows)
    return sorted(leased, key=due_at)


@lru_cache
def _claiming(*, overdue: bool) -> Update:
    """Return the statement that claims due grants. It is built once: building costs more than running it."""
    columns = GRANTS.c
    due = select(columns.project_id, columns.id).where(
        columns.project_id == bindparam("project"),
        columns.app_id == bindparam("app"),
        columns.next_refresh_at <= bindparam("until"),
        columns.status == GrantStatus.ACTIVE,
        lease.is_free(),
    )
    if overdue:  # the latest first: the longer a token has been expired, the less anybody seems to want it
        due = due.order_by(columns.next_refresh_at.desc())
    else:
        due = due.where(columns.next_refresh_at > bindparam("since")).order_by(columns.next_refresh_at)
    # Two sweeps at once must not wait for each other's rows. SQLite has one writer anyway and ignores this.
    due = due.limit(bindparam("most", type_=Integer)).with_for_update(skip_locked=True)
    return (
        update(GRANTS)
        .where(tuple_(columns.project_id, columns.id).in_(due))
        .values(
            lease_owner=bindparam("holder"),
            lease_until=database_now(LEASE_SECONDS),
            interrupted_at=lease.interruption(),
        )
        .returning(*columns, database_now().label("at"))
    )


def due_at(leased: LeasedGrant) -> datetime:
    """Return when a claimed grant fell due."""
    assert leased.grant.next_refresh_at is not None  # noqa: S101 - it was claimed because of it
    return leased.grant.next_refresh_at


def is_overdue(due: datetime, *, now: datetime) -> bool:
    """Tell whether something that fell due at `due` is long overdue."""
    return due <= now - OVERDUE


async def refresh_claimed(broker: Broker, claim: ClaimedGrant, *, now: datetime) -> None:
    """Refresh one claimed grant, or put it off. Errors go to its row and the log, and stop nothing."""
    grant = claim.leased.grant
    try:
        await refresh_or_put_off(broker, claim, now=now)
    except EvergrantError as error:
        log.info("a refresh failed", extra={"grant": grant.id, "app": grant.app_id, "error": error.message})
    except Exception:
        log.exception("a refresh broke", extra={"grant": grant.id, "app": grant.app_id})


async def refresh_or_put_off(broker: Broker, claim: ClaimedGrant, *, now: datetime) -> bool:
    """Refresh one claimed grant and return True, or put it off and return False.

    Raises:
        EvergrantError: as `refresh_grant`.
    """
    grant = claim.leased.grant
    if not is_wanted(claim.app, grant, idle_after=broker.settings.idle_after, now=now):
        await _put_off(broker, claim, now=now)
        return False
    await refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version, claim=claim)
    return True


async def _put_off(broker: Broker, claim: ClaimedGrant, *, now: datetime) -> None:
    grant = claim.leased.grant
    later = next_refresh(
        claim.app,
        grant.fresh_until,
        used_at=used_at(grant),
        refreshed_at=refreshed_at(grant),
        ends_at=grant.refresh_token_expires_at,
        idle_after=broker.settings.idle_after,
        now=now,
    )
    await lease.release(broker, claim.leased, next_refresh_at=later)
