"""The schema: whether it is this version's, and the migrations that make it so."""

import importlib.resources
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

WRITE = "evergrant_write"
"""The execution option of a transaction that writes: on SQLite it takes the lock when it begins."""
_MIGRATION_LOCK = 0x65766772
"""PostgreSQL advisory lock that keeps two migrating processes apart."""


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
    async with engine.execution_options(**{WRITE: True}).connect() as connection, _without_cascades(connection):
        if engine.dialect.name == "postgresql":
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        await connection.run_sync(_upgrade)
        await connection.commit()


async def is_newer(engine: AsyncEngine) -> bool:
    """Tell whether a later version of evergrant made the schema, or it is none of evergrant's at all."""

    def read(connection: Connection) -> bool:
        heads = MigrationContext.configure(connection).get_current_heads()
        known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
        return not heads or not known.issuperset(heads)

    async with engine.connect() as connection:
        return await connection.run_sync(read)


def is_current(connection: Connection) -> bool:
    """Tell whether the schema is this version's."""
    script = ScriptDirectory.from_config(_config())
    return set(MigrationContext.configure(connection).get_current_heads()) == set(script.get_heads())
