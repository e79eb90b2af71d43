"""A backup that comes back harms nobody: spent tokens are not sent in bulk, and what was deleted stays deleted.

Each test has its control: what is certain to work goes on, and what the provider accepts is refreshed as ever.
"""

import asyncio
import contextlib
import shutil
import sqlite3
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from evergrant import clock as wall_clock
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.replanning import plan_anew
from evergrant.broker.grants.grants import owner_of, token_slot
from evergrant.broker.operations.backup import Restored, mark_restored_database
from evergrant.broker.refresh.claimed import refresh_claimed
from evergrant.broker.refresh.claims import ClaimQuota, claim_due_grants
from evergrant.broker.refresh.replay import replay_journal
from evergrant.broker.refresh.restored import VERSIONS_APART, let_some_be_tried
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.journal import Journal
from evergrant.broker.runtime.journal_entry import Entry
from evergrant.catalog.loader import load_catalogue
from evergrant.db import Grant
from evergrant.practice.faults import instead
from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.cli.conftest import Evergrant
from tests.conftest import Clock
from tests.infra.credentials import Uploaded, upload_credentials
from tests.infra.installation import APP_ID, Backend, Browser, Provider, new_project, practice_provider
from tests.infra.people import DEAD
from tests.infra.rows import execute, expire, rows
from tests.infra.serving import LiveApp

T = TypeVar("T")


@dataclass
class Drill:
    """An installation whose server can be stopped, as it must be for a restore."""

    settings: Settings
    provider: Provider
    backend: Backend

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        with LiveApp(create_app(self.settings), port=urlsplit(self.settings.public_url).port or 0):
            yield

    def connect(self, *users: str) -> None:
        for user in users:
            browser = Browser()
            assert browser.connect(self.backend.connect_url(user))["outboundStatus"] == "connected"
            browser.http.close()

    def run(self, work: Callable[[Broker], Awaitable[T]]) -> T:
        async def run() -> T:
            async with open_broker(self.settings) as broker:
                return await work(broker)

        return asyncio.run(run())

    def mark(self, *shredded: str) -> Restored:
        return self.run(lambda broker: mark_restored_database(broker, shredded=shredded))

    def let_background_work(self, rounds: int = 3) -> list[int]:
        """Let the background have its way so many times, and return how many refreshes each brought to the provider."""

        everything = ClaimQuota((self.backend.project_id, APP_ID), due=100, overdue=100)

        async def work(broker: Broker) -> list[int]:
            brought = []
            for _ in range(rounds):
                before = self.refreshes
                await let_some_be_tried(broker)
                now = wall_clock.now()
                claims = await claim_due_grants(broker, [everything], now=now)
                await asyncio.gather(*(refresh_claimed(broker, claim, now=now) for claim in claims))
                brought.append(self.refreshes - before)
            return brought

        return self.run(work)

    @property
    def refreshes(self) -> int:
        return self.provider.state.token_calls["refresh_token"]

    def refuse(self, count: int) -> None:
        """Let the provider take the next tokens for spent."""
        self.provider.state.next_token_answers += [instead(400, DEAD)] * count

    def grants(self) -> dict[str, dict[str, Any]]:
        return {row["user_id"]: row for row in rows(self.settings, "grants")}


@pytest.fixture
def drill(settings: Settings, clock: Clock) -> Iterator[Drill]:
    settings = settings.model_copy(update={"refresher": False})
    made = new_project(settings)
    with practice_provider(settings.public_url) as provider:
        drill = Drill(settings, provider, Backend(settings.public_url, made.project_id, made.management_key))
        with drill.served():
            drill.backend.create_app(provider.registration)
        yield drill
        drill.backend.http.close()


USERS = [f"user-{n}" for n in range(7)]


@pytest.fixture
def crowd(drill: Drill) -> Drill:
    """Seven users whose access tokens have ended; the database came back from a backup."""
    with drill.served():
        drill.connect(*USERS)
    assert drill.mark().in_doubt == len(USERS)
    for user in USERS:
        expire(drill.settings, user)
    return drill


