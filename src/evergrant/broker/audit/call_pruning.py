"""Pruning the call log: whole batches go, and the audit log tells of it in the same transaction.

What does not fit its seal stays: time must not wash away that somebody rewrote the log.
"""

import logging
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, exists, select

from evergrant.broker.audit.record import OURSELVES, record
from evergrant.broker.audit.sealed_calls import AT_ONCE, CALLS_PRUNED, SEALED, calls_pruned, first_difference
from evergrant.broker.runtime.broker import Broker
from evergrant.db import AuditEvent, CallRecord, Project

log = logging.getLogger(__name__)

LONGER = timedelta(days=1)
"""So much longer a call may stay: the log is pruned once a day, and not for each batch that gets old."""


async def prune_calls(broker: Broker, *, now: datetime) -> int:
    """Prune every project's call log, and return how many calls went.

    Raises:
        Unavailable: the database is away; what is left goes the next time.
    """
    days = broker.settings.call_retention_days
    if not days:
        return 0
    keep_from = now - timedelta(days=days)
    is_old = exists().where(CallRecord.project_id == Project.id, CallRecord.at < keep_from - LONGER)
    async with broker.database.read() as session:
        projects = list(await session.scalars(select(Project.id).where(is_old).order_by(Project.id)))
    pruned = 0
    for project_id in projects:
        count, _ = await _prune(broker, project_id, AuditEvent.occurred_at < keep_from)
        pruned += count
    return pruned


async def prune_calls_until(broker: Broker, project_id: str, sequence: int) -> bool:
    """Prune the calls that records up to `sequence` have sealed, because those records are about to go.

    Returns whether none is left; else some do not fit their seals.
    """
    _, is_done = await _prune(broker, project_id, AuditEvent.sequence <= sequence)
    return is_done


async def _prune(broker: Broker, project_id: str, which: ColumnElement[bool]) -> tuple[int, bool]:
    pruned = 0
    while True:
        async with broker.database.read() as session:
            since, is_shredded = await calls_pruned(session, project_id)
            if is_shredded:
                return pruned, True
            seals = (
                select(AuditEvent)
                .where(
                    AuditEvent.project_id == project_id,
                    AuditEvent.action == SEALED,
                    AuditEvent.sequence > since,
                    which,
                )
                .order_by(AuditEvent.sequence)
                .limit(AT_ONCE // 10)
            )
            some: list[AuditEvent] = []
            for event in await session.scalars(seals):
                some.append(event)
                if sum(int(one.data["count"]) for one in some) >= AT_ONCE:
                    break
            if not some:
                return pruned, True
            _, problem = await first_difference(session, project_id, some)
        if not problem:
            pruned += await _remove_batches(broker, project_id, some, since=since)
            continue
        async with broker.database.read() as session:
            if (await calls_pruned(session, project_id))[0] == since:
                extra = {"project": project_id, "problem": problem}
                log.error("a call log does not verify and is not pruned: run 'evergrant audit verify'", extra=extra)
                return pruned, False  # else somebody else pruned it meanwhile


async def _remove_batches(broker: Broker, project_id: str, seals: list[AuditEvent], *, since: int) -> int:
    batches = [event.data["batch"] for event in seals]
    async with broker.database.write() as session:
        # One at a time, and nobody who writes rows of the project waits for it.
        await session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))
        if (await calls_pruned(session, project_id))[0] != since:
            return 0  # somebody else was faster
        await session.execute(
            delete(CallRecord)
            .where(CallRecord.project_id == project_id, CallRecord.batch.in_(batches))
            .execution_options(synchronize_session=False)
        )
        count = sum(int(event.data["count"]) for event in seals)
        data = {
            "sequence": seals[-1].sequence,
            "count": count,
            "before": seals[-1].occurred_at.isoformat(timespec="seconds"),
        }
        await record(session, project_id, CALLS_PRUNED, data=data, who=OURSELVES)
    return count
