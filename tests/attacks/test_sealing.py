"""Who can write the database, and has no master key, gets nothing out of evergrant; and deleted data keys are gone.

Each test changes rows behind evergrant's back, as somebody with the database's password can, and asks as anybody may.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from evergrant import clock as wall_clock
from evergrant.broker.operations.key_rotation import reseal, start_new_data_keys
from evergrant.broker.revocations.revoking import begin_revocations
from evergrant.broker.runtime import opened_keys
from evergrant.broker.runtime.broker import open_broker
from evergrant.broker.runtime.worker_pool import WorkerPool
from evergrant.crypto.sealed import Slot
from evergrant.errors import CannotOpenSealed
from evergrant.settings import Settings
from tests.infra.earlier import seal_as_before_owners_were_bound
from tests.infra.installation import APP_ID, BACK, SCOPES, Installation, installation, new_project
from tests.infra.rows import execute
from tests.infra.scripted import ScriptedProvider, serving


@pytest.fixture
def here(settings: Settings) -> Iterator[Installation]:
    with installation(settings.model_copy(update={"refresher": False})) as running:
        yield running


class Monotonic:
    """The seconds that the memory of opened data keys goes by; they pass when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 0.0
        monkeypatch.setattr(opened_keys, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + self.passed))


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    return Monotonic(monkeypatch)


def gives_nothing(answer: Any) -> bool:
    """Whether an answer is the one for what was tampered with, and has no token."""
    body = answer.json()
    return (answer.status_code, body["errorCode"]) == (500, "E011000") and "accessToken" not in answer.text


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ("user_id = 'mallory'", {"path": "app/user/token", "userId": "mallory"}),
        ("user_id = 'mallory'", {"path": "app/user/token/latest", "userId": "mallory"}),
        ("user_id = '', tenant_id = 'acme'", {"path": "app/tenant/token/latest", "tenantId": "acme"}),
        ("tenant_id = 'acme'", {"path": "app/user/token/latest", "userId": "alice", "tenantId": "acme"}),
        ("app_id = 'other'", {"path": "app/user/token/latest", "appId": "other", "userId": "alice"}),
    ],
    ids=["to a user, by scopes", "to a user, the latest", "to a tenant", "into a tenant", "to another app"],
)
def test_a_writer_of_the_database_who_gives_a_victims_row_to_another_owner_gets_no_token(
    here: Installation, change: str, asked: dict[str, Any]
) -> None:
    """A token opens for the owner who connected it, and for nobody else, whatever the row says."""
    here.connected("alice")
    here.backend.new_app(here.provider.registration)
    app = here.backend.new_app(here.provider.registration)
    execute(here.settings, f"UPDATE grants SET {change.replace('other', app)} WHERE user_id = 'alice'")
    body = {"appId": APP_ID, "scopes": SCOPES, **asked}
    path = body.pop("path")
    if path.endswith("latest"):
        del body["scopes"]
    body["appId"] = body["appId"].replace("other", app)
    assert gives_nothing(here.backend.post(path, body))
    if path.endswith("token"):
        assert gives_nothing(here.backend.post(path, body | {"options": {"forceRefresh": True}}))
        assert here.provider.state.token_calls["refresh_token"] == 0, "the refresh token was sent for somebody else"

    here.connected("bob")  # whoever is left alone goes on
    assert here.provider.lets_in(here.backend.token("bob"))


def test_a_writer_of_the_database_who_hangs_an_external_identifier_on_a_row_gets_no_token(here: Installation) -> None:
    """The external identifier is a part of whose a connection is."""
    here.connected("alice", options={"redirectUrl": BACK, "externalIdentifier": "work"})
    execute(here.settings, "UPDATE grants SET external_identifier = 'private'")
    assert gives_nothing(here.backend.fetch("alice", externalIdentifier="private"))
    execute(here.settings, "UPDATE grants SET external_identifier = 'work'")
    assert here.backend.fetch("alice", externalIdentifier="work").status_code == 200


@pytest.mark.parametrize(
    "source",
    [
        "SELECT access_token FROM grants WHERE user_id = 'alice'",
        "SELECT refresh_token FROM grants WHERE user_id = 'mallory'",
        "SELECT client_secret FROM outbound_apps",
    ],
    ids=["another row", "another column", "another table"],
)
def test_a_ciphertext_that_was_moved_to_an_attackers_row_is_not_handed_out(here: Installation, source: str) -> None:
    """A ciphertext opens in its row and column, and in no other."""
    here.connected("alice")
    here.connected("mallory")
    execute(here.settings, f"UPDATE grants SET access_token = ({source}) WHERE user_id = 'mallory'")
    assert gives_nothing(here.backend.fetch("mallory"))
    assert here.backend.fetch("alice").status_code == 200


