"""The schema: whether it is this version's, and the migrations that make it so.

Alembic is imported only where something is to be migrated: it takes as much memory and time as a tenth of everything
else, and a start where the schema is this version's already, which is nearly each, needs none of it.
"""

import asyncio
import importlib.resources
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import Connection, delete, insert, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from evergrant.db.away import translated
from evergrant.db.schema_floor import SchemaFloor
from evergrant.errors import Busy, MigrationsPending, SchemaTooNew, UpgradeHeldUp

WRITE = "evergrant_write"
"""The execution option of a transaction that writes: on SQLite it takes the lock when it begins."""
_VERSIONS = "alembic_version"
"""Alembic's table."""
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


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
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
    async with engine.connect() as connection:
        if await connection.run_sync(_is_current):
            return
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
    return max(_said(file, "oldest_code") or revision for revision, file in _migrations().items())


def require_fit(connection: Connection) -> None:
    """Make sure that the schema is this version's, or a later one's on which this version may run.

    Raises:
        MigrationsPending: it is an earlier version's.
        SchemaTooNew: it is a later one's, and this version may not.
    """
    if not _is_current(connection) and not _is_later(connection):
        raise MigrationsPending


def _is_current(connection: Connection) -> bool:
    return _stored_revisions(connection) == {max(_migrations())}


def _is_later(connection: Connection) -> bool:
    """Tell whether the schema is a later version's, on which this one may run.

    Raises:
        SchemaTooNew: it is a later version's, or none of evergrant's at all, and this one may not.
    """
    known = _migrations()
    if known.keys() >= _stored_revisions(connection):
        return False
    floor = None
    if inspect(connection).has_table(SchemaFloor.__tablename__):
        floor = connection.execute(select(SchemaFloor.revision)).scalar_one_or_none()
    if floor is None or floor > max(known):
        raise SchemaTooNew
    return True


async def is_newer(engine: AsyncEngine) -> bool:
    """Tell whether a later version of evergrant made the schema, or it is none of evergrant's at all."""

    def read(connection: Connection) -> bool:
        stored = _stored_revisions(connection)
        return not stored or not _migrations().keys() >= stored

    async with engine.connect() as connection:
        return await connection.run_sync(read)


def _stored_revisions(connection: Connection) -> set[str]:
    """Return the newest migrations that the database has: one, or none if there is no schema."""
    if not inspect(connection).has_table(_VERSIONS):
        return set()
    return set(connection.execute(text(f"SELECT version_num FROM {_VERSIONS}")).scalars())  # noqa: S608 - a constant


def _migrations() -> dict[str, str]:
    """Return the text of each of this version's migrations, by its name. They are numbered in their order."""
    files = [path.read_text(encoding="utf-8") for path in (migrations_folder() / "versions").glob("*.py")]
    return {_said(file, "revision"): file for file in files}


def _said(file: str, name: str) -> str:
    """Return what a migration says of itself in a line of its own; empty where it says nothing."""
    found = re.search(rf'^{name}\b[^=\n]*= "(\w+)"$', file, flags=re.MULTILINE)
    return found[1] if found else ""
