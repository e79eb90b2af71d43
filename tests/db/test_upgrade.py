"""A database of an earlier version, with data in it, brought to the newest schema."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import JSON, Boolean, Connection, DateTime, Integer, MetaData, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.db import Grant, OutboundApp
from evergrant.db.engine import database_url as with_driver
from evergrant.db.engine import make_engine

ROOT = Path(__file__).parents[2]
VERSION_BEFORE = "0005"
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
    whose = {"project_id": "P1", "app_id": "first", "user_id": "alice", "status": "active"}
    insert_row(connection, "grants", id="G1", scopes=["a"], **whose)


async def test_connections_and_apps_of_the_version_before_are_all_there(tmp_path: Path, postgres_server: Any) -> None:
    for url in (f"sqlite:///{tmp_path / 'old.db'}", postgres_server.create_database("of_the_version_before")):
        engine = make_engine(with_driver(url, Path()))
        async with engine.begin() as connection:
            await connection.run_sync(upgrade, VERSION_BEFORE)
            await connection.run_sync(fill)
            await connection.run_sync(upgrade, "head")
        async with AsyncSession(engine) as session:
            grant = (await session.scalars(select(Grant))).one()
            apps = list(await session.scalars(select(OutboundApp).order_by(OutboundApp.id)))
        await engine.dispose()
        assert (grant.scopes, grant.requested_scopes, grant.refresh_token_expires_at) == (["a"], [], None)
        # They share their callback address until they are moved, and each knows already where to.
        assert [(app.id, app.own_callback) for app in apps] == [("first", False), ("second", False)]
        assert len({app.callback_id for app in apps} - {""}) == 2