async def test_a_writer_of_the_database_cannot_have_the_next_tokens_sealed_without_an_owner(settings: Settings) -> None:
    """Whether a data key binds owners is part of how it is wrapped, so that saying otherwise makes it useless."""
    project = (await asyncio.to_thread(new_project, settings)).project_id

    async def seal_for_alice_and_open_for_mallory() -> None:
        async with open_broker(settings) as broker:  # a process that has not opened the data key yet
            alices = Slot(project, "grants", "access_token", "row", (APP_ID, "alice", "", ""))
            sealed = await broker.vault.seal(alices, SecretStr("alice's"))
            assert (await broker.vault.open(alices, sealed)).get_secret_value() == "alice's"
            await broker.vault.open(replace(alices, bound=(APP_ID, "mallory", "", "")), sealed)
            raise AssertionError("mallory got what is alice's")

    for binds in ("false", "true"):
        await asyncio.to_thread(execute, settings, f"UPDATE data_keys SET binds_owner = {binds}")
        with pytest.raises(CannotOpenSealed):
            await seal_for_alice_and_open_for_mallory()


def test_a_writer_of_the_database_who_changes_whose_trip_it_is_gets_no_connection(here: Installation) -> None:
    """A consent that is under way becomes the connection of whom it was begun for, or of nobody."""
    browser = here.browser()
    authorize = browser.agree(here.backend.connect_url("alice"))
    execute(here.settings, "UPDATE authorization_requests SET user_id = 'mallory'")
    answer = browser.open(browser.allow(authorize))
    assert "outboundStatus=failed" in answer.headers["location"]
    assert [here.backend.fetch(user).status_code for user in ("alice", "mallory")] == [404, 404]

    here.connected("bob")
    assert here.backend.fetch("bob").status_code == 200


@pytest.mark.parametrize("column", ["revocation_url", "client_id", "quirks"])
def test_a_writer_of_the_database_who_moves_a_revocation_gets_neither_token_nor_secret(
    here: Installation, column: str
) -> None:
    """What is still to be revoked goes where it was meant to go when it was written down, and nowhere else."""

    async def revoke_due() -> None:
        async with open_broker(here.settings) as broker:
            pool: WorkerPool[str] = WorkerPool(most=10, most_per_key=1)
            await begin_revocations(broker, pool, asyncio.Event(), now=wall_clock.now().replace(year=2100))
            await pool.drain()

    with serving(ScriptedProvider()) as evil, serving(ScriptedProvider({"/revoke": [(503, {}), (200, {})]})) as honest:
        app = here.backend.new_app(here.provider.registration, revocationUrl=f"{honest.url}/revoke")
        for user in ("alice", "bob"):
            honest.routes["/revoke"] = (503, {})
            here.connected(user, appId=app)
            here.backend.http.delete(f"/v1/mgmt/outbound/user/tokens?appId={app}&userId={user}")
        to_evil = {
            "revocation_url": f"'{evil.url}/take'",
            "client_id": "'another'",
            "quirks": """'{"revocation": {"url": "%s/take"}}'""" % evil.url,  # noqa: UP031 - braces all over
        }
        execute(here.settings, f"UPDATE revocations SET {column} = {to_evil[column]} WHERE user_id = 'alice'")
        honest.routes["/revoke"] = {}
        before = len(honest.requests)
        asyncio.run(revoke_due())
        assert evil.requests == []
        assert len(honest.requests) == before + 1, "bob's, and nothing of alice's"


async def test_data_keys_that_were_deleted_open_nothing_in_a_process_that_had_opened_them(
    settings: Settings, seconds: Monotonic
) -> None:
    """Shredding a project takes effect everywhere within a minute, not only where processes start anew."""
    project = (await asyncio.to_thread(new_project, settings)).project_id
    other = (await asyncio.to_thread(new_project, settings)).project_id
    async with open_broker(settings) as broker:
        sealed = {
            of: await broker.vault.seal(Slot(of, "grants", "access_token", "row"), SecretStr(f"secret of {of}"))
            for of in (project, other)
        }

        async def opened(of: str) -> str:
            secret = await broker.vault.open(Slot(of, "grants", "access_token", "row"), sealed[of])
            return secret.get_secret_value()

        assert await opened(project)
        await asyncio.to_thread(execute, settings, f"DELETE FROM data_keys WHERE project_id = '{project}'")
        seconds.passed = 59
        await opened(project)  # what was seen a moment ago is not looked up at each fetch
        seconds.passed = 61
        for _ in range(2):
            with pytest.raises(CannotOpenSealed):
                await opened(project)
        with pytest.raises(CannotOpenSealed):
            await broker.vault.seal(Slot(project, "grants", "access_token", "row"), SecretStr("new"))
        assert await opened(other) == f"secret of {other}"


