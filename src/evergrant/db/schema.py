"""The schema: whether it is this version's, and the migrations that make it so."""

import asyncio
import importlib.resources
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, delete, insert, inspect, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from evergrant.db.away import translated
from evergrant.db.schema_floor import SchemaFloor
from evergrant.errors import Busy, MigrationsPending, SchemaTooNew, UpgradeHeldUp

WRITE = "evergrant_write"
"""The execution option of a transaction that writes: on SQLite it takes the lock when it begins."""
_MIGRATION_LOCK = 0x65766772
"""PostgreSQL advisory lock that keeps two migrating processes apart."""
LOCK_TIMEOUT = "2s"
"""A migration waits no longer for a table: whoever comes after it waits too, fetches among them."""
PAUSE_SECONDS = 1.0
PATIENCE_SECONDS = 600.0
"""So long an upgrade tries, before it says that something is in its way."""


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
    """Bring the schema to this version, all of it or nothing. Several processes may call this at once.

    On a later version's schema there is nothing to do, if this version may run on it. On PostgreSQL evergrant's
    processes go on meanwhile: a table that somebody holds is not waited for, with all others in line behind it, but
    tried again.

    Raises:
        SchemaTooNew: a later version made the schema, and this one may not run on it.
        Busy: another process writes to the SQLite file.
        UpgradeHeldUp: something held a table for all of `PATIENCE_SECONDS`.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with translated():
                await _upgrade_once(engine)
        except Busy as error:
            if engine.dialect.name == "sqlite":
                raise  # it has been waited for: a file has one lock
            if time.monotonic() > deadline:
                raise UpgradeHeldUp from error
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return


async def _upgrade_once(engine: AsyncEngine) -> None:
    async with engine.execution_options(**{WRITE: True}).connect() as connection, _without_cascades(connection):
        if engine.dialect.name == "postgresql":
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            # From here on: whoever else migrates may take its time.
            await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        if not await connection.run_sync(_is_later):
            await connection.run_sync(_upgrade)
            await connection.run_sync(_write_floor)
        await connection.commit()


def _write_floor(connection: Connection) -> None:
    connection.execute(delete(SchemaFloor))
    connection.execute(insert(SchemaFloor).values(id=1, revision=oldest_code()))


def oldest_code() -> str:
    """Return the last migration of the oldest version that may run on this version's schema.

    Each migration says for itself, by `oldest_code`; one that does not say can only be used by its own version.
    """
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return max(str(getattr(script.module, "oldest_code", script.revision)) for script in scripts)


def _is_later(connection: Connection) -> bool:
    """Tell whether the schema is a later version's, on which this one may run.

    Raises:
        SchemaTooNew: it is a later version's, or none of evergrant's at all, and this one may not.
    """
    script = ScriptDirectory.from_config(_config())
    heads = set(MigrationContext.configure(connection).get_current_heads())
    if heads <= {one.revision for one in script.walk_revisions()}:
        return False
    floor = None
    if inspect(connection).has_table(SchemaFloor.__tablename__):
        floor = connection.execute(select(SchemaFloor.revision)).scalar_one_or_none()
    if floor is None or floor > str(script.get_current_head()):
        raise SchemaTooNew
    return True


def require_fit(connection: Connection) -> None:
    """Make sure that the schema is this version's, or a later one's on which this version may run.

    Raises:
        MigrationsPending: it is an earlier version's.
        SchemaTooNew: it is a later one's, and this version may not.
    """
    heads = set(MigrationContext.configure(connection).get_current_heads())
    if heads != set(ScriptDirectory.from_config(_config()).get_heads()) and not _is_later(connection):
        raise MigrationsPending


async def is_newer(engine: AsyncEngine) -> bool:
    """Tell whether a later version of evergrant made the schema, or it is none of evergrant's at all."""

    def read(connection: Connection) -> bool:
        heads = MigrationContext.configure(connection).get_current_heads()
        known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
        return not heads or not known.issuperset(heads)

    async with engine.connect() as connection:
        return await connection.run_sync(read)