def test_a_restored_backup_sends_no_crowd_of_spent_tokens_to_a_provider(crowd: Drill) -> None:
    crowd.refuse(100)
    assert crowd.let_background_work() == [1, 0, 0]
    ended = [row for row in crowd.grants().values() if row["status"] == "reauthorization_required"]
    assert len(ended) == 1
    assert "came back from a backup" in ended[0]["last_refresh_error"]


def test_credentials_that_stay_are_not_in_doubt(drill: Drill) -> None:
    with drill.served():
        app = {"id": "clients", "name": "Clients", "appType": "client_credentials", "clientId": "ours"}
        drill.backend.create_app({**app, "tokenUrl": f"{drill.provider.url}/token"})
        drill.connect(*USERS[:1])
    uploads = {user: Uploaded({"client_id": user, "client_secret": "s"}) for user in USERS}
    upload_credentials(drill.settings, drill.backend.project_id, "clients", uploads)
    assert drill.mark().in_doubt == 1


def test_without_a_restore_the_background_refreshes_all_that_is_due(drill: Drill) -> None:
    with drill.served():
        drill.connect(*USERS)
    for user in USERS:
        expire(drill.settings, user, ", next_refresh_at = '{past}'")
    assert drill.let_background_work() == [len(USERS), 0, 0]


def test_while_the_provider_accepts_what_came_back_more_are_tried_at_once(crowd: Drill) -> None:
    assert crowd.let_background_work(4) == [1, 2, 4, 0]
    assert [row["restored_at"] for row in crowd.grants().values()] == [None] * len(USERS)
    assert not [row for row in rows(crowd.settings, "outbound_apps") if row["restored_pace"] is not None]


def test_whoever_waits_gets_a_try_of_their_own_and_an_accepted_one_lets_the_background_go_on(crowd: Drill) -> None:
    crowd.refuse(1)
    assert crowd.let_background_work() == [1, 0, 0]
    (first,) = [user for user, row in crowd.grants().items() if row["status"] == "reauthorization_required"]
    other = next(user for user in USERS if user != first)
    with crowd.served():
        refused = crowd.backend.fetch(first)
        assert refused.status_code == 404
        assert "backup" in refused.text
        assert crowd.backend.fetch(other).status_code == 200
    assert crowd.let_background_work(4) == [1, 2, 2, 0]


def test_those_that_were_let_in_stay_away_once_the_provider_has_refused_one(crowd: Drill) -> None:
    execute(crowd.settings, "UPDATE outbound_apps SET restored_pace = 4")
    crowd.run(let_some_be_tried)
    execute(crowd.settings, "UPDATE outbound_apps SET restored_pace = 0")  # another process's was refused
    assert crowd.let_background_work() == [0, 0, 0]
    assert {row["next_refresh_at"] for row in crowd.grants().values()} == {None}


def test_no_other_way_leads_a_crowd_of_restored_connections_to_the_provider(crowd: Drill) -> None:
    crowd.refuse(100)
    assert crowd.let_background_work(1) == [1]

    async def replan(broker: Broker) -> None:
        await plan_anew(broker, await load_app(broker, crowd.backend.project_id, APP_ID))

    crowd.run(replan)
    assert crowd.let_background_work() == [0, 0, 0]


def test_what_still_works_is_handed_out_as_ever_and_the_provider_is_not_asked(drill: Drill) -> None:
    with drill.served():
        drill.connect("alice")
        token = drill.backend.token("alice")
    assert drill.mark().in_doubt == 1
    with drill.served():
        assert drill.backend.token("alice")["accessToken"] == token["accessToken"]
        drill.let_background_work()
    assert drill.refreshes == 0


def test_what_is_certain_to_be_good_is_not_in_doubt(drill: Drill) -> None:
    with drill.served():
        drill.connect("alice")
    stable = next(t for t in load_catalogue(None).values() if t.refresh_token_rotation == "stable")
    of_that_provider = f"template_id = '{stable.id}', token_url = '{stable.token_endpoint}'"
    execute(drill.settings, f"UPDATE outbound_apps SET {of_that_provider}")
    assert drill.mark().in_doubt == 0
    execute(drill.settings, "UPDATE outbound_apps SET token_url = 'https://moved.example/token'")
    assert drill.mark().in_doubt == 1


