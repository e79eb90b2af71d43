"""Leases on grants: they keep processes apart, so that a refresh token is never sent by two at once.

They are timed by the database's clock alone. A lease says who may call the provider and store what it answers; whoever
lost it stores nothing, because every write is on the condition that the lease is still there.
"""

import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from sqlalchemy import ColumnElement, Update, case, or_, update

from evergrant.broker.grants.last_used import last_use
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant
from evergrant.db.types import database_now

LEASE_SECONDS = 60.0
"""Longer than the longest provider call (25 s in all) and the write that follows it."""


@dataclass(frozen=True, slots=True)
class LeasedGrant:
    """A grant whose lease is ours, as it was when we took it."""

    owner: str
    """The name that the lease is held under; nobody else uses it."""
    grant: Grant
    used_at: datetime
    """When it was last fetched, or connected."""
    wait_seconds: float
    """How long the provider must be left alone; 0 when it may be called."""
    ends: float
    """The monotonic second from which on the lease may not be ours any more."""

    @classmethod
    def of(cls, owner: str, grant: Grant, at: datetime, *, used_at: datetime, asked_at: float) -> Self:
        """Describe a row as it was when its lease was taken: at this instant of the database's clock.

        `asked_at` is the monotonic second before it was asked for, so that `ends` is rather too early than too late.
        """
        wait = (grant.refresh_not_before - at).total_seconds() if grant.refresh_not_before else 0.0
        return cls(owner, grant, used_at, max(0.0, wait), asked_at + LEASE_SECONDS)


def new_owner() -> str:
    """Return a name for a lease that is about to be taken."""
    return secrets.token_hex(16)


def is_free() -> ColumnElement[bool]:
    """Return the condition that nobody holds a row's lease."""
    return or_(Grant.lease_owner.is_(None), Grant.lease_until < database_now())


def interruption() -> ColumnElement[datetime | None]:
    """Return what `interrupted_at` becomes when a free lease is taken.

    Who lets a lease run out was killed or stopped with the refresh under way, and nobody knows how far it got.
    """
    return case((Grant.lease_owner.is_not(None), database_now()), else_=Grant.interrupted_at)


async def take(broker: Broker, project_id: str, grant_id: str) -> LeasedGrant | None:
    """Take a lease that is free or has run out; None while somebody else holds it, or when the grant is gone."""
    statement = update(Grant).where(Grant.project_id == project_id, Grant.id == grant_id, is_free())
    return await _hold(broker, new_owner(), statement.values(interrupted_at=interruption()))


async def renew(broker: Broker, leased: LeasedGrant) -> LeasedGrant | None:
    """Make sure of a lease that was taken before, for its whole length from now; None when it was lost."""
    return await _hold(broker, leased.owner, update(Grant).where(*_still_ours(leased)))


async def _hold(broker: Broker, owner: str, statement: Update) -> LeasedGrant | None:
    statement = (
        statement.values(lease_owner=owner, lease_until=database_now(LEASE_SECONDS))
        .returning(Grant, database_now().label("at"), last_use().label("used_at"))
        .execution_options(synchronize_session=False)
    )
    asked_at = time.monotonic()
    async with broker.database.write() as session:
        row = (await session.execute(statement)).one_or_none()
    if row is None:
        return None
    grant, at, used_at = row
    return LeasedGrant.of(owner, grant, at, used_at=used_at, asked_at=asked_at)


def releasing_update(leased: LeasedGrant) -> Update:
    """Return an update of a leased row that also releases the lease, and does nothing if the lease was lost."""
    return (
        update(Grant)
        .where(*_still_ours(leased))
        .values(lease_owner=None, lease_until=None)
        .execution_options(synchronize_session=False)
    )


async def release(broker: Broker, leased: LeasedGrant, **values: object) -> None:
    """Give a lease back, with these columns changed; nothing happens if it was lost."""
    async with broker.database.write() as session:
        await session.execute(releasing_update(leased).values(**values))


def _still_ours(leased: LeasedGrant) -> tuple[ColumnElement[bool], ...]:
    grant = leased.grant
    return Grant.project_id == grant.project_id, Grant.id == grant.id, Grant.lease_owner == leased.owner
