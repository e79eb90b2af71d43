"""The sweep: finds grants that will soon need a refresh and refreshes them before anybody has to wait."""

import logging
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_, select, update
from sqlalchemy.sql.expression import tuple_

from evergrant.broker.lease import LEASE_SECONDS, Lease
from evergrant.broker.refresh import refresh_grant
from evergrant.broker.runtime import Broker
from evergrant.db import Grant, GrantStatus
from evergrant.db.types import database_now
from evergrant.errors import EvergrantError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """A due grant whose lease we hold."""

    project_id: str
    grant_id: str
    token_version: int
    lease: Lease


async def claim_due(broker: Broker, *, limit: int, now: datetime) -> list[Claim]:
    """Take the leases of up to `limit` due grants, those overdue longest first, in one short transaction."""
    lease = Lease.new()
    due = (
        select(Grant.project_id, Grant.id)
        .where(
            Grant.next_refresh_at <= now,
            Grant.status == GrantStatus.ACTIVE,
            or_(Grant.lease_owner.is_(None), Grant.lease_until < database_now()),
        )
        .order_by(Grant.next_refresh_at)
        .limit(limit)
        # Two sweeps at once must not wait for each other's rows. SQLite has one writer anyway and ignores this.
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(Grant)
        .where(tuple_(Grant.project_id, Grant.id).in_(due))
        .values(lease_owner=lease.owner, lease_until=database_now(LEASE_SECONDS))
        .returning(Grant.project_id, Grant.id, Grant.token_version)
        .execution_options(synchronize_session=False)
    )
    async with broker.database.write() as session:
        rows = (await session.execute(statement)).all()
    return [Claim(project_id, grant_id, version, lease) for project_id, grant_id, version in rows]


async def refresh_claimed(broker: Broker, claim: Claim) -> None:
    """Refresh one claimed grant. Whatever goes wrong is on its row and in the log, and stops nothing else."""
    try:
        await refresh_grant(
            broker,
            claim.project_id,
            claim.grant_id,
            seen_version=claim.token_version,
            claimed=claim.lease,
        )
    except EvergrantError as error:
        log.info("a refresh failed", extra={"grant": claim.grant_id, "error": error.message})
    except Exception:
        log.exception("a refresh broke", extra={"grant": claim.grant_id})