def test_nobody_holds_what_they_held_when_the_backup_was_taken(drill: Drill) -> None:
    with drill.served():
        drill.connect("alice")
    held = "lease_owner = 'x', lease_until = consented_at, interrupted_at = consented_at"
    execute(drill.settings, f"UPDATE grants SET {held}")
    drill.mark()
    alice = drill.grants()["alice"]
    assert (alice["lease_owner"], alice["lease_until"], alice["interrupted_at"]) == (None, None, None)


async def entry_with(broker: Broker, seen_version: int, token: str) -> Entry:
    """An answer that is sealed for alice's connection, as a process writes it into its journal."""
    async with broker.database.read() as session:
        grant = (await session.scalars(select(Grant))).one()
    values: dict[str, object] = {"token_version": seen_version + 1, "restored_at": None}
    for column in ("access_token", "refresh_token"):
        slot = token_slot(owner_of(grant), grant.id, column)
        values[column] = await broker.vault.seal(slot, SecretStr(f"{token}-{column}"))
    return Entry(grant.project_id, grant.id, "owner", seen_version, values)


def test_a_journals_newer_answer_lands_on_a_restored_row_and_an_older_one_never(drill: Drill) -> None:
    with drill.served():
        drill.connect("alice")
    execute(drill.settings, "UPDATE grants SET token_version = 5")
    drill.mark()
    assert drill.grants()["alice"]["token_version"] == 5 + VERSIONS_APART

    async def landed(broker: Broker, seen_version: int) -> str:
        journal = Journal(drill.settings.data_dir / "journal")
        assert journal.write(await entry_with(broker, seen_version, f"of-{seen_version}"))
        await replay_journal(broker)
        assert list((drill.settings.data_dir / "journal").iterdir()) == []
        async with broker.database.read() as session:
            grant = (await session.scalars(select(Grant))).one()
        assert grant.access_token is not None
        slot = token_slot(owner_of(grant), grant.id, "access_token")
        return (await broker.vault.open(slot, grant.access_token)).get_secret_value()

    def land(seen_version: int) -> str:
        return drill.run(lambda broker: landed(broker, seen_version))

    before = land(4)
    assert before != "of-4-access_token", "the backup has a newer one"
    assert land(9) == "of-9-access_token", "this one was got after the backup"
    assert drill.grants()["alice"]["restored_at"] is None
    for seen in (9, 10, 12):
        assert land(seen) == "of-9-access_token", "of another life"


def test_a_project_that_was_deleted_since_is_deleted_again(drill: Drill, evergrant: Evergrant, tmp_path: Path) -> None:
    other = new_project(drill.settings).project_id
    file = tmp_path / "backup.db"
    if drill.settings.uses_sqlite:
        assert evergrant(drill.settings, "backup", str(file)).code == 0
        assert evergrant(drill.settings, "projects", "delete", other, "--yes").code == 0
        done = evergrant(drill.settings, "restore", str(file))
    else:
        done = evergrant(drill.settings, "restore", "--mark-only", "--shredded", other)
    assert done.code == 0, done.err
    assert f"Project {other} was deleted since" in done.out
    assert {row["project_id"] for row in rows(drill.settings, "data_keys")} == {drill.backend.project_id}
    (shown,) = evergrant(drill.settings, "projects", "deletion", other, "--json").json
    assert shown["shredded"]
    assert shown["destroyed"]
    assert {row["problem"] for row in evergrant(drill.settings, "audit", "verify", "--json").json} == {""}
    with drill.served():
        assert drill.backend.get(f"app/{APP_ID}").status_code == 200


