"""A write that must be done is tried until it is, and says no more in the log than somebody needs."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from evergrant.broker.refresh.until_stored import until_stored
from evergrant.broker.runtime import database_health
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.errors import AppNotFound, Unavailable
from tests.infra.settings import settings_on
from tests.infra.waiting import until


@pytest.fixture
async def broker(postgresql_url: str, data_dir: Path) -> AsyncIterator[Broker]:
    async with open_broker(settings_on(postgresql_url, data_dir)) as broker:
        yield broker


async def test_what_hangs_on_a_dead_connection_is_begun_again_when_the_database_is_back(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_health, "LAST_SECONDS", 0.0)
    tries = 0

    async def store(_: int) -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            await asyncio.Event().wait()
        return "stored"

    storing = asyncio.create_task(until_stored(broker, store))
    await until(lambda: tries == 1, "it hangs")
    broker.database_health.note_away(Unavailable())
    broker.database_health.note_up()
    assert (await storing, tries) == ("stored", 2)


async def test_what_waits_for_a_lock_keeps_its_place_while_the_database_is_up(broker: Broker) -> None:
    tries, free = 0, asyncio.Event()

    async def store(_: int) -> str:
        nonlocal tries
        tries += 1
        await free.wait()
        return "stored"

    storing = asyncio.create_task(until_stored(broker, store))
    await until(lambda: tries == 1, "it waits")
    broker.database_health.note_up()
    free.set()
    assert (await storing, tries) == ("stored", 1)


async def test_an_outage_is_waited_for_and_counted_while_it_lasts(broker: Broker) -> None:
    away = True

    async def store(_: int) -> str:
        if away:
            raise Unavailable
        return "stored"

    storing = asyncio.create_task(until_stored(broker, store))
    await until(lambda: len(broker.landings) == 1, "it is counted")
    away = False
    broker.database_health.note_up()
    assert await storing == "stored"
    assert len(broker.landings) == 0
    assert broker.database_health.is_up


async def test_what_is_refused_again_and_again_is_said_once(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async def store(refusals: int) -> int:
        if refusals < 3:
            raise KeyError("a column")
        return refusals

    with caplog.at_level(logging.WARNING):
        assert await until_stored(broker, store) == 3
    assert len(caplog.records) == 1
    assert broker.database_health.is_up


async def test_what_is_wrong_for_good_is_not_tried_again(broker: Broker) -> None:
    async def store(_: int) -> None:
        raise AppNotFound

    with pytest.raises(AppNotFound):
        await until_stored(broker, store)
