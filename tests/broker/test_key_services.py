"""Master keys in key services, while evergrant serves: rotating between them, and what happens when one is away."""

import asyncio
import os
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from evergrant import clock as wall_clock
from evergrant.broker.operations.key_rotation import reseal, rewrap_data_keys, start_new_data_keys
from evergrant.broker.operations.setup import initialise
from evergrant.broker.runtime import opened_keys
from evergrant.broker.runtime.broker import load_keyring, open_broker
from evergrant.crypto.kms.local import LocalKey, new_master_key
from evergrant.crypto.sealed import Slot
from evergrant.db import DataKeyRow
from evergrant.errors import KeyServiceUnavailable
from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.infra.installation import Backend, installation
from tests.infra.key_services import Bao, Kms, aws_kms, openbao
from tests.infra.serving import LiveApp

Sources = dict[str, str]
"""What `EVERGRANT_MASTER_KEYS` has for one key of each kind."""


@pytest.fixture(scope="module")
def kms() -> Iterator[Kms]:
    with pytest.MonkeyPatch.context() as monkeypatch, aws_kms(monkeypatch) as running:
        yield running


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    with openbao(tmp_path_factory.mktemp("openbao")) as running:
        yield running


@pytest.fixture
def sources(kms: Kms, bao: Bao) -> Sources:
    return {
        "environment": new_master_key(),
        "AWS KMS": f"aws-kms:{kms.new_key()}",
        "transit": bao.new_key(f"key-{os.urandom(4).hex()}"),
    }


@pytest.fixture
def token(bao: Bao, sources: Sources) -> SecretStr:
    return SecretStr(bao.new_token(sources["transit"].rpartition("/")[2]))


def with_keys(settings: Settings, token: SecretStr, *keys: str) -> Settings:
    return settings.model_copy(update={"master_keys": SecretStr(",".join(keys)), "vault_token": token})


@pytest.mark.parametrize("rewrap_only", [False, True], ids=["sealing again", "rewrapping alone"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("environment", "AWS KMS"),
        ("AWS KMS", "transit"),
        ("transit", "environment"),
    ],
)
def test_master_keys_move_from_one_source_to_another_while_tokens_are_fetched(
    settings: Settings, sources: Sources, token: SecretStr, old: str, new: str, rewrap_only: bool
) -> None:
    before = with_keys(settings, token, sources[old]).model_copy(update={"refresher": False})
    both = with_keys(before, token, sources[new], sources[old])
    asyncio.run(initialise(before))  # a project whose data key the old master key has wrapped

    async def rotate() -> None:
        async with open_broker(both) as broker:
            await rewrap_data_keys(broker)
            if not rewrap_only:
                await start_new_data_keys(broker, now=wall_clock.now() + timedelta(milliseconds=1))
                async for _ in reseal(broker):
                    pass

    with installation(both) as here:
        here.connected("alice")
        here.connected("bob")
        failed: list[int] = []
        stop = threading.Event()

        def fetch() -> None:
            while not stop.is_set():
                options = {"forceRefresh": True} if len(failed) % 5 == 4 else {}
                failed.append(here.backend.fetch("alice", options=options).status_code)

        fetching = threading.Thread(target=fetch)
        fetching.start()
        try:
            asyncio.run(rotate())
        finally:
            stop.set()
            fetching.join()
        assert set(failed) == {200}
        project, expected = here.backend.project_id, here.backend.token("bob")["accessToken"]

    async def with_the_new_key_alone() -> None:
        async with open_broker(with_keys(before, token, sources[new])) as broker:
            async with broker.database.read() as session:
                wrapped_by = set(await session.scalars(select(DataKeyRow.master_key_id)))
            assert wrapped_by == {load_keyring(with_keys(before, token, sources[new])).first_id}
            await broker.vault.seal(Slot(project, "grants", "access_token", "row"), SecretStr("x"))

    asyncio.run(with_the_new_key_alone())
    assert expected


