"""A database of an earlier version, with data in it, brought to the newest schema."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import JSON, Boolean, Connection, DateTime, Integer, MetaData, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.operations.setup import upgrade as upgrade_settings
from evergrant.broker.runtime.broker import open_broker
from evergrant.db import Grant, GrantDirectory, ManagementKey, OutboundApp, Project, TrustedIssuer
from evergrant.db.engine import database_url as with_driver
from evergrant.db.engine import make_engine
from evergrant.db.schema import oldest_code, upgrade_database
from evergrant.errors import SchemaTooNew, UpgradeHeldUp
from evergrant.settings import Settings
from scripts.release.previous import load_previous
from tests.infra.rows import execute, rows
from tests.infra.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
VERSION_BEFORE = load_previous().revision
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


async def test_a_process_runs_on_a_later_schema_that_says_it_may_and_on_no_other(settings: Settings) -> None:
    execute(settings, "UPDATE alembic_version SET version_num = '9999'")
    await upgrade_settings(settings)
    async with open_broker(settings):
        pass
    assert [row["version_num"] for row in rows(settings, "alembic_version")] == ["9999"]
    for less in ("UPDATE schema_floor SET revision = '9998'", "DELETE FROM schema_floor", "DROP TABLE schema_floor"):
        execute(settings, less)
        with pytest.raises(SchemaTooNew):
            await upgrade_settings(settings)
        with pytest.raises(SchemaTooNew):
            async with open_broker(settings):
                pass


def test_the_release_before_may_run_on_this_schema() -> None:
    assert oldest_code() <= VERSION_BEFORE


async def test_an_upgrade_keeps_nobody_in_line_behind_a_table_that_is_held(
    postgres_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evergrant.db.schema.LOCK_TIMEOUT", "20ms")
    monkeypatch.setattr("evergrant.db.schema.PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("evergrant.db.schema.PATIENCE_SECONDS", 0.1)
    engine = make_engine(with_driver(postgres_server.create_database("held"), Path()))
    async with asyncio.timeout(PATIENCE):
        async with engine.begin() as connection:
            await connection.run_sync(upgrade, VERSION_BEFORE)
        somebody = await asyncpg.connect(postgres_server.url("held"))
        await somebody.execute("BEGIN; LOCK TABLE alembic_version IN SHARE MODE")
        with pytest.raises(UpgradeHeldUp):
            await upgrade_database(engine)
        await somebody.close()
        await upgrade_database(engine)
    await engine.dispose()
