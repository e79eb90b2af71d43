"""Engines and migrations, for SQLite and PostgreSQL."""

import asyncio
import importlib.resources
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from evergrant.errors import ConfigurationError, MigrationsPending, Unavailable

SQLITE_BUSY_SECONDS = 15
"""How long a writer waits for another process's transaction on SQLite."""
WRITERS_QUEUE_SECONDS = 30.0
"""How long a write waits for those of the same process that came before it, on SQLite."""

HIDE_PARAMETERS = True
"""Errors name the statement only: its parameters are people's ids and ciphertexts, and errors are logged."""

_WRITE = "evergrant_write"
_MIGRATION_LOCK = 0x65766772
"""PostgreSQL advisory lock that keeps two migrating processes apart."""


def database_url(configured: str | None, data_dir: Path) -> URL:
    """Return the URL with the async driver we use, SQLite in `data_dir` when none is configured.

    Raises:
        ConfigurationError: the URL is not one, or names a database that evergrant does not run on.
    """
    if configured is None:
        return URL.create("sqlite+aiosqlite", database=str(data_dir / "evergrant.db"))
    try:
        url = make_url(configured)
    except ArgumentError:
        raise ConfigurationError(
            "EVERGRANT_DATABASE_URL: not a URL; write postgresql://user:password@host/database"
        ) from None
    match url.get_backend_name():
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+asyncpg")
        case "sqlite":
            return url.set(drivername="sqlite+aiosqlite")
        case other:
            raise ConfigurationError(
                f"EVERGRANT_DATABASE_URL: {other} is not supported; use postgresql:// or leave it out for SQLite"
            )


def make_engine(url: URL, *, pool_size: int = 16) -> AsyncEngine:
    """Make the engine. Nothing connects yet.

    `pool_size` connections are kept, a quarter more are opened at most (PostgreSQL only). Those beyond are closed after
    each use, which costs more than what they are used for, so it is as many as refreshes run at one endpoint.
    """
    try:
        if url.get_backend_name() == "sqlite":
            engine = create_async_engine(
                url, connect_args={"timeout": SQLITE_BUSY_SECONDS}, hide_parameters=HIDE_PARAMETERS
            )
            _prepare_sqlite(engine)
        else:
            engine = create_async_engine(
                url,
                async_creator=lambda: connect_postgresql(url),
                pool_size=pool_size,
                max_overflow=pool_size // 4,
                pool_pre_ping=True,
                pool_timeout=10,
                hide_parameters=HIDE_PARAMETERS,
            )
            _hide_details(engine)
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigurationError(f"EVERGRANT_DATABASE_URL: {error}") from None
    return engine


async def connect_postgresql(url: URL) -> asyncpg.Connection:
    """Open one connection. asyncpg reads the URL itself, so that libpq's parameters (sslmode, host=/socket) work."""
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return await asyncpg.connect(dsn, timeout=5, command_timeout=30)


def _hide_details(engine: AsyncEngine) -> None:
    """Cut off what PostgreSQL adds to the message of an error: the key that is taken, or the whole row that failed."""

    @event.listens_for(engine.sync_engine, "handle_error")
    def _forget(context: ExceptionContext) -> None:
        cause = context.original_exception.__cause__
        if isinstance(cause, asyncpg.PostgresError):
            cause.detail = None


def _prepare_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        # FULL, not NORMAL: a rotated refresh token that a power cut takes back is a lost consent.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes later fails with "database is locked" when somebody else wrote in
        # between. Writers therefore take the lock at the start, where they can wait for it.
        write = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what drivers raise when the database is away into one error of ours."""
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError):
        raise  # not the database's fault
    except (DBAPIError, PoolTimeout, OSError) as error:
        raise Unavailable from error


class Database:
    """An engine with the two ways to use it: `read` and `write`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._read = async_sessionmaker(engine, expire_on_commit=False)
        self._writing = asyncio.Lock()
        self._writer = engine.execution_options(**{_WRITE: True})
        self._write = async_sessionmaker(self._writer, expire_on_commit=False)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a session for reading; nothing is committed.

        Raises:
            Unavailable: the database cannot be reached.
        """
        with _translated():
            async with self._read() as session:
                yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction that commits at the end of the block, or rolls back when it raises.

        Raises:
            Unavailable: the database cannot be reached; whether a commit under way was done is then unknown.
        """
        with _translated():
            async with self._turn(), self._write() as session, session.begin():
                yield session

    @asynccontextmanager
    async def write_bare(self) -> AsyncIterator[AsyncConnection]:
        """Do the same without a session, for the statements that run for every refresh.

        Raises:
            Unavailable: as `write`.
        """
        with _translated():
            async with self._turn(), self._writer.begin() as connection:
                yield connection

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Let SQLite's writers of this process in one after another: among themselves they would sleep, not queue."""
        if not self.is_sqlite:
            yield
            return
        async with asyncio.timeout(WRITERS_QUEUE_SECONDS):
            await self._writing.acquire()
        try:
            yield
        finally:
            self._writing.release()

    async def ping(self) -> None:
        """Make sure that the database answers.

        Raises:
            Unavailable: it does not.
        """
        with _translated():
            async with self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

    async def require_current_schema(self) -> None:
        """Make sure that the schema is this version's.

        Raises:
            MigrationsPending: it is not.
            Unavailable: the database cannot be reached.
        """
        with _translated():
            async with self.engine.connect() as connection:
                if not await connection.run_sync(_is_current):
                    raise MigrationsPending


def migrations_folder() -> Path:
    """Return the folder with the migrations: inside the package when installed, at the top of a checkout."""
    packaged = Path(str(importlib.resources.files("evergrant"))) / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    return config


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@asynccontextmanager
async def _without_cascades(connection: AsyncConnection) -> AsyncIterator[None]:
    """Switch SQLite's foreign keys off: where it alters a table by copying it, dropping the old one would cascade.

    It has to be done outside a transaction, where SQLite heeds it.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None  # noqa: S101 - there is one while the connection is open; for the type checker
    await driver.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        await connection.rollback()
        await driver.execute("PRAGMA foreign_keys = ON")


async def upgrade_database(engine: AsyncEngine) -> None:
    """Bring the schema to this version, all of it or nothing. Several processes may call this at once."""
    async with engine.execution_options(**{_WRITE: True}).connect() as connection, _without_cascades(connection):
        if engine.dialect.name == "postgresql":
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        await connection.run_sync(_upgrade)
        await connection.commit()


def _is_current(connection: Connection) -> bool:
    script = ScriptDirectory.from_config(_config())
    return set(MigrationContext.configure(connection).get_current_heads()) == set(script.get_heads())