async def test_data_keys_that_were_deleted_leave_the_memory_of_a_process_that_is_idle(
    settings: Settings, seconds: Monotonic
) -> None:
    """The background forgets them within a minute, whether anybody asks for a token or not."""
    project = (await asyncio.to_thread(new_project, settings)).project_id
    async with open_broker(settings) as broker:
        await broker.vault.seal(Slot(project, "grants", "access_token", "row"), SecretStr("secret"))
        assert broker.vault.keys_in_memory == 1
        await asyncio.to_thread(execute, settings, "DELETE FROM data_keys")
        seconds.passed = 35
        await broker.vault.look_after_keys()
        assert broker.vault.keys_in_memory == 0


def test_a_fetch_after_the_data_keys_were_deleted_answers_nothing(here: Installation, seconds: Monotonic) -> None:
    """The same over HTTP, in a server that has served the token a moment before."""
    here.connected("alice")
    assert here.backend.fetch("alice").status_code == 200
    execute(here.settings, "DELETE FROM data_keys")
    seconds.passed = 61
    assert gives_nothing(here.backend.fetch("alice"))
    assert gives_nothing(here.backend.fetch("alice", options={"withRefreshToken": True}))
    here.provider.state.token_calls["refresh_token"] = 0
    assert gives_nothing(here.backend.fetch("alice", options={"forceRefresh": True}))
    assert here.provider.state.token_calls["refresh_token"] == 0


async def test_after_a_rotation_a_row_of_an_earlier_version_cannot_be_given_away_either(settings: Settings) -> None:
    """What earlier versions sealed goes on opening, and `keyring rotate` binds it to whom it belongs."""

    def connect_and_seal_as_before() -> None:
        with installation(settings.model_copy(update={"refresher": False})) as here:
            here.connected("alice")
            seal_as_before_owners_were_bound(settings)
            assert here.backend.fetch("alice").status_code == 200, "a rolling upgrade loses nobody"
            asyncio.run(rotate())
            assert here.backend.fetch("alice").status_code == 200
            execute(settings, "UPDATE grants SET user_id = 'mallory'")
            assert gives_nothing(here.backend.fetch("mallory"))

    async def rotate() -> None:
        async with open_broker(settings) as broker:
            await start_new_data_keys(broker, now=wall_clock.now())
            progress = [progress async for progress in reseal(broker)][-1]
            assert (progress.resealed > 3, progress.unopened) == (True, 0)

    await asyncio.to_thread(connect_and_seal_as_before)


async def test_a_writer_of_the_database_cannot_have_an_earlier_versions_data_key_seal_again(settings: Settings) -> None:
    """Once a project has a data key that binds owners, none that does not seals for it, however new its row looks."""
    project = (await asyncio.to_thread(new_project, settings)).project_id
    await asyncio.to_thread(seal_as_before_owners_were_bound, settings)
    alices = Slot(project, "grants", "access_token", "row", (APP_ID, "alice", "", ""))

    async def opens_for_mallory_too() -> bool:
        async with open_broker(settings) as broker:  # a process that has not opened the data key yet
            sealed = await broker.vault.seal(alices, SecretStr("alice's"))
            assert (await broker.vault.open(alices, sealed)).get_secret_value() == "alice's"
            try:
                await broker.vault.open(replace(alices, bound=(APP_ID, "mallory", "", "")), sealed)
            except CannotOpenSealed:
                return False
            return True

    assert await opens_for_mallory_too(), "as earlier versions sealed"
    async with open_broker(settings) as broker:
        await start_new_data_keys(broker, now=wall_clock.now())
    assert not await opens_for_mallory_too()
    newer = "SELECT MAX(created_at) FROM data_keys WHERE binds_owner"
    await asyncio.to_thread(execute, settings, f"UPDATE data_keys SET created_at = ({newer}) WHERE NOT binds_owner")
    older = "2026-01-01 00:00:00.000000" + ("" if settings.uses_sqlite else "+00")
    await asyncio.to_thread(execute, settings, f"UPDATE data_keys SET created_at = '{older}' WHERE binds_owner")
    assert not await opens_for_mallory_too()


def test_a_row_that_was_tampered_with_does_not_stop_a_rotation_for_the_others(here: Installation) -> None:
    """One value that does not open keeps no other from being sealed again, and is told to the operator."""
    for user in ("alice", "bob", "carol"):
        here.connected(user)
    execute(here.settings, "UPDATE grants SET user_id = 'mallory' WHERE user_id = 'bob'")

    async def rotate() -> int:
        async with open_broker(here.settings) as broker:
            await start_new_data_keys(broker, now=wall_clock.now())
            return [progress async for progress in reseal(broker)][-1].unopened

    assert asyncio.run(rotate()) == 3, "access token, refresh token and id_token"
    assert [here.backend.fetch(user).status_code for user in ("alice", "carol")] == [200, 200]
    assert gives_nothing(here.backend.fetch("mallory"))
