"""Last uses of grants: noted in memory at each fetch and written down later, so that a fetch writes nothing.

They stand beside the grants, in a table of their own. A grant's own row changes only where it has to wake up.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from sqlalchemy import ColumnElement, Table, and_, bindparam, func, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.unwritten_uses import PRECISION, GrantKey
from evergrant.db import Grant, GrantStatus, GrantUse
from evergrant.db.grant import GRANTS
from evergrant.db.types import UtcDateTime

BATCH = 500

_USES = cast(Table, GrantUse.__table__)
_IS_USE = and_(_USES.c.project_id == bindparam("project"), _USES.c.grant_id == bindparam("grant"))
_AT = bindparam("at", type_=UtcDateTime)
_MOVE = (
    update(_USES)
    .where(
        tuple_(_USES.c.project_id, _USES.c.grant_id).in_(
            select(_USES.c.project_id, _USES.c.grant_id)
            .where(_IS_USE, _USES.c.fetched_at <= bindparam("until", type_=UtcDateTime))
            .with_for_update(skip_locked=True)
        )
    )
    .values(fetched_at=_AT)
)
"""Moves one use. It is executed for many: a statement that has many has to be made anew each time, which takes long."""
_FIRST = (
    select(GRANTS.c.project_id, GRANTS.c.id, _AT)
    .where(GRANTS.c.project_id == bindparam("project"), GRANTS.c.id == bindparam("grant"))
    .where(~select(_USES.c.grant_id).where(_IS_USE).exists())
    # Against a deletion only. Landings go on: they change no key.
    .with_for_update(of=GRANTS, read=True, key_share=True, skip_locked=True)
)
_COLUMNS = ["project_id", "grant_id", "fetched_at"]
_ADD = {
    "sqlite": sqlite.insert(_USES).from_select(_COLUMNS, _FIRST).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(_USES).from_select(_COLUMNS, _FIRST).on_conflict_do_nothing(),
}


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
    rows = [{"project": key[0], "grant": key[1], "at": at, "until": at - PRECISION} for key, at in sorted(uses)]
    async with broker.database.write() as session:
        await session.execute(_MOVE, rows)
        await session.execute(_ADD[broker.database.engine.dialect.name], rows)


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
