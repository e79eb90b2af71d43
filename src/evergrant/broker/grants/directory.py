"""The directory of connections: where lists look them up, so that refreshes need not pay for lists.

A grant is entered when it is made, and moved when a new consent goes on with its row. With the grant, its entry goes.
"""

from sqlalchemy import and_, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, GrantDirectory

COLUMNS = ("project_id", "grant_id", "app_id", "user_id", "tenant_id", "token_sub", "consented_at")
BATCH = 1_000


async def enter(session: AsyncSession, grant: Grant) -> None:
    """Enter a grant that was just written, in the same transaction."""
    values = {name: getattr(grant, name) for name in COLUMNS if name != "grant_id"}
    await session.execute(insert(GrantDirectory).values(grant_id=grant.id, **values))


async def move(session: AsyncSession, grant: Grant) -> None:
    """Note that a consent was given anew, perhaps by somebody who is another to the provider."""
    mine = (GrantDirectory.project_id == grant.project_id, GrantDirectory.grant_id == grant.id)
    values = {"consented_at": grant.consented_at, "token_sub": grant.token_sub}
    await session.execute(
        update(GrantDirectory).where(*mine).values(values).execution_options(synchronize_session=False)
    )


async def enter_missing(broker: Broker) -> int:
    """Enter the grants that an older version wrote while it still ran beside this one, and return how many.

    Raises:
        Unavailable: the database is away.
    """
    is_entry = and_(GrantDirectory.project_id == Grant.project_id, GrantDirectory.grant_id == Grant.id)
    missing = (
        select(*(Grant.id if name == "grant_id" else getattr(Grant, name) for name in COLUMNS))
        .where(~exists().where(is_entry))
        .limit(BATCH)
    )
    async with broker.database.read() as session:  # looking at every row keeps nobody out
        if (await session.execute(missing.limit(1))).first() is None:
            return 0
    # Against a deletion only. Landings go on: they change no key.
    locked = missing.with_for_update(of=Grant, read=True, key_share=True, skip_locked=True)
    entered = 0
    while True:
        async with broker.database.write() as session:
            rows = [dict(zip(COLUMNS, row, strict=True)) for row in await session.execute(locked)]
            if rows:
                await session.execute(insert(GrantDirectory), rows)
        entered += len(rows)
        if len(rows) < BATCH:
            return entered
