"""The chain of a project's audit log: reading it in its order, and telling where it breaks.

It begins at the first record, or after the checkpoint that pruning has left. A checkpoint counts only where the chain
itself tells of it: the record `audit.pruned` carries the same sequence and hash, so that whoever forges one has to add
a record that says what was cut off, and that stays.

Records that seal calls are compared with the call log on the way.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import cast

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.record import GENESIS, hash_of
from evergrant.broker.audit.sealed_calls import CallsCheck, SealedLog, sealed_log
from evergrant.broker.runtime.broker import Broker
from evergrant.db import AuditCheckpoint, AuditEvent

PRUNED = "audit.pruned"
_BATCH = 500


@dataclass(frozen=True, slots=True)
class ChainVerification:
    """What a walk along the chain found."""

    records: int
    """Records that are as they were written."""
    head: bytes
    """The hash of the last of them: compare it with one that you noted earlier."""
    pruned: int = 0
    """So many earlier records were pruned: the walk began after them."""
    broken_at: int | None = None
    """The sequence number at which the chain breaks, or whose calls do not fit; None also where calls were added."""
    problem: str = ""
    calls: int = 0
    """Calls that are as they were sealed."""


async def verify_chain(broker: Broker, project_id: str) -> ChainVerification:
    """Walk a project's chain from where it begins to the first record that does not fit, or to the end.

    A changed, inserted, moved or missing record breaks it, and so does a beginning that nobody pruned; so does a call
    that was changed, added or removed since it was sealed. Records missing at the very end do not: only somebody who
    knows an earlier `head` can see that.
    """
    checkpoint, log = await _beginning(broker, project_id)
    while True:
        found, told = await walk(broker, project_id, checkpoint, calls=CallsCheck(broker, project_id, log))
        if checkpoint is not None and not found.problem and told != (checkpoint.sequence, checkpoint.hash.hex()):
            problem = f"nothing in the log tells that the {checkpoint.sequence} records before it were pruned"
            found = replace(found, broken_at=checkpoint.sequence + 1, problem=problem)
        before = _sequence(checkpoint), log.pruned, log.is_shredded
        checkpoint, log = await _beginning(broker, project_id)
        if not found.problem or before == (_sequence(checkpoint), log.pruned, log.is_shredded):
            return found  # else it was pruned under our feet: once more


async def verify_chain_once(broker: Broker, project_id: str) -> ChainVerification:
    """Do the same for callers who may be many: those who ask while a walk is under way share it."""
    work = broker.verifications.start(project_id, lambda: verify_chain(broker, project_id))
    return cast(ChainVerification, await asyncio.shield(work))


async def _beginning(broker: Broker, project_id: str) -> tuple[AuditCheckpoint | None, SealedLog]:
    async with broker.database.read() as session:
        return await session.get(AuditCheckpoint, project_id), await sealed_log(session, project_id)


def _sequence(checkpoint: AuditCheckpoint | None) -> int:
    return checkpoint.sequence if checkpoint is not None else 0


async def walk(
    broker: Broker,
    project_id: str,
    checkpoint: AuditCheckpoint | None,
    *,
    until: int | None = None,
    calls: CallsCheck | None = None,
) -> tuple[ChainVerification, tuple[object, object]]:
    """Walk from a checkpoint to the record `until`, or to the end. With `calls`, sealed calls are compared too.

    Returns what was found, and the sequence and hash that the last pruning among these records has told of.
    """
    head, last = (checkpoint.hash, checkpoint.sequence) if checkpoint is not None else (GENESIS, 0)
    pruned, told = last, (None, None)

    def broken(at: int, problem: str) -> ChainVerification:
        return ChainVerification(last - pruned, head, pruned, at, problem)

    async for event in records_after(broker, project_id, last):
        if until is not None and last >= until:
            break
        expected = last + 1
        if event.sequence != expected:
            return broken(expected, f"record {expected} is missing"), told
        if event.previous_hash != head:
            return broken(expected, f"record {expected} does not continue the one before it"), told
        if hash_of(event) != event.hash:
            return broken(expected, f"record {expected} is not what was written"), told
        if event.action == PRUNED:
            told = event.data.get("sequence"), event.data.get("hash")
        head, last = event.hash, expected
        if calls is not None:
            await calls.show(event)
            if calls.problem:
                break
    found = ChainVerification(last - pruned, head, pruned)
    return (await _with_calls(found, calls) if calls is not None else found), told


async def _with_calls(found: ChainVerification, calls: CallsCheck) -> ChainVerification:
    await calls.end()
    found = replace(found, calls=calls.verified, problem=calls.problem)
    if (broken := calls.broken) is None:
        return found
    before = broken.sequence - 1 - found.pruned
    return replace(found, records=before, head=broken.previous_hash, broken_at=broken.sequence)


async def is_told_of(session: AsyncSession, checkpoint: AuditCheckpoint) -> bool:
    """Tell whether the last pruning that the log tells of has left this checkpoint; if not, somebody has forged it."""
    query = (
        select(AuditEvent)
        .where(AuditEvent.project_id == checkpoint.project_id, AuditEvent.action == PRUNED)
        .order_by(AuditEvent.sequence.desc())
        .limit(1)
    )
    event = (await session.execute(query)).scalar_one_or_none()
    said = (event.data.get("sequence"), event.data.get("hash")) if event is not None else None
    return said == (checkpoint.sequence, checkpoint.hash.hex())


async def records_after(
    broker: Broker, project_id: str, last: int, *conditions: ColumnElement[bool]
) -> AsyncIterator[AuditEvent]:
    """Yield a project's records in their order, however many there are, from the one after `last`."""
    while True:
        query = (
            select(AuditEvent)
            .where(AuditEvent.project_id == project_id, AuditEvent.sequence > last, *conditions)
            .order_by(AuditEvent.sequence)
            .limit(_BATCH)
        )
        async with broker.database.browse() as session:
            batch = list(await session.scalars(query))
        for event in batch:
            yield event
        if len(batch) < _BATCH:
            return
        last = batch[-1].sequence
