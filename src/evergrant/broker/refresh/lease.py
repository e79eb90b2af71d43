"""Leases on grants: they keep processes apart, so that a refresh token is never sent by two at once.

They are timed by the database's clock alone. A lease says who may call the provider and store what it answers; whoever
lost it stores nothing, because every write is on the condition that the lease is still there.
"""

import secrets
import time
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Update, case, or_, update

from evergrant.broker.audit.record import record
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.webhooks import outbox
from evergrant.db import Grant
from evergrant.db.types import database_now

LEASE_SECONDS = 60.0
"""Longer than the longest provider call (25 s in all) and the write that follows it."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to refresh one grant, under a name that nobody else uses."""

    owner: str

    @classmethod
    def new(cls) -> "Lease":
        """Make a name for a lease that is about to be taken."""
        return cls(secrets.token_hex(16))


@dataclass(frozen=True, slots=True)
class LeasedGrant:
    """A grant whose lease is ours, as it was when we took it."""

    lease: Lease
    grant: Grant
    wait_seconds: float
    """How long the provider must be left alone; 0 when it may be called."""
    ends: float
    """The monotonic second from which on the lease may not be ours any more."""

    @classmethod
    def of(cls, lease: Lease, grant: Grant, at: datetime, *, asked_at: float) -> "LeasedGrant":
        """Take a row as it was when its lease was taken: at this instant of the database's clock.

        `asked_at` is the monotonic second before it was asked for, so that `ends` is rather too early than too late.
        """
        wait = (grant.refresh_not_before - at).total_seconds() if grant.refresh_not_before else 0.0
        return cls(lease, grant, max(0.0, wait), asked_at + LEASE_SECONDS)


def is_free() -> ColumnElement[bool]:
    """Tell whether nobody holds a row's lease."""
    return or_(Grant.lease_owner.is_(None), Grant.lease_until < database_now())


def interruption() -> ColumnElement[datetime | None]:
    """Return what `interrupted_at` becomes when a free lease is taken.

    Who lets a lease run out was killed or stopped with the refresh under way, and nobody knows how far it got.
    """
    return case((Grant.lease_owner.is_not(None), database_now()), else_=Grant.interrupted_at)


async def take(broker: Broker, project_id: str, grant_id: str, lease: Lease) -> LeasedGrant | None:
    """Take a lease that is free or has run out; None while somebody else holds it, or when the grant is gone."""
    statement = update(Grant).where(Grant.project_id == project_id, Grant.id == grant_id, is_free())
    return await _hold(broker, lease, statement.values(interrupted_at=interruption()))


async def renew(broker: Broker, project_id: str, grant_id: str, lease: Lease) -> LeasedGrant | None:
    """Make sure of a lease that was taken before, for its whole length from now; None when it was lost."""
    ours = Grant.lease_owner == lease.owner
    return await _hold(broker, lease, update(Grant).where(Grant.project_id == project_id, Grant.id == grant_id, ours))


async def _hold(broker: Broker, lease: Lease, statement: Update) -> LeasedGrant | None:
    statement = (
        statement.values(lease_owner=lease.owner, lease_until=database_now(LEASE_SECONDS))
        .returning(Grant, database_now().label("at"))
        .execution_options(synchronize_session=False)
    )
    asked_at = time.monotonic()
    async with broker.database.write() as session:
        row = (await session.execute(statement)).one_or_none()
    if row is None:
        return None
    grant, at = row
    return LeasedGrant.of(lease, grant, at, asked_at=asked_at)


def releasing_update(held: LeasedGrant) -> Update:
    """Begin an update of the held row that lets the lease go, and does nothing if it is no longer ours."""
    return _releasing_update(held.grant.project_id, held.grant.id, held.lease)


def _releasing_update(project_id: str, grant_id: str, lease: Lease) -> Update:
    return (
        update(Grant)
        .where(Grant.project_id == project_id, Grant.id == grant_id, Grant.lease_owner == lease.owner)
        .values(lease_owner=None, lease_until=None)
        .execution_options(synchronize_session=False)
    )


async def update_leased(broker: Broker, statement: Update, *, audited_as: str = "") -> Grant | None:
    """Run an update from `releasing_update` in its own transaction; None when the lease was lost.

    With `audited_as`, the audit log tells that it was done, under this action.
    """
    async with broker.database.write() as session:
        grant = (await session.execute(statement.returning(Grant))).scalar_one_or_none()
        if grant is not None and audited_as == outbox.EventType.GRANT_REAUTHORIZATION_REQUIRED:
            await outbox.emit_reauthorization_required(session, grant)
        if grant is not None and audited_as:
            await record(
                session,
                grant.project_id,
                audited_as,
                app_id=grant.app_id,
                user_id=grant.user_id,
                tenant_id=grant.tenant_id,
                data={"grantId": grant.id, "reason": grant.last_refresh_error},
            )
        return grant


async def release(broker: Broker, project_id: str, grant_id: str, lease: Lease) -> None:
    """Give a lease back without having changed anything."""
    await update_leased(broker, _releasing_update(project_id, grant_id, lease))
