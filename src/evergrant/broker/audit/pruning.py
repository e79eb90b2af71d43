"""Pruning the audit log: what is older than the operator keeps goes, and what is left still verifies.

A checkpoint, and a record in the chain that says the same, are written first and together. Then the records before
it go, in batches; whatever stops that, the next time goes on. What does not verify is not pruned, nor what begins at a
checkpoint that the log does not tell of: time must not wash away that somebody rewrote the log. Calls go with the
records that have sealed them.
"""

import asyncio
import logging
import time
from datetime import datetime, timedelta

from sqlalchemy import delete, exists, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.call_pruning import prune_calls_until
from evergrant.broker.audit.chain import PRUNED, is_told_of, walk
from evergrant.broker.audit.record import record
from evergrant.broker.runtime.broker import Broker
from evergrant.db import AuditCheckpoint, AuditEvent, Project

log = logging.getLogger(__name__)

LONGER = timedelta(days=1)
"""So much longer a record may stay: a log is pruned once a day, and not for each record that gets old."""
BATCH = 500
LONGEST_PAUSE_SECONDS = 0.5


async def prune_audit_logs(broker: Broker, *, now: datetime) -> int:
    """Prune every project's log, and return how many records went.

    Raises:
        Unavailable: the database is away; what is left goes the next time.
    """
    days = broker.settings.audit_retention_days
    if days:
        keep_from = now - timedelta(days=days)
        for project_id in await _projects_with_older(broker, keep_from - LONGER):
            await _set_checkpoint(broker, project_id, keep_from=keep_from, now=now)
    return await _remove_pruned(broker)


async def _projects_with_older(broker: Broker, moment: datetime) -> list[str]:
    # What pruning itself has written is no reason to prune again: else it would go on for ever in a log that is idle.
    is_old = exists().where(
        AuditEvent.project_id == Project.id, AuditEvent.occurred_at < moment, AuditEvent.action != PRUNED
    )
    async with broker.database.read() as session:
        return list(await session.scalars(select(Project.id).where(is_old).order_by(Project.id)))


async def _set_checkpoint(broker: Broker, project_id: str, *, keep_from: datetime, now: datetime) -> None:
    async with broker.database.read() as session:
        checkpoint = await session.get(AuditCheckpoint, project_id)
        if checkpoint is not None and not await is_told_of(session, checkpoint):
            _leave_as_evidence(project_id, "nothing in the log tells of its checkpoint")
            return
        last = await _last_to_prune(session, project_id, keep_from=keep_from)
    since = checkpoint.sequence if checkpoint is not None else 0
    if last <= since:
        return
    found, _ = await walk(broker, project_id, checkpoint, until=last)
    if found.problem:
        _leave_as_evidence(project_id, found.problem)
        return
    if not await prune_calls_until(broker, project_id, last):
        return
    async with broker.database.write() as session:
        # One at a time, and nobody who writes rows of the project waits for it.
        await session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))
        row = await session.get(AuditCheckpoint, project_id)
        if (row.sequence if row is not None else 0) != since:
            return  # somebody else was faster
        if row is None:
            row = AuditCheckpoint(project_id=project_id)
            session.add(row)
        row.sequence, row.hash, row.created_at = last, found.head, now
        data = {"sequence": last, "hash": found.head.hex(), "before": keep_from.isoformat(timespec="seconds")}
        await record(session, project_id, PRUNED, data=data)


def _leave_as_evidence(project_id: str, problem: str) -> None:
    extra = {"project": project_id, "problem": problem}
    log.error("an audit log does not verify and is not pruned: run 'evergrant audit verify'", extra=extra)


async def _last_to_prune(session: AsyncSession, project_id: str, *, keep_from: datetime) -> int:
    """Return the sequence of the last record to prune. The very last of a log stays: the next one continues it."""
    of_project = AuditEvent.project_id == project_id
    newer = (
        select(AuditEvent.sequence)
        .where(of_project, AuditEvent.occurred_at >= keep_from)
        .order_by(AuditEvent.occurred_at, AuditEvent.sequence)
        .limit(1)
    )
    first_kept = (await session.execute(newer)).scalar_one_or_none()
    if first_kept is None:
        head = await session.execute(select(func.max(AuditEvent.sequence)).where(of_project))
        first_kept = head.scalar_one() or 1
    return int(first_kept) - 1


async def _remove_pruned(broker: Broker) -> int:
    removed = 0
    async with broker.database.read() as session:
        checkpoints = list(await session.scalars(select(AuditCheckpoint)))
    for checkpoint in checkpoints:
        removed += await _remove_before(broker, checkpoint)
    return removed


async def _remove_before(broker: Broker, checkpoint: AuditCheckpoint) -> int:
    key = (AuditEvent.project_id, AuditEvent.sequence)
    some = (
        select(*key)
        .where(AuditEvent.project_id == checkpoint.project_id, AuditEvent.sequence <= checkpoint.sequence)
        .order_by(AuditEvent.sequence)
        .limit(BATCH)
    )
    async with broker.database.read() as session:
        if (await session.execute(some.limit(1))).first() is None:
            return 0
        if not await is_told_of(session, checkpoint):
            _leave_as_evidence(checkpoint.project_id, "nothing in the log tells of its checkpoint")
            return 0
    removed = 0
    while True:
        began = time.monotonic()
        async with broker.database.write() as session:
            gone = await session.execute(
                delete(AuditEvent)
                .where(tuple_(*key).in_(select(some.with_for_update(skip_locked=True).cte("some"))))
                .returning(AuditEvent.sequence)
                .execution_options(synchronize_session=False)
            )
            count = len(gone.all())
        removed += count
        if count < BATCH:
            return removed
        await asyncio.sleep(min(LONGEST_PAUSE_SECONDS, time.monotonic() - began))
