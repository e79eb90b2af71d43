"""A database of an earlier version, with data in it, brought to the newest schema."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import JSON, Boolean, Connection, DateTime, Integer, MetaData, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.db import Grant, GrantUse, OutboundApp
from evergrant.db.engine import database_url as with_driver
from evergrant.db.engine import make_engine

ROOT = Path(__file__).parents[2]
VERSION_BEFORE = "0006"
AT = datetime(2026, 1, 31, tzinfo=UTC)


def upgrade(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def insert_row(connection: Connection, table: str, **values: Any) -> None:
    """Write a row as the schema is now; what must have a value, and is not given one, has the emptiest of its type."""
    reflected = Table(table, MetaData(), autoload_with=connection)
    empty: dict[type, Any] = {DateTime: AT, Boolean: False, Integer: 0, JSON: []}
    for column in reflected.columns:
        if not column.nullable:
            kind = next((kind for kind in empty if isinstance(column.type, kind)), None)
            values.setdefault(column.name, empty[kind] if kind is not None else "")
    connection.execute(insert(reflected).values(values))


def fill(connection: Connection) -> None:
    insert_row(connection, "projects", id="P1", name="One")
    for name in ("first", "second"):
        insert_row(connection, "outbound_apps", project_id="P1", id=name, name=name)
    whose = {"project_id": "P1", "app_id": "first", "scopes": ["a"], "next_refresh_at": AT}
    insert_row(connection, "grants", id="G1", user_id="alice", status="active", last_fetched_at=AT, **whose)
    insert_row(connection, "grants", id="G2", user_id="bob", status="pending", **whose)


async def test_connections_and_apps_of_the_version_before_are_all_there(tmp_path: Path, postgres_server: Any) -> None:
    for url in (f"sqlite:///{tmp_path / 'old.db'}", postgres_server.create_database("of_the_version_before")):
        engine = make_engine(with_driver(url, Path()))
        async with engine.begin() as connection:
            await connection.run_sync(upgrade, VERSION_BEFORE)
            await connection.run_sync(fill)
            await connection.run_sync(upgrade, "head")
        async with AsyncSession(engine) as session:
            fetched, waiting = list(await session.scalars(select(Grant).order_by(Grant.id)))
            uses = list(await session.scalars(select(GrantUse)))
            apps = list(await session.scalars(select(OutboundApp.id).order_by(OutboundApp.id)))
        await engine.dispose()
        assert apps == ["first", "second"]
        assert (fetched.scopes, fetched.next_refresh_at, fetched.warn_at) == (["a"], AT, None)
        assert [(use.grant_id, use.fetched_at) for use in uses] == [("G1", AT)]
        # What waits for its confirmation is not due any more.
        assert (waiting.status, waiting.next_refresh_at) == ("pending", None)
