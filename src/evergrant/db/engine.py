"""Engines for SQLite and PostgreSQL, and the ways to use one."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from evergrant.db.away import translated
from evergrant.db.pool import HIDE_PARAMETERS, make_postgresql_engine
from evergrant.db.read_replica import ReadReplica
from evergrant.db.schema import WRITE, require_fit
from evergrant.db.servers import SETTING, Pooler, Servers, with_hosts_as_parameter
from evergrant.errors import Busy, ConfigurationError

SQLITE_BUSY_SECONDS = 15
"""How long a writer waits for another process's transaction on SQLite."""
SQLITE_CACHE = "PRAGMA cache_size = -500"
"""KiB of SQLite's file that each connection keeps in memory. Not 2,000: the system keeps the file's pages anyway."""
LOG_BUSY_SECONDS = 1
"""How long emptying SQLite's log waits for readers."""
WRITERS_QUEUE_SECONDS = 30.0
"""How long a write waits for those of the same process that came before it, on SQLite."""

PATIENT_CONNECTIONS = 8
"""How many connections are kept for landings, which take milliseconds each."""


def database_url(configured: str | None, data_dir: Path, setting: str = SETTING) -> URL:
    """Return the URL with the async driver we use, SQLite in `data_dir` when none is configured.

    Raises:
        ConfigurationError: the URL is not one, or names a database that evergrant does not run on.
    """
    if configured is None:
        return URL.create("sqlite+aiosqlite", database=str(data_dir / "evergrant.db"))
    try:
        url = make_url(with_hosts_as_parameter(configured))
    except (ArgumentError, ValueError):
        raise ConfigurationError(f"{setting}: not a URL; write postgresql://user:password@host/database") from None
    match url.get_backend_name():
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+asyncpg")
        case "sqlite":
            return url.set(drivername="sqlite+aiosqlite")
        case other:
            raise ConfigurationError(
                f"{setting}: {other} is not supported; use postgresql:// or leave it out for SQLite"
            )


def make_engine(url: URL, *, servers: Servers | None = None, pool_size: int = 16, patient: bool = False) -> AsyncEngine:
    """Make the engine. Nothing connects yet.

    On PostgreSQL, `servers` makes the connections. `pool_size` of them are kept, a quarter more are opened at most.
    Those beyond are closed after each use, which costs more than what they are used for, so it is as many as refreshes
    run at one endpoint. Where it is `patient`, a statement takes as long as it has to, and a connection is waited for.
    """
    try:
        if url.get_backend_name() == "sqlite":
            engine = create_async_engine(
                url, connect_args={"timeout": SQLITE_BUSY_SECONDS}, hide_parameters=HIDE_PARAMETERS
            )
            _prepare_sqlite(engine)
            return engine
        return make_postgresql_engine(url, servers or Servers(url), pool_size=pool_size, patient=patient)
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigurationError(f"EVERGRANT_DATABASE_URL: {error}") from None


async def connect_postgresql(url: URL) -> asyncpg.Connection:
    """Open one connection."""
    return await Servers(url).connect()


_IN_VALUES = re.compile(r"IN \((VALUES (?:\(\?(?:, \?)*\)(?:, )?)+)\)")
"""How SQLAlchemy writes for SQLite that some columns are one of several rows."""


