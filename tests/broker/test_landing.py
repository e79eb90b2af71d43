"""Between a provider's answer and its row nothing is lost: not for an odd value, for a disk, or for a restart."""

import asyncio
import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from evergrant import clock as wall_clock
from evergrant.broker.apps.destinations import digest_of
from evergrant.broker.grants.grants import owner_of, token_slot
from evergrant.broker.refresh.landing import AnswerInHand
from evergrant.broker.refresh.refresh import refresh_grant
from evergrant.broker.refresh.replay import replay_journal
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.journal import DRAFT_SECONDS, Journal
from evergrant.broker.runtime.journal_entry import Entry
from evergrant.chores import OF_A_PROCESS, do_until
from evergrant.crypto.sealed import Sealed
from evergrant.db import Grant, OutboundApp
from evergrant.errors import Unavailable
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import Installation, installation, refreshes
from tests.infra.rows import execute
from tests.infra.waiting import until


@pytest.fixture
def here(settings: Settings, clock: Clock) -> Iterator[Installation]:
    """alice is connected; time stands still until a test moves it."""
    with installation(settings.model_copy(update={"refresher": False})) as running:
        running.connected("alice")
        yield running


def folder_of(here: Installation) -> Path:
    return here.settings.data_dir / "journal"


def names_in(here: Installation) -> set[str]:
    return {file.suffix for file in folder_of(here).iterdir()}


async def grant_of(broker: Broker) -> Grant:
    async with broker.database.read() as session:
        return (await session.scalars(select(Grant))).one()


async def app_of(broker: Broker) -> OutboundApp:
    async with broker.database.read() as session:
        return (await session.scalars(select(OutboundApp))).one()


async def new_tokens(broker: Broker, grant: Grant, **more: object) -> Entry:
    """Return an entry with an access token and a refresh token that nobody else has."""
    values: dict[str, object] = {"token_version": grant.token_version + 1, **more}
    for name in ("access_token", "refresh_token"):
        slot = token_slot(owner_of(grant), grant.id, name)
        values[name] = await broker.vault.seal(slot, SecretStr(f"new {name}"))
    return Entry(grant.project_id, grant.id, "", grant.token_version, values)


async def stored_tokens(broker: Broker) -> list[str]:
    grant = await grant_of(broker)
    opened = []
    for name in ("access_token", "refresh_token"):
        sealed: Sealed = getattr(grant, name)
        opened.append((await broker.vault.open(token_slot(owner_of(grant), grant.id, name), sealed)).get_secret_value())
    return opened


NEW = ["new access_token", "new refresh_token"]


# what stands beside the tokens


