"""A process's heartbeat notices that the database answers nothing any more."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select, text

from evergrant import pace
from evergrant.broker.operations.setup import upgrade
from evergrant.broker.runtime.broker import load_keyring, open_broker, own_traits
from evergrant.db import Holder
from evergrant.db.engine import Database
from evergrant.errors import Unavailable
from evergrant.pace import Pace
from evergrant.settings import Settings
from tests.infra.cable import Cable
from tests.infra.postgres import PostgresServer
from tests.infra.settings import settings_on
from tests.infra.waiting import PATIENCE, until


@pytest.fixture
def cable(postgres_server: PostgresServer) -> Iterator[Cable]:
    cable = Cable(postgres_server)
    yield cable
    cable.remove()


async def test_what_waits_for_a_database_that_has_fallen_silent_is_cut_off(
    cable: Cable, postgresql_url: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A landing waits for locks without an end, so nothing else would end it."""
    monkeypatch.setattr(pace, "PACE", Pace().faster(10))
    url = cable.url(urlsplit(postgresql_url).path.removeprefix("/"))
    async with open_broker(settings_on(url, data_dir)) as broker:

        async def land() -> None:
            async with broker.database.write_landing() as connection:
                cable.hang()
                await connection.execute(text("SELECT 1"))

        with pytest.raises(Unavailable):
            await asyncio.wait_for(land(), PATIENCE)
        assert not broker.database_health.is_up
        cable.mend()
        await until(lambda: broker.database_health.is_up, "the database is back")
        async with broker.database.write_landing() as connection:
            await connection.execute(text("SELECT 1"))


async def test_a_process_that_refreshes_shows_what_it_must_have_in_common_with_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PACE", Pace().faster(10))
    await upgrade(settings)
    shown: list[str] = []
    async with open_broker(settings) as broker, asyncio.timeout(PATIENCE):
        broker.holder.new_owner()
        while not shown:
            await asyncio.sleep(0.01)
            async with broker.database.read() as session:
                shown = list(await session.scalars(select(Holder.traits)))
    assert shown == [own_traits(settings, load_keyring(settings))]


async def test_a_database_that_only_takes_no_writes_is_not_cut_off(
    postgres_server: PostgresServer, postgresql_url: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A primary that is about to be replaced: tokens that are still good can be read from it."""
    monkeypatch.setattr(pace, "PACE", Pace().faster(10))
    cuts: list[Database] = []
    async with open_broker(settings_on(postgresql_url, data_dir)) as broker:
        monkeypatch.setattr(Database, "cut", cuts.append)
        broker.holder.shown.set()  # from its first lease on, a process writes its beats
        name = urlsplit(postgresql_url).path.removeprefix("/")
        postgres_server.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        await until(lambda: not broker.database_health.is_up, "the beats are refused")
        assert cuts == []
        postgres_server.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = off')
