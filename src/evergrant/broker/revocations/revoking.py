"""Revoking in the background: what is due is tried again, in a line for each provider's address.

A line has few calls under way and heeds the address's breaker, so that a provider that hangs holds up itself alone. A
try may come days later: so it is looked again whether it would end a connection that was made since.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import case, func, select, update

from evergrant import clock
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.quirks import revokes_singly
from evergrant.broker.revocations.accounts import alone_on_account
from evergrant.broker.revocations.revocation import (
    ON_PURPOSE,
    PAUSE,
    attempt_revocation,
    is_revocation,
    note_over,
    revocation_address,
)
from evergrant.broker.runtime.backoff import doubling, jittered
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.endpoints import Endpoint
from evergrant.broker.runtime.worker_pool import WorkerPool
from evergrant.db import Grant, Revocation
from evergrant.errors import AppNotFound, EvergrantError, Unavailable

log = logging.getLogger(__name__)

LINES = 128
"""How many addresses are called at once."""
PER_LINE = 4
"""How many calls one address has under way."""
PER_LOOK = 100
"""How many of an address's revocations are read at once."""
MOST_PER_LOOK = 5_000
STOP_SECONDS = 2.0
"""How long a stop waits for what is under way. What is cut off is due again."""
SPARED = "Another connection was made meanwhile that may stand on the same account: it would end too."
LOOK_SECONDS = 1.0
"""How often it is looked for more, while lines come to their ends."""


@dataclass(frozen=True, slots=True)
class DueRevocation:
    """What is read of a revocation before it is claimed."""

    project_id: str
    id: str
    revocation_url: str
    quirks: Mapping[str, Any]
    attempts: int


async def revoke_until(broker: Broker, stop: asyncio.Event) -> None:
    """Try what is due again until `stop` is set, and end within seconds from then on."""
    pool: WorkerPool[str] = WorkerPool(most=LINES, most_per_key=1)
    while not stop.is_set():
        try:
            await begin_revocations(broker, pool, stop, now=clock.now())
        except Unavailable as error:
            broker.database_health.note_away(error)
        except Exception:
            log.exception("reading what is to be revoked broke")
        await pool.wait_for_slot(stop, seconds=jittered(broker.pace.chores))
        if pool and not stop.is_set():
            await asyncio.sleep(LOOK_SECONDS)
    await pool.drain(grace_seconds=STOP_SECONDS)


async def begin_revocations(broker: Broker, pool: WorkerPool[str], stop: asyncio.Event, *, now: datetime) -> None:
    """Begin a line for each address that something is due at, unless it has one or must be left alone.

    Raises:
        Unavailable: the database is away.
    """
    lines: defaultdict[str, list[DueRevocation]] = defaultdict(list)
    for row in await _read_due(broker, now=now):
        lines[revocation_address(row.revocation_url, row.quirks)].append(row)
    for address, rows in lines.items():
        endpoint = broker.revocation_endpoints.at(address)
        if pool.room_for(address) > 0 and endpoint.room_for("") > 0:
            pool.start(address, _work_off(broker, endpoint, rows, stop))


async def _read_due(broker: Broker, *, now: datetime) -> Sequence[DueRevocation]:
    """Return what is due, of every address the first; of those that have none, of every app."""
    whose = case((Revocation.revocation_url == "", Revocation.app_id), else_="")
    place = func.row_number().over(
        partition_by=(Revocation.revocation_url, whose), order_by=(Revocation.next_attempt_at, Revocation.id)
    )
    due = (
        select(
            Revocation.project_id,
            Revocation.id,
            Revocation.revocation_url,
            Revocation.quirks,
            Revocation.attempts,
            place.label("place"),
        )
        .where(Revocation.next_attempt_at <= now)
        .subquery()
    )
    columns = (due.c.project_id, due.c.id, due.c.revocation_url, due.c.quirks, due.c.attempts)
    query = select(*columns).where(due.c.place <= PER_LOOK).order_by(due.c.place).limit(MOST_PER_LOOK)
    async with broker.database.read() as session:
        return [DueRevocation(*row) for row in await session.execute(query)]


async def _work_off(broker: Broker, endpoint: Endpoint, rows: Sequence[DueRevocation], stop: asyncio.Event) -> None:
    waiting = iter(rows)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(PER_LINE):
                group.create_task(_one_after_another(broker, endpoint, waiting, stop))
    except* Unavailable as errors:
        broker.database_health.note_away(next(e for e in errors.exceptions if isinstance(e, Unavailable)))
    except* EvergrantError as errors:
        log.warning("revocations will be tried again", exc_info=errors)


async def _one_after_another(
    broker: Broker, endpoint: Endpoint, waiting: Iterator[DueRevocation], stop: asyncio.Event
) -> None:
    for row in waiting:
        if stop.is_set() or endpoint.room_for("") <= 0:
            return  # they stay due
        claimed = await _claim_revocation(broker, row)
        if claimed is None:
            continue
        if await _may_end_another(broker, claimed):
            await note_over(broker, claimed, "token.revocation_failed", error=SPARED)
        else:
            await attempt_revocation(broker, claimed)


async def _may_end_another(broker: Broker, row: Revocation) -> bool:
    """Tell whether a connection that was made meanwhile stands, or may stand, on the account of a row that is tried.

    As when the row was made, none counts where it is on purpose, or where the provider revokes each consent by itself.
    """
    if row.reason in ON_PURPOSE:
        return False
    try:
        app = await load_app(broker, row.project_id, row.app_id)
    except AppNotFound:
        return False
    if revokes_singly(broker, app):
        return False
    names = "project_id", "app_id", "user_id", "tenant_id", "token_sub", "granted_by"
    gone = Grant(id=row.grant_id, **{name: getattr(row, name) for name in names})
    return not await alone_on_account(broker, app, [gone], person=row.person)


async def _claim_revocation(broker: Broker, row: DueRevocation) -> Revocation | None:
    """Take a row that was due when it was read; None when somebody else has taken it, which shows in its attempts.

    The next try is counted from here: a process that dies in this one leaves the row due again after the pause.
    """
    statement = (
        update(Revocation)
        .where(is_revocation(row.project_id, row.id), Revocation.attempts == row.attempts)
        .values(
            attempts=Revocation.attempts + 1,
            next_attempt_at=clock.now() + doubling(*PAUSE, failures=row.attempts + 1),
        )
        .returning(Revocation)
        .execution_options(synchronize_session=False)
    )
    async with broker.database.write() as session:
        return (await session.execute(statement)).scalar_one_or_none()
