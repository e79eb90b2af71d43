"""The connections that test connections make: each ends with its test, whatever becomes of the process that made it."""

import logging
from datetime import datetime, timedelta

from sqlalchemy import select, update

from evergrant.broker.revocations.deleting import delete_grants
from evergrant.broker.revocations.revocation import RevocationOutcome, RevocationReason
from evergrant.broker.runtime.broker import Broker
from evergrant.db import AppTest, Grant, GrantStatus
from evergrant.errors import Unavailable

log = logging.getLogger(__name__)

OVER = timedelta(hours=1)
"""So long after its beginning a test is over, whatever it says."""
AT_ONCE = 100


async def set_status(broker: Broker, project_id: str, grant_id: str, status: GrantStatus) -> None:
    """Let a test's connection be refreshed (`active`), or hide it again (`pending`): that one is told to nobody."""
    of_it = (Grant.project_id == project_id, Grant.id == grant_id)
    async with broker.database.write() as session:
        await session.execute(
            update(Grant)
            .where(*of_it)
            .values(status=status, next_refresh_at=None)
            .execution_options(synchronize_session=False)
        )


async def end_connection(broker: Broker, project_id: str, grant_id: str, *, now: datetime) -> RevocationOutcome | None:
    """Delete a test's connection and revoke it, unless a real one stands on the same account; None: it was gone."""
    await set_status(broker, project_id, grant_id, GrantStatus.PENDING)
    which = Grant.id == grant_id
    outcomes = await delete_grants(broker, project_id, which, reason=RevocationReason.TESTED, now=now)
    return outcomes.get(grant_id)


async def end_left_trials(broker: Broker, *, now: datetime) -> int:
    """End the connections of tests that were interrupted, and return how many; a chore."""
    query = select(AppTest).where(AppTest.grant_id != "", AppTest.started_at <= now - OVER).limit(AT_ONCE)
    async with broker.database.read() as session:
        left = list(await session.scalars(query))
    for test in left:
        try:
            await end_connection(broker, test.project_id, test.grant_id, now=now)
        except Unavailable:
            raise
        except Exception:
            log.exception("a test's connection cannot be deleted", extra={"app": test.app_id})
            continue
        async with broker.database.write() as session:
            await session.execute(
                update(AppTest)
                .where(AppTest.project_id == test.project_id, AppTest.app_id == test.app_id, AppTest.id == test.id)
                .values(grant_id="", finished_at=now)
                .execution_options(synchronize_session=False)
            )
    return len(left)