async def test_what_the_database_never_takes_does_not_keep_the_tokens_out(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        entry = await new_tokens(broker, await grant_of(broker), status="a status that there is not")
        assert await (await AnswerInHand.take(broker, entry)).land(broker)
        assert await stored_tokens(broker) == NEW
        assert (await grant_of(broker)).status == "active"
        assert list(folder_of(here).iterdir()) == []


async def test_what_the_journal_cannot_write_does_not_keep_the_tokens_out(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        entry = await new_tokens(broker, await grant_of(broker), details={"odd": object()})
        answer = await AnswerInHand.take(broker, entry)
        assert answer.file is not None
        assert await answer.land(broker)
        assert await stored_tokens(broker) == NEW


def test_a_bug_in_reading_what_stands_beside_the_tokens_costs_that_part_only(
    here: Installation, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise OverflowError("secret-of-the-answer")

    first = here.backend.token()
    for place in ("token_response._scopes", "token_response.access_token_seconds", "token_response._token_type"):
        monkeypatch.setattr(f"evergrant.oauth2.{place}", breaks)
    monkeypatch.setattr("evergrant.broker.grants.grants.lifetime_of", breaks)
    monkeypatch.setattr("evergrant.oauth2.token_endpoint.failure_of", breaks)
    clock.advance(3601)
    second = here.backend.token()
    assert second["accessToken"] != first["accessToken"]
    assert second["scopes"] == first["scopes"]
    assert here.provider.lets_in(second)


# the journal's disk


def test_a_full_disk_costs_no_refresh_and_leaves_nothing_behind(
    here: Installation, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for _ in range(3):
        clock.advance(3601)
        assert here.provider.lets_in(here.backend.token())
    assert list(folder_of(here).iterdir()) == []
    assert "evergrant_journal_failures_total 3.0" in here.backend.http.get("/metrics").text
    monkeypatch.undo()


def test_an_entry_that_cannot_be_removed_costs_no_refresh_and_no_start(
    here: Installation, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as disk:

        def read_only(self: Path, missing_ok: bool = False) -> None:
            raise OSError(errno.EROFS, "Read-only file system", str(self))

        disk.setattr(Path, "unlink", read_only)
        disk.setattr(Path, "rename", read_only)
        clock.advance(3601)
        # It cannot be written either, by then.
        assert here.provider.lets_in(here.backend.token())
    with monkeypatch.context() as disk:
        disk.setattr(Path, "unlink", read_only)
        clock.advance(3601)
        token = here.backend.token()
        assert here.provider.lets_in(token)
        assert ".json" in names_in(here)

        async def start() -> None:
            async with open_broker(here.settings) as broker:
                assert await replay_journal(broker) == 0

        asyncio.run(start())
        assert here.backend.token() == token


def test_drafts_that_a_killed_process_left_are_swept_and_others_are_not(tmp_path: Path) -> None:
    old, new = tmp_path / "0123456789abcdef.draft", tmp_path / "fedcba9876543210.draft"
    for draft in (old, new):
        draft.write_text("{")
    os.utime(old, (time.time() - DRAFT_SECONDS - 1,) * 2)
    assert asyncio.run(Journal(tmp_path).read()) == []
    assert [file.name for file in tmp_path.iterdir()] == [new.name]


# what an earlier life left


def left_behind(here: Installation, entry: Entry) -> Path:
    file = Journal(folder_of(here)).write(entry)
    assert file is not None
    return file


async def test_what_can_never_land_is_put_aside_and_the_rest_lands(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        grant = await grant_of(broker)
        naive = wall_clock.now().replace(tzinfo=None)
        odd: list[dict[str, Any]] = [
            {"token_version": 2, "column_of_tomorrow": 1},
            {"token_version": 2, "access_token": "two"},
            {"token_version": 2, "expires_at": naive},
            {"token_version": "2"},
            {"token_version": 2, "scopes": "a b"},
            {"token_version": 2, "last_refresh_error": None},
        ]
        for values in odd:
            left_behind(here, Entry(grant.project_id, grant.id, "", grant.token_version, values))
        left_behind(here, Entry(grant.project_id, "anew", "", 0, {"app_id": "practice"}))
        left_behind(here, await new_tokens(broker, grant))
        assert await replay_journal(broker) == 1
        assert await stored_tokens(broker) == NEW
    assert len(list(folder_of(here).glob("*.broken"))) == len(odd) + 1
    assert list(folder_of(here).glob("*.json")) == []


async def test_tokens_land_without_a_column_that_another_version_has(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        left_behind(here, await new_tokens(broker, await grant_of(broker), column_of_tomorrow=1))
        assert await replay_journal(broker) == 1
        assert await stored_tokens(broker) == NEW


async def test_what_an_earlier_life_left_lands_before_its_connection_is_called(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        grant = await grant_of(broker)
        left_behind(here, await new_tokens(broker, grant))
        refreshed = await refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version)
        assert refreshed.token_version == grant.token_version + 1
        assert refreshes(here) == 0
        assert await stored_tokens(broker) == NEW
        assert (await grant_of(broker)).lease_owner is None
        # and the next refresh is an ordinary one
        with pytest.raises(Exception, match="invalid_grant"):
            await refresh_grant(broker, grant.project_id, grant.id, seen_version=refreshed.token_version)
        assert refreshes(here) == 1


async def test_nobody_is_called_while_an_earlier_answer_cannot_land(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        grant = await grant_of(broker)
        left_behind(here, await new_tokens(broker, grant, expires_at=wall_clock.now()))
        await asyncio.to_thread(execute, here.settings, "ALTER TABLE grants RENAME COLUMN refresh_token TO put_away")
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is called
            await refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version)
        assert refreshes(here) == 0
        await asyncio.to_thread(execute, here.settings, "ALTER TABLE grants RENAME COLUMN put_away TO refresh_token")
        assert await replay_journal(broker) == 1
        assert await stored_tokens(broker) == NEW


async def test_the_journal_is_replayed_as_soon_as_the_database_is_back(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        stop = asyncio.Event()
        replaying = asyncio.create_task(do_until(broker, OF_A_PROCESS, stop))
        await until(lambda: broker.journal._was_read, "it has looked once")
        file = left_behind(here, await new_tokens(broker, await grant_of(broker)))
        os.utime(file, (time.time() - 60,) * 2)
        broker.database_health.note_away(Unavailable())
        broker.database_health.note_up()
        await until(lambda: not file.exists(), "it has landed")
        assert await stored_tokens(broker) == NEW
        stop.set()
        await replaying


async def test_a_verified_upload_that_is_older_than_what_the_user_has_connected_since_does_not_replace_it(
    here: Installation,
) -> None:
    async with open_broker(here.settings) as broker:
        grant = await grant_of(broker)
        columns = {
            name: getattr(grant, name)
            for name in (
                "app_id",
                "user_id",
                "tenant_id",
                "external_identifier",
                "scope_key",
                "scopes",
                "requested_scopes",
                "refresh_token",
                "access_token",
            )
        }
        audit = {"action": "token.uploaded", "data": {"grantId": "older"}, "actor": "cli", "remote_address": ""}
        older = {**columns, "status": "active", "consented_at": grant.consented_at - timedelta(seconds=60)}
        entry = Entry(grant.project_id, "older", "", 0, older, audit)
        left_behind(here, entry)
        assert await replay_journal(broker) == 0
        assert (await grant_of(broker)).id == grant.id
        newer = {**columns, "status": "active", "consented_at": grant.consented_at + timedelta(seconds=60)}
        data = {**audit, "data": {"grantId": "newer"}}
        left_behind(here, replace(entry, grant_id="newer", values=newer, audit=data))
        assert await replay_journal(broker) == 1
        assert (await grant_of(broker)).id == "newer"
        assert list(folder_of(here).iterdir()) == []


@pytest.mark.parametrize("place", ["another place", "the same"])
async def test_a_verified_upload_for_an_app_that_has_moved_is_dropped_and_its_new_place_not_told(
    here: Installation, place: str
) -> None:
    async with open_broker(here.settings) as broker:
        await asyncio.to_thread(execute, here.settings, "UPDATE outbound_apps SET revoke_replaced = true")
        alices = await grant_of(broker)
        names = ("app_id", "user_id", "tenant_id", "external_identifier", "scope_key", "scopes", "requested_scopes")
        columns: dict[str, Any] = {name: getattr(alices, name) for name in names}
        older = {**columns, "status": "active", "consented_at": alices.consented_at - timedelta(seconds=60)}
        its_own = token_slot(owner_of(alices), alices.id, "refresh_token")
        assert alices.refresh_token is not None
        token = await broker.vault.open(its_own, alices.refresh_token)
        uploaded = await broker.vault.seal(token_slot(owner_of(alices), "uploaded", "refresh_token"), token)
        destinations = place if place != "the same" else digest_of(broker.catalogue, await app_of(broker))
        audit = {"action": "token.uploaded", "data": {"grantId": "uploaded"}, "actor": "cli", "remote_address": ""}
        values = {**older, "refresh_token": uploaded}
        entry = Entry(alices.project_id, "uploaded", "", 0, values, {**audit, "destinations": destinations})
        left_behind(here, entry)
        assert await replay_journal(broker) == 0
        assert (await grant_of(broker)).id == alices.id
        assert list(folder_of(here).iterdir()) == []
        # alice has connected since, so that it is out of date in any case; where it may be told, the provider is.
        assert bool(here.provider.state.revoked_families) == (place == "the same")


def test_an_entry_of_a_new_row_is_legible(here: Installation) -> None:
    entry = Entry("P1", "g1", "", 0, {"app_id": "practice"}, {"action": "token.uploaded"})
    members = json.loads(left_behind(here, entry).read_text())
    assert (members["seen_version"], members["audit"]) == (0, {"action": "token.uploaded"})
