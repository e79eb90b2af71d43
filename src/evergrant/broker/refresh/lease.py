"""Leases on grants: they keep processes apart, so that a refresh token is never sent by two at once.

They are timed by the database's clock alone. A lease says who may call the provider and store what it answers; whoever
lost it stores nothing, because every write is on the condition that the lease is still there.
"""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from sqlalchemy import ColumnElement, Update, or_, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.broker.grants.events import GrantEventKind, sum_event
from evergrant.broker.grants.last_used import last_use
from evergrant.broker.refresh import takeover
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.holder_files import HeldLease
from evergrant.db import Grant
from evergrant.db.types import database_now
from evergrant.errors import Unavailable


@dataclass(frozen=True, slots=True)
class FailedRefresh:
    """What a timeline says of a refresh that failed and is tried again."""

    error: str
    next_try: datetime | None
    app_refused: bool = False
    """Whether the provider refuses the app: the connection is innocent."""


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
    """The monotonic second from which on we make sure of the lease before we call."""

    @classmethod
    def of(cls, owner: str, grant: Grant, at: datetime, *, used_at: datetime, ends: float) -> Self:
        """Describe a row as it was when its lease was taken: at this instant of the database's clock."""
        wait = (grant.refresh_not_before - at).total_seconds() if grant.refresh_not_before else 0.0
        return cls(owner, grant, used_at, max(0.0, wait), ends)

    @property
    def held(self) -> HeldLease:
        """The lease alone."""
        return HeldLease(self.grant.project_id, self.grant.id, self.owner)


async def take(broker: Broker, project_id: str, grant_id: str) -> LeasedGrant | None:
    """Take a lease that is free; None while somebody else holds it, or when the grant is gone.

    Raises:
        Unavailable: the database is away.
    """
    if not broker.database_health.is_up:
        raise Unavailable
    await broker.holder.wait_for_owners()
    owner = broker.holder.new_owner()
    state, free = takeover.own_state(broker), takeover.is_free_for(broker)
    if not broker.holder.uses(project_id, grant_id):
        free = or_(free, takeover.is_own(state))
    statement = update(Grant).where(Grant.project_id == project_id, Grant.id == grant_id, free)
    try:
        leased = await _hold(broker, owner, statement.values(interrupted_at=takeover.interruption(state)))
    except BaseException:  # it may have been taken, whatever was heard of it
        broker.holder.give_back_later(HeldLease(project_id, grant_id, owner), {})
        raise
    if leased is not None:
        broker.holder.took(leased.held)
    return leased


async def renew(broker: Broker, leased: LeasedGrant) -> LeasedGrant | None:
    """Make sure of a lease that was taken before, for its whole length from now; None when it was lost."""
    return await _hold(broker, leased.owner, update(Grant).where(*_still_ours(leased)))


async def _hold(broker: Broker, owner: str, statement: Update) -> LeasedGrant | None:
    statement = (
        statement.values(lease_owner=owner, lease_until=database_now(broker.pace.lease))
        .returning(Grant, database_now().label("at"), last_use().label("used_at"))
        .execution_options(synchronize_session=False)
    )
    ends = time.monotonic() + broker.pace.lease  # rather too early than too late
    async with broker.database.write() as session:
        row = (await session.execute(statement)).one_or_none()
    if row is None:
        return None
    grant, at, used_at = row
    return LeasedGrant.of(owner, grant, at, used_at=used_at, ends=ends)


def releasing_update(leased: LeasedGrant) -> Update:
    """Return an update of a leased row that also releases the lease, and does nothing if the lease was lost."""
    return (
        update(Grant)
        .where(*_still_ours(leased))
        .values(lease_owner=None, lease_until=None)
        .execution_options(synchronize_session=False)
    )


async def release(
    broker: Broker, leased: LeasedGrant, *, failure: FailedRefresh | None = None, **values: object
) -> None:
    """Give a lease back, with these columns changed; nothing happens if it was lost. The timeline has the `failure`.

    Raises:
        Unavailable: the database is away. It is given back, with the same changes, when the database is there again.
    """
    try:
        async with broker.database.write() as session:
            await session.execute(releasing_update(leased).values(**values))
            if failure is not None:
                await _record_failure(session, leased, failure)
    except BaseException:
        broker.holder.give_back_later(leased.held, values)
        raise
    broker.holder.put_down(leased.held)


async def let_go(broker: Broker, leased: LeasedGrant) -> None:
    """Give a lease back when its refresh has ended, however it ended, unless that is done, or an answer has to land."""
    held = leased.held
    if held in broker.holder.to_give_back or not broker.holder.is_in_use(held) or broker.holder.has_answer(held):
        return
    try:
        await release(broker, leased)
    except Unavailable as error:
        broker.database_health.note_away(error)


async def _record_failure(session: AsyncSession, leased: LeasedGrant, failure: FailedRefresh) -> None:
    grant = leased.grant
    kind = GrantEventKind.APP_REFUSED if failure.app_refused else GrantEventKind.FAILED
    data: dict[str, object] = {"error": failure.error}
    if failure.next_try is not None:
        data["next"] = int(failure.next_try.timestamp())
    await sum_event(session, grant.project_id, grant.id, kind, at=clock.now(), data=data)


def _still_ours(leased: LeasedGrant) -> tuple[ColumnElement[bool], ...]:
    grant = leased.grant
    return Grant.project_id == grant.project_id, Grant.id == grant.id, Grant.lease_owner == leased.owner
