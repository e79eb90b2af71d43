"""The heartbeat: shows in the database that this process is there, and learns whether the database is.

It has a connection of its own, so that no queue for the others holds it up. With each beat it compares the clocks, and
gives back what could not be given back when it should have been.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import delete, insert, select, update

from evergrant import clock
from evergrant.broker.runtime.backoff import jittered
from evergrant.broker.runtime.database_health import DatabaseHealth
from evergrant.broker.runtime.holder import LeaseHolder
from evergrant.db import Holder
from evergrant.db.engine import Database
from evergrant.db.grant import GRANTS
from evergrant.db.types import database_now
from evergrant.errors import Unavailable
from evergrant.pace import Pace

log = logging.getLogger(__name__)

T = TypeVar("T")

PROBE_SECONDS = 0.25
"""So often the database is asked while it is away."""
SHORTEST_TRY_SECONDS = 3.0
"""However fast the pace is, the database has this long to answer."""
SLICES = 10
FORGET_SECONDS = 86_400.0
"""The row of a holder that was last there so long ago goes: whatever it held is anybody's by then."""
NEGLIGIBLE = timedelta(seconds=1)
"""Clocks that differ by less than this agree."""
WARN_BEYOND = timedelta(seconds=5)
BELIEVE_WITHIN_SECONDS = 2.0
"""An answer that took longer says nothing about the clocks."""


class Heartbeat:
    """One process's heartbeat, from `start` to `stop`."""

    def __init__(
        self, holder: LeaseHolder, health: DatabaseHealth, pace: Pace, database: Database, traits: str = ""
    ) -> None:
        """`database` is everybody's: the beats go to the same one, apart from all others, and show the `traits`."""
        self._holder = holder
        self._health = health
        self._pace = pace
        self._everybodys = database
        self._traits = traits
        self._own: Database | None = None
        self._has_row = False
        self._warned = False
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    async def start(self) -> None:
        """Compare the clocks, and begin.

        Raises:
            Unavailable: the database is away.
        """
        await self._timed(_look_at_clock(self._everybodys))
        self._task = asyncio.create_task(self._beat_until_stop(), name="heartbeat")

    async def stop(self) -> None:
        """End. The row goes, unless something is still held: that is for others to give back."""
        self._stop.set()
        if self._task is not None:
            await self._task  # not cancelled: SQLite's driver leaves threads behind where it is
        try:
            if self._health.is_up and self._holder.to_give_back:
                await self._give_back()
            if self._holder.close() and self._has_row and self._health.is_up:
                await self._try(self._remove_row())
        except Unavailable as error:
            log.info("could not sign off from the database", extra={"why": str(error)})
        await self._drop_own()

    async def _beat_until_stop(self) -> None:
        while not self._stop.is_set():
            await self._pause()
            if self._stop.is_set():
                return
            try:
                await self._timed(self._try(self._beat()))
            except Unavailable as error:
                self._holder.note_gap()
                self._health.note_away(error)
                continue
            except Exception:
                self._holder.note_gap()
                log.exception("the heartbeat broke")
                continue
            self._health.note_up()
            if self._holder.to_give_back:
                with contextlib.suppress(Unavailable):
                    await self._give_back()

    async def _pause(self) -> None:
        """Wait for the next beat, which is due at once when something wants to know."""
        if not self._health.is_up:
            await asyncio.sleep(jittered(PROBE_SECONDS))
            return
        wake = [self._stop.wait(), self._health.wait_until_away()]
        if not self._has_row:
            wake.append(self._holder.shown.wait())
        tasks = [asyncio.ensure_future(one) for one in wake]
        try:
            await asyncio.wait(tasks, timeout=self._pace.beat, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _timed(self, asked: Awaitable[datetime]) -> None:
        before, started = clock.utcnow(), time.monotonic()
        at = await asked
        took = time.monotonic() - started
        self._holder.note_beat(at)
        if took < BELIEVE_WITHIN_SECONDS:
            self._compare(before + timedelta(seconds=took / 2) - at)

    def _compare(self, ahead: timedelta) -> None:
        clock.correct(ahead if abs(ahead) >= NEGLIGIBLE else timedelta(0))
        if abs(ahead) <= WARN_BEYOND:
            self._warned = False
        elif not self._warned:
            self._warned = True
            log.warning("this machine's clock is wrong by the database's", extra={"seconds": ahead.total_seconds()})

    async def _try(self, work: Awaitable[T]) -> T:
        """Await work on the beats' own connection, but not for ever. SQLite ends a wait by itself.

        Raises:
            Unavailable: it has not ended in time. Its connection is given up, because nobody knows what it waits for.
        """
        if self._everybodys.is_sqlite:
            return await work
        task = asyncio.ensure_future(work)
        try:
            # In slices, because a process that stood still finds its time over and the answer in its socket.
            for _ in range(SLICES):
                done, _ = await asyncio.wait({task}, timeout=max(self._pace.beat, SHORTEST_TRY_SECONDS) / SLICES)
                if done:
                    return task.result()
        finally:
            if not task.done():
                task.cancel()
                task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
                abandoned, self._own = self._own, None
                if abandoned is not None:
                    await abandoned.engine.dispose(close=False)
        # Whatever else waits for an answer hangs too, each on a connection of its own that leads nowhere.
        self._everybodys.cut()
        raise Unavailable("The database does not answer in time.")

    async def _beat(self) -> datetime:
        if self._own is None:
            self._own = self._everybodys.apart()
        if not self._holder.shown.is_set():
            return await _look_at_clock(self._own)
        columns = {"name": self._holder.name[:255], "beat_at": database_now()}
        mine = Holder.id == self._holder.id
        async with self._own.write_bare() as connection:
            beaten = await connection.execute(update(Holder).where(mine).values(columns).returning(Holder.beat_at))
            at: datetime | None = beaten.scalar_one_or_none()
            if at is None:
                await connection.execute(delete(Holder).where(Holder.beat_at < database_now(-FORGET_SECONDS)))
                first = {"id": self._holder.id, "started_at": database_now(), "traits": self._traits}
                made = insert(Holder).values(columns | first)
                at = (await connection.execute(made.returning(Holder.beat_at))).scalar_one()
        self._has_row = True
        return at

    async def _remove_row(self) -> None:
        database = self._own or self._everybodys
        async with database.write_bare() as connection:
            await connection.execute(delete(Holder).where(Holder.id == self._holder.id))

    async def _give_back(self) -> None:
        columns = GRANTS.c
        for lease, values in list(self._holder.to_give_back.items()):
            ours = (
                columns.project_id == lease.project_id,
                columns.id == lease.grant_id,
                columns.lease_owner == lease.owner,
            )
            given = update(GRANTS).where(*ours).values(lease_owner=None, lease_until=None, **values)
            async with self._everybodys.write_bare() as connection:
                await connection.execute(given)
            self._holder.put_down(lease)

    async def _drop_own(self) -> None:
        if self._own is not None and self._own is not self._everybodys:
            await self._own.engine.dispose()


async def _look_at_clock(database: Database) -> datetime:
    async with database.read() as session:
        return (await session.execute(select(database_now()))).scalar_one()
