"""Last uses of grants: noted in memory at each fetch and written down later, so that a fetch writes nothing.

They stand beside the grants, in a table of their own. A grant's own row changes only where it has to wake up.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, String, and_, column, func, or_, select, tuple_, update, values
from sqlalchemy.dialects import postgresql, sqlite

from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.unwritten_uses import PRECISION, GrantKey
from evergrant.db import Grant, GrantStatus, GrantUse
from evergrant.db.grant import GRANTS
from evergrant.db.types import UtcDateTime

BATCH = 500


def last_use() -> ColumnElement[datetime]:
    """Return, for a statement about grants, when each was last fetched, to about a day, or connected."""
    use = select(GrantUse.fetched_at).where(GrantUse.project_id == Grant.project_id, GrantUse.grant_id == Grant.id)
    return func.coalesce(use.correlate(GRANTS).scalar_subquery(), GRANTS.c.consented_at)


async def write_last_uses(broker: Broker) -> None:
    """Store when grants were last fetched. Called about once a minute; a crash loses no more than that.

    Those that had dropped to being kept alive only are kept fresh again from here on.

    Raises:
        Unavailable: the database is away; what is left is written the next time.
    """

    async def write(uses: Sequence[tuple[GrantKey, datetime]]) -> None:
        await _write_down(broker, uses)
        for key in await _wake_up(broker, [key for key, _ in uses]):
            broker.uses.forget_grant(key)  # so that its next fetch is noted, and wakes it

    await broker.uses.grants.drain(write, at_once=BATCH)


async def _write_down(broker: Broker, uses: Sequence[tuple[GrantKey, datetime]]) -> None:
    """Write uses in the order of their keys, waiting for nobody: replicas write the same ones at the same time."""
    columns = (column("project_id", String), column("grant_id", String))
    moments = (column("fetched_at", UtcDateTime), column("written_until", UtcDateTime))
    rows = sorted((*key, at, at - PRECISION) for key, at in uses)
    used = values(*columns, *moments, name="rows").data(rows).cte("used")
    is_use = and_(GrantUse.project_id == used.c.project_id, GrantUse.grant_id == used.c.grant_id)
    old = (
        select(GrantUse.project_id, GrantUse.grant_id)
        .join(used, is_use)
        .where(GrantUse.fetched_at <= used.c.written_until)
        .order_by(GrantUse.project_id, GrantUse.grant_id)
        .with_for_update(of=GrantUse, skip_locked=True)
    )
    move = (
        update(GrantUse)
        .where(is_use, tuple_(GrantUse.project_id, GrantUse.grant_id).in_(old))
        .values(fetched_at=used.c.fetched_at)
        .execution_options(synchronize_session=False)
    )
    first = (
        select(used.c.project_id, used.c.grant_id, used.c.fetched_at)
        .join(GRANTS, and_(Grant.project_id == used.c.project_id, Grant.id == used.c.grant_id))
        .where(~select(GrantUse.grant_id).where(is_use).exists())
        .order_by(used.c.project_id, used.c.grant_id)
        # Against a deletion only. Landings go on: they change no key.
        .with_for_update(of=GRANTS, read=True, key_share=True, skip_locked=True)
    )
    insert = sqlite.insert if broker.database.is_sqlite else postgresql.insert
    add = insert(GrantUse).from_select(["project_id", "grant_id", "fetched_at"], first).on_conflict_do_nothing()
    async with broker.database.write() as session:
        await session.execute(move)
        await session.execute(add)


async def _wake_up(broker: Broker, keys: Sequence[GrantKey]) -> set[GrantKey]:
    """Let those of these grants that sleep be kept fresh again; return those that were being changed just then."""
    key = tuple_(Grant.project_id, Grant.id)
    asleep = select(Grant.project_id, Grant.id).where(
        key.in_(keys),
        Grant.status == GrantStatus.ACTIVE,
        Grant.refresh_token.is_not(None),
        Grant.fresh_until.is_not(None),
        Grant.refresh_failures == 0,
        Grant.restored_at.is_(None),  # those are tried by evidence alone
        or_(Grant.next_refresh_at.is_(None), Grant.next_refresh_at > Grant.fresh_until),
    )
    async with broker.database.read() as session:
        found = {(row.project_id, row.id) for row in await session.execute(asleep)}
    if not found:
        return found
    wake = (
        update(Grant)
        .where(key.in_(asleep.with_for_update(skip_locked=True)))
        .values(next_refresh_at=Grant.fresh_until)
        .returning(Grant.project_id, Grant.id)
        .execution_options(synchronize_session=False)
    )
    async with broker.database.write() as session:
        return found - {(row.project_id, row.id) for row in await session.execute(wake)}
