"""Last uses of grants: noted in memory at each fetch and written down later, so that a fetch writes nothing."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import and_, case, or_, update

from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, GrantStatus
from evergrant.db.grant_reader import GrantView

PRECISION = timedelta(days=1)
"""How often a grant's last fetch is written down at most: idleness is a matter of weeks."""
BATCH = 500


def note_use(broker: Broker, project_id: str, view: GrantView, *, now: datetime) -> None:
    """Remember that a grant's token was handed out, where the row does not say so yet."""
    if view.last_fetched_at is None or now - view.last_fetched_at >= PRECISION:
        broker.uses.grants.note_latest((project_id, view.id), now)


async def write_last_uses(broker: Broker) -> None:
    """Store when grants were last fetched. Called about once a minute; a crash loses no more than that.

    Those that had dropped to being kept alive only are kept fresh again from here on.

    Raises:
        Unavailable: the database is away; what is left is written the next time.
    """
    asleep = and_(
        Grant.status == GrantStatus.ACTIVE,
        Grant.refresh_token.is_not(None),
        Grant.fresh_until.is_not(None),
        Grant.refresh_failures == 0,
        or_(Grant.next_refresh_at.is_(None), Grant.next_refresh_at > Grant.fresh_until),
    )

    async def write(uses: Sequence[tuple[tuple[str, str], datetime]]) -> None:
        async with broker.database.write() as session:
            for (project_id, grant_id), at in uses:
                await session.execute(
                    update(Grant)
                    .where(Grant.project_id == project_id, Grant.id == grant_id)
                    .values(
                        last_fetched_at=at,
                        next_refresh_at=case((asleep, Grant.fresh_until), else_=Grant.next_refresh_at),
                    )
                    .execution_options(synchronize_session=False)
                )

    await broker.uses.grants.drain(write, at_once=BATCH)
