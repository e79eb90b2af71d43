"""Writing the call log: what has ended, each second; and what changes something at the provider, before it is sent.

Each batch of a project's calls is sealed by one record of the audit log, in one transaction with its rows.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update

from evergrant.broker.audit.sealed_calls import CallRow, new_batch, seal_calls
from evergrant.broker.calls.call_rows import TABLE, insert_rows, row_of
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.unwritten_calls import Call
from evergrant.db import CallRecord, Project
from evergrant.errors import Unavailable

log = logging.getLogger(__name__)

AT_ONCE = 500
"""How many calls one batch has at most."""
LEFT = timedelta(minutes=30)
"""So long after its beginning a write without an outcome has none: longer than any call takes."""


async def write_ahead(broker: Broker, call: Call) -> None:
    """Write the row of a call that changes something, before it is sent; note it in `broker.calls` when it has ended.

    Raises:
        Unavailable: the database is away, and the call must not be sent.
    """
    async with broker.database.write_bare() as connection:
        await insert_rows(connection, [row_of(call, batch="")])
    call.is_written_ahead = True


async def write_calls(broker: Broker) -> None:
    """Write what has ended. Called each second; a crash loses no more than that.

    Raises:
        Unavailable: the database is away; what is left is written the next time.
    """
    calls, dropped = broker.calls.take()
    of_project: dict[str, list[Call]] = {}
    for call in calls:
        of_project.setdefault(call.project_id, []).append(call)
    parts = [
        waiting[start : start + AT_ONCE] for waiting in of_project.values() for start in range(0, len(waiting), AT_ONCE)
    ]
    try:
        while parts:
            project_id = parts[-1][0].project_id
            await _write_part(broker, parts[-1], dropped=dropped[project_id])
            parts.pop()
            del dropped[project_id]
    finally:  # also where a stop cuts this off
        broker.calls.give_back([call for part in parts for call in part], dropped)


async def _write_part(broker: Broker, calls: Sequence[Call], *, dropped: int = 0) -> None:
    """Write a batch; of one that cannot be written, what can."""
    try:
        await _write_batch(broker, calls, dropped=dropped)
    except Unavailable:
        raise
    except Exception:
        if missing := await _not_written_yet(broker, calls):
            if len(missing) == 1 == len(calls):
                log.exception("a call cannot be written down and is dropped", extra={"call": missing[0].id})
                return
            half = (len(missing) + 1) // 2
            for part in (missing[:half], missing[half:]):
                if part:
                    await _write_part(broker, part)


async def _not_written_yet(broker: Broker, calls: Sequence[Call]) -> list[Call]:
    """Leave out what a batch has already, whose end was not seen: the connection broke as it was committed."""
    ids = [call.id for call in calls]
    query = select(CallRecord.id).where(
        CallRecord.project_id == calls[0].project_id, CallRecord.id.in_(ids), CallRecord.batch != ""
    )
    async with broker.database.read() as session:
        written = set(await session.scalars(query))
    return [call for call in calls if call.id not in written]


async def _write_batch(broker: Broker, calls: Sequence[Call], *, dropped: int) -> None:
    project_id, batch = calls[0].project_id, new_batch()
    is_there = Project.id == project_id, Project.shredded_at.is_(None)
    async with broker.database.write() as session:
        project = select(Project.id).where(*is_there).with_for_update(read=True, key_share=True)
        if (await session.execute(project)).first() is None:
            return  # deleted, and its call log with it
        ahead = {call.id for call in calls if call.is_written_ahead}
        if ahead:
            gone = (
                delete(CallRecord)
                .where(CallRecord.project_id == project_id, CallRecord.id.in_(ahead), CallRecord.batch == "")
                .returning(CallRecord.id)
                .execution_options(synchronize_session=False)
            )
            ahead -= set(await session.scalars(gone))
        # What is left was sealed without its outcome, because that took longer than any call may; so it stays.
        rows = [row_of(call, batch=batch) for call in calls if call.id not in ahead]
        if rows:
            await insert_rows(await session.connection(), rows)
            await seal_calls(session, project_id, batch, rows, dropped=dropped)


async def seal_left_calls(broker: Broker, *, now: datetime) -> int:
    """Seal writes whose process has died: nobody knows how they ended. Returns how many.

    Raises:
        Unavailable: the database is away; what is left is sealed the next time.
    """
    left = (
        select(CallRecord.project_id, CallRecord.id)
        .where(CallRecord.batch == "", CallRecord.at < now - LEFT)
        .order_by(CallRecord.at)
        .limit(AT_ONCE)
    )
    async with broker.database.read() as session:
        found = [tuple(row) for row in await session.execute(left)]
    sealed = 0
    for project_id in sorted({project_id for project_id, _ in found}):
        ids = [call_id for one, call_id in found if one == project_id]
        batch = new_batch()
        mark = (
            update(TABLE)
            .where(TABLE.c.project_id == project_id, TABLE.c.id.in_(ids), TABLE.c.batch == "")
            .values(batch=batch)
            .returning(*TABLE.columns)
        )
        async with broker.database.write() as session:
            rows: list[CallRow] = [dict(row) for row in (await session.execute(mark)).mappings()]
            if rows:
                await seal_calls(session, project_id, batch, rows, withoutOutcome=len(rows))
        sealed += len(rows)
    return sealed
