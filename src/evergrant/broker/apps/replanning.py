"""What an app's update means for its grants: those that failed are tried again, and others fall due earlier.

An app can have millions, so this goes in batches, each a short transaction of its own. It waits for nobody: a row that
somebody is refreshing is left for the end. Whatever is done twice, or broken off and begun again, comes to the same.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update

from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.db.types import database_now

BATCH = 500
PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds between the looks at those that were being refreshed; after the last they are changed all the same."""


async def try_failing_again(broker: Broker, app: OutboundApp) -> None:
    """Let the background take up at once what failed before a correction.

    Raises:
        Unavailable: the database is away; another update does the rest.
    """
    await _change(
        broker,
        app,
        (Grant.refresh_failures > 0,),
        {"refresh_not_before": None, "refresh_failures": 0, "next_refresh_at": database_now()},
    )


async def plan_anew(broker: Broker, app: OutboundApp) -> None:
    """Plan the refresh of every grant that can be refreshed for when its access token is no longer fresh.

    Raises:
        Unavailable: as `try_failing_again`.
    """
    fresh_until = func.coalesce(Grant.fresh_until, database_now())
    later = or_(Grant.next_refresh_at.is_(None), Grant.next_refresh_at > fresh_until)
    conditions = (Grant.refresh_token.is_not(None), Grant.refresh_failures == 0, later)
    await _change(broker, app, conditions, {"next_refresh_at": fresh_until})


async def _change(
    broker: Broker, app: OutboundApp, conditions: Sequence[ColumnElement[bool]], values: Mapping[str, Any]
) -> None:
    # Those that came back from a backup are tried by evidence alone.
    usual = (Grant.status == GrantStatus.ACTIVE, Grant.restored_at.is_(None))
    active = (Grant.project_id == app.project_id, *usual, *conditions)
    of_app = select(Grant.id).where(Grant.app_id == app.id, *active)
    async with broker.database.read() as session:
        left = list(await session.scalars(of_app))

    async def change(ids: Sequence[str], *, busy_too: bool) -> list[str]:
        """Change these, and return those that somebody was refreshing."""
        late: list[str] = []
        for start in range(0, len(ids), BATCH):
            some = ids[start : start + BATCH]
            these = select(Grant.id).where(*active, Grant.id.in_(some)).order_by(Grant.id)
            if not busy_too:
                these = these.where(Grant.lease_owner.is_(None))
            statement = (
                update(Grant)
                .where(*active, Grant.id.in_(these.with_for_update(skip_locked=not busy_too)))
                .values(values)
                .execution_options(synchronize_session=False)
            )
            async with broker.database.write() as session:
                await session.execute(statement)
            if not busy_too:
                async with broker.database.read() as session:
                    late += await session.scalars(select(Grant.id).where(*active, Grant.id.in_(some)))
        return late

    left = await change(left, busy_too=False)
    for pause in PAUSES:
        if not left:
            return
        await asyncio.sleep(pause)
        left = await change(left, busy_too=False)
    await change(left, busy_too=True)
