"""Chores and revocations in the background: none waits for another, and a stop waits for none of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from evergrant import chores, pace
from evergrant.broker.revocations import revocation
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.chores import Chore, do_until
from evergrant.db import Revocation
from evergrant.errors import Unavailable
from evergrant.pace import Pace
from evergrant.refresher import refresh_until
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import Installation, installation
from tests.infra.scripted import ScriptedProvider, serving
from tests.infra.waiting import PATIENCE, until


@pytest.fixture
def here(settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setattr(revocation, "FIRST_TRY_SECONDS", 0.2)
    with installation(settings.model_copy(update={"refresher": False})) as running:
        yield running


class Hanging:
    """A server that takes requests and answers none of them."""

    def __init__(self) -> None:
        self.at_once = 0
        self.most = 0
        self.port = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        with contextlib.suppress(ConnectionError):
            while await reader.read(1024):
                pass
        self.at_once -= 1
        writer.close()


@pytest.fixture
async def hanging() -> AsyncIterator[Hanging]:
    server = Hanging()
    listening = await asyncio.start_server(server.take, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()


def deleted(here: Installation, app_id: str, url: str, count: int) -> None:
    """Delete connections of a new app, whose provider did not revoke them at once."""
    fields = {"id": app_id, "name": app_id, "clientId": "evergrant", "authorizationUrl": url, "tokenUrl": url}
    here.backend.create_app({**fields, "revocationUrl": url, "defaultScopes": ["files"]})
    for number in range(count):
        body = {"appId": app_id, "userId": f"u{number}", "accessToken": f"at{number}", "refreshToken": f"rt{number}"}
        assert here.backend.post("app/user/oauthtoken/upload", body).status_code == 200
    assert here.backend.http.delete(f"/v1/mgmt/outbound/user/tokens?appId={app_id}").status_code == 200


async def waiting(broker: Broker, app_id: str) -> int:
    async with broker.database.read() as session:
        counted = select(func.count()).select_from(Revocation).where(Revocation.app_id == app_id)
        return int((await session.execute(counted)).scalar_one())


async def test_a_provider_that_hangs_delays_no_revocation_elsewhere_no_chore_and_no_stop(
    here: Installation, hanging: Hanging, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    async def note(_broker: Broker) -> None:
        done.append("done")

    monkeypatch.setattr(chores, "OF_A_REFRESHER", (Chore("note", note),))
    monkeypatch.setattr("evergrant.refresher.OF_A_REFRESHER", (Chore("note", note),))
    with serving(ScriptedProvider()) as scripted:
        scripted.routes["/revoke"] = (503, {})
        await asyncio.to_thread(deleted, here, "hangs", f"http://127.0.0.1:{hanging.port}/revoke", 30)
        await asyncio.to_thread(deleted, here, "works", f"{scripted.url}/revoke", 12)
        scripted.routes["/revoke"] = {}
        async with open_broker(here.settings) as broker:
            for app_id, age in (("hangs", 100), ("works", 10)):  # those that hang are first in the queue
                moved = update(Revocation).where(Revocation.app_id == app_id)
                async with broker.database.write() as session:
                    await session.execute(moved.values(next_attempt_at=clock.now - timedelta(seconds=age)))
            hanging.most = hanging.at_once
            stop = asyncio.Event()
            running = asyncio.create_task(refresh_until(broker, stop))
            async with asyncio.timeout(PATIENCE):
                while await waiting(broker, "works"):
                    await asyncio.sleep(0.02)
            await until(lambda: bool(done), "the chore is done")
            await until(lambda: hanging.at_once > 0, "the other provider is asked")
            assert await waiting(broker, "hangs") == 30
            assert hanging.most <= 4
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await running


async def test_a_chore_that_hangs_or_breaks_holds_up_no_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PACE", Pace(chores=0.01))
    times = 0

    async def hang(_broker: Broker) -> None:
        await asyncio.Event().wait()

    async def break_down(_broker: Broker) -> None:
        raise RuntimeError("this chore is broken")

    async def count(_broker: Broker) -> None:
        nonlocal times
        times += 1

    stop = asyncio.Event()
    async with open_broker(settings) as broker:
        all_of_them = [Chore("hang", hang), Chore("break", break_down), Chore("count", count)]
        running = asyncio.create_task(do_until(broker, all_of_them, stop))
        await until(lambda: times >= 3, "the others are done again and again")
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await running


async def test_when_the_database_is_back_every_chore_is_done_at_once(settings: Settings) -> None:
    done = 0

    async def work(_broker: Broker) -> None:
        nonlocal done
        done += 1

    stop = asyncio.Event()
    async with open_broker(settings) as broker:  # whose chores are done once a minute
        running = asyncio.create_task(do_until(broker, [Chore("work", work)], stop))
        await until(lambda: done == 1, "it is done at the start")
        broker.database_health.note_away(Unavailable())
        broker.database_health.note_up()
        await until(lambda: done == 2, "it is done again")
        stop.set()
        await running