def _prepare_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        # FULL, not NORMAL: a rotated refresh token that a power cut takes back is a lost consent.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(SQLITE_CACHE)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes later fails with "database is locked" when somebody else wrote in
        # between. Writers therefore take the lock at the start, where they can wait for it.
        write = connection.get_execution_options().get(WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    @event.listens_for(engine.sync_engine, "before_cursor_execute", retval=True)
    def _search(_connection: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        # For rows IN several VALUES, SQLite goes through the whole table; for those IN one SELECT, it uses the index.
        if "IN (VALUES" in statement:
            statement = _IN_VALUES.sub(r"IN (SELECT * FROM (\1))", statement)
        return statement, parameters


CHANGES_GRANTS = "changes_grants"
"""What a connection's `info` has while its transaction changes grants."""


class Database:
    """An engine with the ways to use it: `read`, `write`, and `write_landing` for what must not be lost."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        servers: Servers | None = None,
        patient: AsyncEngine | None = None,
        replica: ReadReplica | None = None,
    ) -> None:
        """On PostgreSQL, `patient` is an engine of its own for what may take long; `servers` connects both.

        A `replica` is read for lists.
        """
        self.replica = replica
        self.engine = engine
        self.servers = servers
        self.grant_writes = 0
        """Grows with whatever this process writes to grants, by the time that the one who writes hears of it."""
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._read = async_sessionmaker(engine, expire_on_commit=False)
        self._writing = asyncio.Lock()
        self._writer = engine.execution_options(**{WRITE: True})
        self.patient = patient.execution_options(**{WRITE: True}) if patient else self._writer
        self._patient_at_once = self.patient.execution_options(isolation_level="AUTOCOMMIT")
        self._write = async_sessionmaker(self._writer, expire_on_commit=False)
        for one in (engine, patient):
            if one is not None:
                self._count_grant_writes(one)

    @classmethod
    def at(cls, url: URL, pooler: Pooler = "auto", *, read_url: URL | None = None) -> Self:
        """Make the database at `url`, with its standby at `read_url`. Nothing connects; the caller disposes of it.

        Raises:
            ConfigurationError: the URL cannot be used.
        """
        if url.get_backend_name() == "sqlite":
            return cls(make_engine(url))
        servers = Servers(url, pooler)
        patient = make_engine(url, servers=servers, pool_size=PATIENT_CONNECTIONS, patient=True)
        replica = ReadReplica.at(read_url, pooler) if read_url is not None else None
        return cls(make_engine(url, servers=servers), servers=servers, patient=patient, replica=replica)

    def _count_grant_writes(self, engine: AsyncEngine) -> None:
        """Count the transactions that change grants, wherever they come from, when their connection is given back."""

        @event.listens_for(engine.sync_engine, "before_cursor_execute")
        def _note(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
            # What is deleted may take grants with it.
            if statement.startswith("DELETE") or ("grants" in statement and not statement.startswith("SELECT")):
                connection.info[CHANGES_GRANTS] = True

        @event.listens_for(engine.sync_engine, "checkin")
        def _count(_connection: Any, record: Any) -> None:
            if record.info.pop(CHANGES_GRANTS, False):
                self.grant_writes += 1

    def apart(self) -> Self:
        """Make the same database with one connection of its own, for what no queue may hold up; on SQLite, return this.

        The caller disposes of it.
        """
        if self.servers is None:
            return self
        return type(self)(make_engine(self.engine.url, servers=self.servers, pool_size=1), servers=self.servers)

    @property
    def kind(self) -> str:
        """What it is, for a person; whether a pooler is before it is known once it has been used."""
        if self.is_sqlite:
            return "SQLite"
        return "PostgreSQL behind a connection pooler" if self.servers and self.servers.is_pooled else "PostgreSQL"

    async def dispose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()
        await self.patient.dispose()
        if self.replica is not None:
            await self.replica.dispose()

    def cut(self) -> None:
        """Cut off what is under way on PostgreSQL, which then fails as `Unavailable`: the database is known to be away.

        So nothing hangs on a connection that leads nowhere when the database is back.
        """
        if self.servers is not None:
            self.servers.cut()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a session for reading; nothing is committed.

        Raises:
            Unavailable: the database cannot be reached.
        """
        with translated():
            async with self._read() as session:
                yield session

    @asynccontextmanager
    async def browse(self) -> AsyncIterator[AsyncSession]:
        """Open a session for a list, an export or a count: on the read replica, where one has all that is committed.

        Raises:
            Unavailable: the database cannot be reached.
        """
        async with self.read() as primary:
            if self.replica is None:
                yield primary
                return
            async with self.replica.read(primary) as session:
                yield session or primary

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction that commits at the end of the block, or rolls back when it raises.

        Raises:
            Unavailable: the database cannot be reached; whether a commit under way was done is then unknown.
        """
        with translated():
            async with self._turn(), self._write() as session, session.begin():
                yield session

    @asynccontextmanager
    async def write_bare(self) -> AsyncIterator[AsyncConnection]:
        """Do the same without a session, for the statements that run for every refresh.

        Raises:
            Unavailable: as `write`.
        """
        with translated():
            async with self._turn(), self._writer.begin() as connection:
                yield connection

    @asynccontextmanager
    async def write_landing(self) -> AsyncIterator[AsyncConnection]:
        """Do the same for a landing: on connections that nothing else takes, and waiting for locks without an end.

        A statement that were given up and sent again would lose its place in the lock's queue to others.

        Raises:
            Unavailable: as `write`.
        """
        with translated():
            async with self._turn(), self.patient.begin() as connection:
                yield connection

    @asynccontextmanager
    async def write_landing_at_once(self) -> AsyncIterator[AsyncConnection]:
        """Do the same on PostgreSQL where one statement is all, which commits by itself: one trip to it, and not three.

        Raises:
            Unavailable: as `write`.
        """
        with translated():
            async with self._patient_at_once.connect() as connection:
                yield connection

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Let SQLite's writers of this process in one after another: among themselves they would sleep, not queue."""
        if not self.is_sqlite:
            yield
            return
        try:
            async with asyncio.timeout(WRITERS_QUEUE_SECONDS):
                await self._writing.acquire()
        except TimeoutError:
            raise Busy from None
        try:
            yield
        finally:
            self._writing.release()

    async def empty_log(self) -> bool:
        """Write what SQLite's log holds into its file and empty the log, and tell whether that could be done now.

        On PostgreSQL there is nothing to do.
        """
        if not self.is_sqlite:
            return True
        with translated():
            async with self._turn(), self.engine.connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None  # noqa: S101 - there is one while the connection is open; for the type checker
                # It keeps writers out while it waits for readers: not for long.
                await driver.execute(f"PRAGMA busy_timeout = {LOG_BUSY_SECONDS * 1000}")
                try:
                    rows = await driver.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
                finally:
                    await driver.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_SECONDS * 1000}")
                return not next(iter(rows))[0]

    async def ping(self) -> None:
        """Make sure that the database answers.

        Raises:
            Unavailable: it does not.
        """
        with translated():
            async with self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

    async def require_current_schema(self) -> None:
        """Make sure that the schema is this version's, or a later one's on which this version may run.

        Raises:
            MigrationsPending: it is an earlier version's.
            SchemaTooNew: it is a later one's, and this version may not.
            Unavailable: the database cannot be reached.
        """
        with translated():
            async with self.engine.connect() as connection:
                await connection.run_sync(require_fit)
