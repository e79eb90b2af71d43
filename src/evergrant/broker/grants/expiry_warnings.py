"""Warnings of refresh tokens that will end, unless something moves their end: each is given once."""

from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.sql.expression import tuple_

from evergrant.broker.runtime.broker import Broker
from evergrant.broker.webhooks.outbox import emit_expiring
from evergrant.db import Grant, GrantStatus

LONGEST = timedelta(days=7)
"""How long before the end somebody is warned, at most."""
SHARE = 0.25
"""The part of a refresh token's life that is left at the warning, where that is shorter."""
SAME_END = timedelta(minutes=1)
"""Two ends that are closer than this are the same, told at two moments."""
BATCH = 100


def warning_time(ends_at: datetime | None, *, now: datetime, before: Grant | None = None) -> datetime | None:
    """Return when somebody is to be warned of a refresh token's end; None for never.

    Where the grant had the same end `before`, that warning stays as it is, also when it was given.
    """
    if ends_at is None:
        return None
    known = before.refresh_token_expires_at if before is not None else None
    if before is not None and known is not None and abs(ends_at - known) < SAME_END:
        return before.warn_at
    return ends_at - min(LONGEST, (ends_at - now) * SHARE)


async def warn_of_ends(broker: Broker, *, now: datetime) -> int:
    """Tell webhooks of refresh tokens that will end soon, and return of how many.

    Raises:
        Unavailable: the database is away; who was not told of is told of later.
    """
    due = (
        select(Grant.project_id, Grant.id)
        .where(Grant.warn_at <= now, Grant.status != GrantStatus.PENDING)
        .order_by(Grant.warn_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(Grant)
        .where(tuple_(Grant.project_id, Grant.id).in_(select(due.cte("found"))))
        .values(warn_at=None)
        .returning(Grant)
        .execution_options(synchronize_session=False)
    )
    told = 0
    while True:
        async with broker.database.write() as session:
            grants = list(await session.scalars(statement))
            alive = [grant for grant in grants if grant.status == GrantStatus.ACTIVE]
            await emit_expiring(session, alive)
        told += len(alive)
        if len(grants) < BATCH:
            return told