class Service:
    """A key service that counts, and can be away."""

    def __init__(self) -> None:
        self._key = LocalKey(os.urandom(32))
        self.id, self.name = self._key.id, "a service"
        self.asked = 0
        self.is_away = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def _ask(self) -> None:
        self.asked += 1
        await self.may_answer.wait()
        if self.is_away:
            raise KeyServiceUnavailable

    async def wrap(self, slot: Slot, key: bytes) -> bytes:
        await self._ask()
        return await self._key.wrap(slot, key)

    async def unwrap(self, slot: Slot, wrapped: bytes) -> bytes:
        await self._ask()
        return await self._key.unwrap(slot, wrapped)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    """The only master key of every broker that is opened here."""
    found = Service()
    monkeypatch.setattr("evergrant.broker.runtime.broker.read_master_keys", lambda *_: [found])
    return found


def place(project: str) -> Slot:
    return Slot(project, "grants", "access_token", "row")


async def test_a_process_asks_the_service_once_for_a_data_key_and_then_no_more(
    settings: Settings, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = (await initialise(settings)).project_id
    async with open_broker(settings) as broker:
        sealed = await broker.vault.seal(place(project), SecretStr("secret"))
    service.asked = 0
    async with open_broker(settings) as broker:
        service.may_answer.clear()
        opening = [asyncio.create_task(broker.vault.open(place(project), sealed)) for _ in range(20)]
        while not service.asked:
            await asyncio.sleep(0)
        service.may_answer.set()
        assert {secret.get_secret_value() for secret in await asyncio.gather(*opening)} == {"secret"}
        assert service.asked == 1
        monkeypatch.setattr(opened_keys, "LOOK_SECONDS", -1.0)  # each use looks whether the key is still there
        service.is_away = True
        for _ in range(3):
            await broker.vault.open(place(project), sealed)
            await broker.vault.seal(place(project), SecretStr("another"))
        assert service.asked == 1


async def test_a_service_that_is_away_at_the_start_stops_no_start_and_is_no_outage_of_the_database(
    settings: Settings, service: Service
) -> None:
    project = (await initialise(settings)).project_id
    async with open_broker(settings) as broker:
        sealed = await broker.vault.seal(place(project), SecretStr("secret"))
    service.is_away = True
    async with open_broker(settings) as broker:
        for _ in range(2):
            with pytest.raises(KeyServiceUnavailable) as error:
                await broker.vault.open(place(project), sealed)
            broker.database_health.note_away(error.value)
            assert broker.database_health.is_up
            with pytest.raises(KeyServiceUnavailable):
                await broker.vault.reserve(project, seals=1)
        service.is_away = False
        assert (await broker.vault.open(place(project), sealed)).get_secret_value() == "secret"


async def test_no_transaction_waits_for_a_service_when_a_data_key_rolls_over(
    settings: Settings, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = (await initialise(settings)).project_id
    async with open_broker(settings) as broker:
        monkeypatch.setattr("evergrant.broker.runtime.vault.MAX_SEALS_PER_KEY", 1)
        service.asked = 0
        service.may_answer.clear()
        sealing = asyncio.create_task(broker.vault.seal(place(project), SecretStr("secret")))
        while not service.asked:
            await asyncio.sleep(0.001)
        async with broker.database.write() as session:  # who writes does not wait for the service
            await session.execute(select(DataKeyRow).with_for_update())
        service.may_answer.set()
        sealed = await sealing
        assert (await broker.vault.open(place(project), sealed)).get_secret_value() == "secret"


def test_a_fetch_while_the_service_is_away_says_when_to_come_back(settings: Settings, service: Service) -> None:
    settings = settings.model_copy(update={"refresher": False})
    with installation(settings) as here:
        here.connected("alice")
        service.is_away = True
        assert here.backend.fetch("alice").status_code == 200, "it has unwrapped the data key before"
        with LiveApp(create_app(settings)) as fresh:
            backend = Backend(fresh.url, here.backend.project_id, here.backend.management_key)
            with backend.http:
                answer = backend.fetch("alice")
                assert (answer.status_code, answer.json()["errorCode"]) == (503, "E011009")
                assert answer.headers["retry-after"]
                service.is_away = False
                assert backend.fetch("alice").status_code == 200
