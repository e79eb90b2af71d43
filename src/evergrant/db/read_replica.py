"""Reading from a standby what the primary need not answer itself: lists, exports, counts.

A standby is asked only when it has everything that was committed before the question. The primary says up to which
place in its log that is, and the standby how far it has come. So who reads sees what anybody has written, and no
process has to remember who wrote what.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from sqlalchemy import TextClause, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from evergrant.db.away import translated
from evergrant.db.pool import make_postgresql_engine
from evergrant.db.servers import Pooler, Servers
from evergrant.errors import EvergrantError, Unavailable

log = logging.getLogger(__name__)

SETTING = "EVERGRANT_DATABASE_READ_URL"
LOOKS = 20
"""How often a list looks again whether the standby has come as far as the primary is."""
LOOK_SECONDS = 0.01
"""How long it waits before each."""
ANSWER_SECONDS = 1.0
"""How long the standby may take to say how far it is, connecting included."""
REST_SECONDS = 5.0
"""How long the primary answers everything after the standby was away or too far behind."""
CONNECTIONS = 8
"""How many connections to the standby a process keeps; a quarter more are opened at most."""

# What is committed is on the disk, unless an operator has switched that off: then it is somewhere before the end.
WRITTEN = text(
    "SELECT CAST(CASE WHEN current_setting('synchronous_commit') = 'off' THEN pg_current_wal_insert_lsn()"
    " ELSE pg_current_wal_flush_lsn() END - CAST('0/0' AS pg_lsn) AS bigint)"
)
REPLAYED = text("SELECT CAST(pg_last_wal_replay_lsn() - CAST('0/0' AS pg_lsn) AS bigint)")
IDENTITY = text("SELECT CAST(system_identifier AS text) || ' ' || current_database() FROM pg_control_system()")


class NotItsStandby(EvergrantError):
    """EVERGRANT_DATABASE_READ_URL names no standby of this database: name one, or leave it out."""


class ReadReplica:
    """The standby at `EVERGRANT_DATABASE_READ_URL`, and whether it is of use now."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self._rests_until = 0.0
        self._is_known = False
        """Whether it was found to be a copy of the primary's database. A stranger's log has places too."""

    @classmethod
    def at(cls, url: URL, pooler: Pooler) -> Self:
        """Make the replica at `url`. Nothing connects yet; the caller disposes of it."""
        servers = Servers(url, pooler, setting=SETTING)
        return cls(make_postgresql_engine(url, servers, pool_size=CONNECTIONS, patient=False))

    @asynccontextmanager
    async def read(self, primary: AsyncSession) -> AsyncIterator[AsyncSession | None]:
        """Open a session on the standby that sees all that is committed now, or yield None where `primary` has to read.

        Raises:
            Unavailable: the primary is away, or the standby went away in the middle. It then rests.
        """
        if time.monotonic() < self._rests_until:
            yield None
            return
        written, identity = await self._ask(primary)
        await primary.rollback()
        async with self._sessions() as session:
            is_there = await self._has(session, written, identity)
            if is_there:
                try:
                    with translated():
                        yield session
                except Unavailable:
                    self._rest("it went away, or gave a query up")
                    raise
        if not is_there:
            yield None

    async def bytes_behind(self, primary: AsyncSession) -> int:
        """Return how much of the primary's log the standby lacks after it had a moment to catch up; 0 for nothing.

        Raises:
            NotItsStandby: it is none of this primary.
            Unavailable: it, or the primary, is away.
        """
        written, identity = await self._ask(primary)
        async with self._sessions() as session:
            return await self._wait(session, written, identity)

    async def _ask(self, primary: AsyncSession) -> tuple[int, str]:
        """Return what the primary has written so far, and whose copies we read, where that is not known yet."""
        identity = "" if self._is_known else await _answer(primary, IDENTITY)
        return await _answer(primary, WRITTEN), identity

    async def _has(self, session: AsyncSession, written: int, identity: str) -> bool:
        """Wait a moment for the standby to come as far as `written`, and tell whether it has."""
        try:
            behind = await self._wait(session, written, identity)
        except NotItsStandby as error:
            self._rest(error.message)
        except Unavailable:
            self._rest("it does not answer")
        else:
            if not behind:
                return True
            self._rest(f"it is {behind} bytes behind the primary")
        return False

    async def _wait(self, session: AsyncSession, written: int, identity: str) -> int:
        with translated():
            async with asyncio.timeout(ANSWER_SECONDS):
                if identity and await _answer(session, IDENTITY) != identity:
                    raise NotItsStandby
                behind = written - await _replayed(session)
                for _ in range(LOOKS):
                    if behind <= 0:
                        break
                    await asyncio.sleep(LOOK_SECONDS)
                    behind = written - await _replayed(session)
                self._is_known = True
                return max(0, behind)

    def _rest(self, why: str) -> None:
        self._rests_until = time.monotonic() + REST_SECONDS
        self._is_known = False
        log.warning("the read replica is not used for some seconds", extra={"why": why})

    async def dispose(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


async def _answer(session: AsyncSession, question: TextClause) -> Any:
    return (await session.execute(question)).scalar_one()


async def _replayed(session: AsyncSession) -> int:
    place: int | None = await _answer(session, REPLAYED)
    if place is None:
        raise NotItsStandby
    return place
