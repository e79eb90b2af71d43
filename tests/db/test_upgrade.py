"""A database of an earlier version, with data in it, brought to the newest schema."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import JSON, Boolean, Connection, DateTime, Integer, MetaData, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.db import Grant, GrantDirectory, ManagementKey, OutboundApp, Project, TrustedIssuer
from evergrant.db.engine import database_url as with_driver
from evergrant.db.engine import make_engine

ROOT = Path(__file__).parents[2]
VERSION_BEFORE = "0011"
EVERYTHING = ["apps:read", "apps:write", "audit", "connect", "keys", "tokens:fetch"]
EVERYTHING += ["tokens:fetch:refresh_token", "tokens:write", "webhooks"]
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
    insert_row(connection, "data_keys", project_id="P1", id="00" * 8, wrapped=b"w", master_key_id="m")
    insert_row(connection, "outbound_apps", project_id="P1", id="first", name="first", app_type="oauth")
    insert_row(connection, "access_policies", project_id="P1", id="p", app_id="first", action="fetch")
    insert_row(connection, "trusted_issuers", project_id="P1", id="i", issuer="https://login.example", audience="a")
    for key_id, permissions, limits in (
        ("root", EVERYTHING, {}),
        ("most", [one for one in EVERYTHING if one != "keys"], {}),
        ("of-an-app", EVERYTHING, {"app_ids": ["first"]}),
        ("near", EVERYTHING, {"allowed_cidrs": ["127.0.0.0/8"]}),
        ("brief", EVERYTHING, {"expires_at": AT}),
    ):
        row = {"project_id": "P1", "id": key_id, "permissions": permissions, "digest": key_id.encode(), **limits}
        insert_row(connection, "management_keys", **row)
    whose = {"project_id": "P1", "app_id": "first", "scopes": ["a"], "next_refresh_at": AT}
    insert_row(connection, "grants", id="G1", user_id="alice", status="active", token_sub="sub-1", **whose)
    listed = {"project_id": "P1", "app_id": "first", "grant_id": "G1", "consented_at": AT}
    insert_row(connection, "grant_directory", user_id="alice", token_sub="sub-1", **listed)


async def test_what_the_version_before_stored_is_all_there(tmp_path: Path, postgres_server: Any) -> None:
    for url in (f"sqlite:///{tmp_path / 'old.db'}", postgres_server.create_database("of_the_version_before")):
        engine = make_engine(with_driver(url, Path()))
        async with engine.begin() as connection:
            await connection.run_sync(upgrade, VERSION_BEFORE)
            await connection.run_sync(fill)
            await connection.run_sync(upgrade, "head")
        async with AsyncSession(engine, expire_on_commit=False) as session:
            project = await session.get_one(Project, "P1")
            app = await session.get_one(OutboundApp, ("P1", "first"))
            issuer = await session.get_one(TrustedIssuer, ("P1", "i"))
            grant = await session.get_one(Grant, ("P1", "G1"))
            found = await session.get_one(GrantDirectory, ("P1", "G1"))
            keys = list(await session.scalars(select(ManagementKey)))
            app.app_type = "client_credentials"  # longer than the names of the kinds were before
            await session.commit()
        await engine.dispose()
        assert project.name == "One"
        assert (app.name, app.signing_key) == ("first", None)
        assert issuer.issuer == "https://login.example"
        assert (grant.scopes, grant.next_refresh_at) == (["a"], AT)
        assert (found.app_id, found.user_id, found.token_sub) == ("first", "alice", "sub-1")
        assert len(keys) == 5
