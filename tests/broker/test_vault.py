"""The vault: ciphertexts open in their place only, keys roll over by themselves, and the database tells nothing."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from evergrant.broker.runtime import vault as vaults
from evergrant.broker.runtime.broker import load_keyring, open_broker
from evergrant.crypto.kms.local import new_master_key
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.errors import CannotOpenSealed, Unavailable
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import installation, new_project
from tests.infra.rows import dump, execute


@pytest.fixture
def project(settings: Settings) -> str:
    return new_project(settings).project_id


def data_keys(settings: Settings) -> list[dict[str, Any]]:
    return sorted(dump(settings)["data_keys"], key=lambda row: str(row["created_at"]))


def slot(project: str, row: str = "row") -> Slot:
    return Slot(project, "grants", "access_token", row)


async def seal_and_open(settings: Settings, project: str, times: int = 1) -> list[str]:
    """Seal `times` values, open them all, and return the ids of the keys that sealed them."""
    async with open_broker(settings) as broker:
        sealed = [await broker.vault.seal(slot(project), SecretStr(f"secret {n}")) for n in range(times)]
        opened = [(await broker.vault.open(slot(project), value)).get_secret_value() for value in sealed]
        assert opened == [f"secret {n}" for n in range(times)]
    return [value.ciphertext[1:9].hex() for value in sealed]


def test_a_sealed_value_does_not_open_with_another_projects_keys(settings: Settings, project: str) -> None:
    other = new_project(settings).project_id

    async def moved() -> None:
        async with open_broker(settings) as broker:
            sealed = await broker.vault.seal(slot(project), SecretStr("secret"))
            with pytest.raises(CannotOpenSealed):
                await broker.vault.open(slot(other), sealed)

    asyncio.run(moved())


def test_what_one_master_key_sealed_opens_when_it_stands_behind_a_new_one(settings: Settings, project: str) -> None:
    assert settings.master_keys is not None
    old = settings.master_keys.get_secret_value()

    async def seal() -> Any:
        async with open_broker(settings) as broker:
            return await broker.vault.seal(slot(project), SecretStr("secret"))

    async def open_with(keys: str, sealed: Any) -> str:
        async with open_broker(settings.model_copy(update={"master_keys": SecretStr(keys)})) as broker:
            return (await broker.vault.open(slot(project), sealed)).get_secret_value()

    sealed = asyncio.run(seal())
    assert asyncio.run(open_with(f"{new_master_key()},{old}", sealed)) == "secret"
    with pytest.raises(CannotOpenSealed, match=load_keyring(settings).first_id):
        asyncio.run(open_with(new_master_key(), sealed))


def test_a_data_key_rolls_over_before_it_sealed_too_often(
    settings: Settings, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vaults, "SEALS_PER_RESERVATION", 4)
    monkeypatch.setattr(vaults, "MAX_SEALS_PER_KEY", 10)
    used = asyncio.run(seal_and_open(settings, project, times=20))
    assert [used.count(key) for key in dict.fromkeys(used)] == [8, 8, 4]
    assert [row["seals_reserved"] for row in data_keys(settings)].count(8) == 2


def test_a_restart_counts_on_from_what_was_reserved(
    settings: Settings, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vaults, "SEALS_PER_RESERVATION", 4)
    monkeypatch.setattr(vaults, "MAX_SEALS_PER_KEY", 8)
    used = [asyncio.run(seal_and_open(settings, project))[0] for _ in range(3)]
    assert used[0] == used[1] != used[2]


def test_those_who_seal_together_share_what_is_reserved(
    settings: Settings, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vaults, "SEALS_PER_RESERVATION", 8)

    async def together() -> None:
        async with open_broker(settings) as broker:
            await asyncio.gather(*(broker.vault.seal(slot(project), SecretStr("x")) for _ in range(20)))

    asyncio.run(together())
    assert [row["seals_reserved"] for row in data_keys(settings)] == [24], "three reservations, and not twenty"


class Away:
    """A database that does not answer: at once, or never."""

    def __init__(self, *, hangs: bool) -> None:
        self.hangs = hangs
        self.asked = 0

    @asynccontextmanager
    async def write(self) -> AsyncIterator[None]:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        raise Unavailable
        yield


async def test_what_was_reserved_seals_without_the_database(
    settings: Settings, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_broker(settings) as broker:
        sealer = await broker.vault.reserve(project, seals=2)
        away = Away(hangs=False)
        with monkeypatch.context() as outage:
            outage.setattr(broker.vault, "_database", away)
            sealed = [sealer.seal(slot(project), SecretStr(secret)) for secret in ("one", "two")]
            with pytest.raises(AssertionError):
                sealer.seal(slot(project), SecretStr("more than was reserved"))
        assert away.asked == 0
        opened = [(await broker.vault.open(slot(project), value)).get_secret_value() for value in sealed]
        assert opened == ["one", "two"]


@pytest.mark.parametrize("hangs", [False, True], ids=["is away", "hangs"])
async def test_an_old_reservation_is_good_enough_while_the_database(
    settings: Settings, project: str, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(vaults, "RESERVATION_SECONDS", -1.0)  # every reservation is old
    monkeypatch.setattr(vaults, "RENEWAL_SECONDS", 0.1)
    monkeypatch.setattr(vaults, "SEALS_PER_RESERVATION", 5)
    async with open_broker(settings) as broker:
        await broker.vault.reserve(project, seals=2)
        away = Away(hangs=hangs)
        with monkeypatch.context() as outage:
            outage.setattr(broker.vault, "_database", away)
            sealer = await broker.vault.reserve(project, seals=3)
            assert away.asked == 1
            assert sealer.seal(slot(project), SecretStr("x")).ciphertext
            if not hangs:
                with pytest.raises(Unavailable):  # nothing is left
                    await broker.vault.reserve(project, seals=1)


def test_a_data_key_rolls_over_by_age(settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vaults, "RESERVATION_SECONDS", -1.0)  # look at the key's age every time
    project = new_project(settings).project_id

    async def seal_twice() -> list[str]:
        async with open_broker(settings) as broker:
            first = await broker.vault.seal(slot(project), SecretStr("secret"))
            clock.advance((vaults.MAX_KEY_AGE + timedelta(seconds=1)).total_seconds())
            second = await broker.vault.seal(slot(project), SecretStr("secret"))
            assert (await broker.vault.open(slot(project), first)).get_secret_value() == "secret"
            return [value.ciphertext[1:9].hex() for value in (first, second)]

    first, second = asyncio.run(seal_twice())
    assert [row["id"] for row in data_keys(settings)] == [first, second]
    assert asyncio.run(seal_and_open(settings, project)) == [second]


def test_deleting_the_data_keys_shreds_the_projects_secrets(settings: Settings) -> None:
    with installation(settings.model_copy(update={"refresher": False})) as here:
        here.connected("alice")
    execute(settings, "DELETE FROM data_keys")

    (grant,) = dump(settings)["grants"]

    async def open_one() -> None:
        async with open_broker(settings) as broker:
            await broker.vault.open(slot(grant["project_id"], grant["id"]), Sealed(grant["access_token"]))

    with pytest.raises(CannotOpenSealed):
        asyncio.run(open_one())


def everything_stored(settings: Settings) -> bytes:
    """Every byte of the database: the values of every column, and with SQLite the files themselves."""
    stored = b"\n".join(
        value if isinstance(value, bytes) else str(value).encode()
        for rows in dump(settings).values()
        for row in rows
        for value in row.values()
    )
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        stored += b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    return stored


def test_the_whole_database_holds_no_secret_in_the_clear(settings: Settings) -> None:
    with installation(settings.model_copy(update={"refresher": False})) as here:
        keep_the_wal_open = None
        if settings.uses_sqlite:
            assert settings.database_url is not None
            path = settings.database_url.get_secret_value().removeprefix("sqlite:///")
            keep_the_wal_open = sqlite3.connect(path)
        here.backend.create_app(
            {**here.provider.registration, "id": "planted", "name": "Planted", "clientSecret": "planted-client-secret"}
        )
        url = here.backend.connect_url("alice")
        browser = here.browser()
        authorize = browser.agree(url)
        during = everything_stored(settings)  # while the PKCE verifier and the state are in use
        browser.open(browser.allow(authorize))
        here.backend.token("alice", options={"forceRefresh": True})
        after = everything_stored(settings)

        state = here.provider.state
        secrets = [
            "planted-client-secret",
            here.provider.registration["clientSecret"],
            here.backend.management_key,
            url.rpartition("/")[2],
            *browser.http.cookies.values(),
            authorize.partition("&state=")[2].partition("&")[0] or authorize.partition("?state=")[2].partition("&")[0],
            *state.codes,
            *state.access_tokens,
            *state.refresh_tokens,
        ]
        if keep_the_wal_open is not None:
            keep_the_wal_open.close()
    assert len(secrets) >= 10
    assert all(len(secret) > 15 for secret in secrets)
    assert [secret for secret in secrets if secret.encode() in during + after] == []
    assert b"eyJ" not in during + after  # no id_token either
    assert b"alice" in after  # what is no secret is there: the search works
