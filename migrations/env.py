"""How Alembic reaches the database: by the caller's connection, else by the settings."""

import asyncio
from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, TypeDecorator
from sqlalchemy.engine import URL

from evergrant.db import Base
from evergrant.db.engine import database_url, make_engine
from evergrant.settings import load_settings


def configured_url() -> URL:
    """Return the URL of the database that the environment names."""
    settings = load_settings()
    configured = settings.database_url.get_secret_value() if settings.database_url else None
    return database_url(configured, settings.data_dir)


def render_item(kind: str, item: Any, _autogenerate: Any) -> str | Literal[False]:
    """Write a column type of ours as what the database stores.

    A revision must keep meaning the same when the code moves on, so it does not import it.
    """
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl_instance!r}"
    return False


def migrate(connection: Connection) -> None:
    """Run what was asked for on `connection`, in its transaction where it is in one."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        render_item=render_item,
        # SQLite alters a table by copying it: the same script does so there, and in place on PostgreSQL.
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_migrate() -> None:
    """Run what was asked for on a connection of our own."""
    engine = make_engine(configured_url(), patient=True)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


def print_sql() -> None:
    """Print the statements instead of running them (`alembic upgrade head --sql`)."""
    context.configure(url=configured_url(), target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if context.is_offline_mode():
    print_sql()
elif given is not None:
    migrate(given)
else:
    asyncio.run(connect_and_migrate())
