"""The tests' own footing: what the fixtures promise."""

import signal
import urllib.request
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from evergrant import clock as wall_clock
from evergrant.db.engine import Database, make_engine
from evergrant.db.engine import database_url as with_driver
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.postgres import PostgresServer
from tests.infra.serving import LiveApp, ServerProcess, environment_of


async def test_a_database_is_fresh_and_migrated(database_url: str) -> None:
    engine = make_engine(with_driver(database_url, Path()))
    await Database(engine).require_current_schema()
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE left_behind (id INTEGER)"))
    await engine.dispose()


async def test_nothing_is_left_of_another_test(database_url: str) -> None:
    engine = make_engine(with_driver(database_url, Path()))
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE left_behind (id INTEGER)"))
    await engine.dispose()


async def test_postgresql_comes_back_after_it_was_taken_away(postgresql_url: str) -> None:
    server = PostgresServer()
    server.start()
    try:
        url = server.create_database("here")
        server.stop()
        with pytest.raises(OSError, match=r"connect|No such file"):
            await asyncpg.connect(url)
        server.start()
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
    finally:
        server.remove()
    assert not server.folder.exists()


def test_the_clock_stands_still_until_it_is_moved(clock: Clock) -> None:
    before = wall_clock.now()
    clock.advance(90)
    assert (wall_clock.now() - before).total_seconds() == 90


def test_settings_are_those_of_a_loopback_trial(settings: Settings) -> None:
    assert settings.is_loopback_trial
    assert [str(network) for network in settings.egress_allow] == ["127.0.0.0/8"]


def test_a_live_app_answers_at_its_address() -> None:
    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
            await send({"type": "http.response.body", "body": b"here"})  # type: ignore[operator]

    with LiveApp(app) as live, urllib.request.urlopen(live.url) as response:
        assert response.read() == b"here"


def test_two_servers_share_a_database_and_stop_when_told(settings: Settings, tmp_path: Path) -> None:
    environment = environment_of(settings)
    one = ServerProcess(environment, log=tmp_path / "one.log")
    other = ServerProcess(environment, "--no-refresher", log=tmp_path / "other.log")
    with one, other:
        for server in (one, other):
            with urllib.request.urlopen(f"{server.url}/readyz") as response:
                assert response.status == 200
        assert one.stop() in (0, -signal.SIGTERM)  # uvicorn ends by the signal it was sent, after its work
    assert "Traceback" not in one.output() + other.output()