def of_sqlite(drill: Drill) -> Path:
    return drill.settings.data_dir / "evergrant.db"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_drill_brings_everybody_back_and_finds_out_who_is_lost(
    drill: Drill, evergrant: Evergrant, tmp_path: Path
) -> None:
    file = tmp_path / "backup.db"
    with drill.served():
        drill.connect("alice", "bob")
        saved = evergrant(drill.settings, "backup", str(file))
        assert (saved.code, stat.S_IMODE(file.stat().st_mode)) == (0, 0o600)
        expire(drill.settings, "alice")
        drill.backend.token("alice")  # her refresh token is another one now, and the backup does not have it
        drill.connect("carol")
        refused = evergrant(drill.settings, "restore", str(file))
        assert refused.code == 1
        assert "stop every 'evergrant serve'" in refused.err
        assert drill.backend.fetch("carol").status_code == 200
    done = evergrant(drill.settings, "restore", str(file))
    assert (done.code, "2 connections are in doubt" in done.out) == (0, True), done.err
    assert sorted(drill.grants()) == ["alice", "bob"]
    for user in ("alice", "bob"):
        expire(drill.settings, user)
    with drill.served():
        assert drill.backend.fetch("bob").status_code == 200
        assert "backup" in drill.backend.fetch("alice").text
    (kept,) = drill.settings.data_dir.glob("evergrant.db.replaced-*")
    with closing(sqlite3.connect(kept)) as replaced:
        users = {row[0] for row in replaced.execute("SELECT user_id FROM grants")}
    assert users == {"alice", "bob", "carol"}
    assert [path.name for path in drill.settings.data_dir.glob("evergrant.db.restoring*")] == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_stolen_backup_has_no_master_key_and_nothing_that_was_deleted(
    drill: Drill, evergrant: Evergrant, tmp_path: Path
) -> None:
    other = new_project(drill.settings).project_id
    (wrapped,) = [row["wrapped"] for row in rows(drill.settings, "data_keys") if row["project_id"] == other]
    before, after = tmp_path / "before.db", tmp_path / "after.db"
    evergrant(drill.settings, "backup", str(before))
    deleted = b"what was deleted and lies in free space " * 3
    with closing(sqlite3.connect(of_sqlite(drill), isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")  # as many builds of SQLite have it
        connection.execute("UPDATE projects SET name = ?", (deleted.decode(),))
        connection.execute("UPDATE projects SET name = 'Shop'")
    assert deleted in of_sqlite(drill).read_bytes()
    assert evergrant(drill.settings, "projects", "delete", other, "--yes").code == 0
    evergrant(drill.settings, "backup", str(after))
    assert wrapped in before.read_bytes(), "a backup of before has it: until that one is gone, so is not the key"
    assert wrapped not in after.read_bytes()
    assert deleted not in after.read_bytes()
    assert drill.settings.master_keys is not None
    assert drill.settings.master_keys.get_secret_value().encode() not in after.read_bytes()
    assert evergrant(drill.settings, "backup", str(after)).code == 1, "a backup is never overwritten"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("kind", ["missing", "no database", "a plain copy", "cut off", "damaged", "newer"])
def test_what_is_no_whole_backup_of_ours_changes_nothing(
    drill: Drill, evergrant: Evergrant, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "backup.db"
    assert evergrant(drill.settings, "backup", str(file)).code == 0
    before = rows(drill.settings, "projects")
    match kind:
        case "missing":
            file.unlink()
        case "no database":
            file.write_text("hello")
        case "a plain copy":
            shutil.copy(of_sqlite(drill), file)
        case "cut off":
            file.write_bytes(file.read_bytes()[:20_000])
        case "damaged":
            text = bytearray(file.read_bytes())
            text[8192:12288] = bytes(4096)
            file.write_bytes(text)
        case "newer":
            with closing(sqlite3.connect(file)) as connection, connection:
                connection.execute("UPDATE alembic_version SET version_num = '9999'")
    done = evergrant(drill.settings, "restore", str(file))
    assert (done.code, done.out) == (1, "")
    assert rows(drill.settings, "projects") == before
    assert not list(drill.settings.data_dir.glob("evergrant.db.re*"))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_nobody_marks_a_database_that_is_in_use(drill: Drill, evergrant: Evergrant) -> None:
    with drill.served():
        drill.connect("alice")
        expire(drill.settings, "alice")
        drill.backend.token("alice")  # the first lease shows the process in the database
        refused = evergrant(drill.settings, "restore", "--mark-only")
    assert refused.code == 1
    assert "stop every 'evergrant serve'" in refused.err
    assert evergrant(drill.settings, "restore", "--mark-only").code == 0
    assert evergrant(drill.settings, "backup", "x.db").code == 1
