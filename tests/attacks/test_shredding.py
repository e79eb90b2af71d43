"""A deleted project is gone: nobody gets in, nobody can read what it kept, and the log proves that it went.

Each test has its control: the project works before, or its neighbour does after.
"""

import asyncio
import hashlib
import io
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from sqlalchemy import select, text

from evergrant import clock as wall_clock
from evergrant.broker.access.management_keys import create_key
from evergrant.broker.activity.writing import prune_activity, write_activity
from evergrant.broker.grants.grants import owner_of, token_slot
from evergrant.broker.operations.closed_projects import finish_closed_projects
from evergrant.broker.operations.key_rotation import start_new_data_keys
from evergrant.broker.operations.setup import prepare_database
from evergrant.broker.projects import shredding
from evergrant.broker.projects.shredding import close_project, count_rows, shred_project
from evergrant.broker.projects.trusted_issuers import create_issuer
from evergrant.broker.refresh.due_apps import due_apps
from evergrant.broker.refresh.replay import replay_journal
from evergrant.broker.revocations.revoking import begin_revocations
from evergrant.broker.runtime import opened_keys
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.journal import Journal
from evergrant.broker.runtime.journal_entry import Entry
from evergrant.broker.runtime.worker_pool import WorkerPool
from evergrant.crypto.sealed import Sealed
from evergrant.db import DataKeyRow, Grant, GrantCount
from evergrant.errors import CannotOpenSealed, NotFound
from evergrant.settings import Settings
from tests.cli.conftest import Evergrant
from tests.conftest import Clock
from tests.infra import people
from tests.infra.console import cookie_of, one_time_link
from tests.infra.installation import Backend, Installation, installation, new_project
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.rows import execute, rows
from tests.infra.scripted import ScriptedProvider, serving
from tests.infra.waiting import wait_until

T = TypeVar("T")


@dataclass
class Two:
    """A project that will be deleted, with a connection, and its neighbour with one too."""

    here: Installation
    neighbour: Backend

    @property
    def settings(self) -> Settings:
        return self.here.settings

    @property
    def project(self) -> str:
        return self.here.backend.project_id

    def require_that_the_neighbour_is_well(self) -> None:
        assert self.neighbour.fetch("nora").status_code == 200

    def run(self, work: Callable[[Broker], Awaitable[T]]) -> T:
        """Do something as another process of the installation would."""

        async def run() -> T:
            async with open_broker(self.settings) as broker:
                return await work(broker)

        return asyncio.run(run())

    def nobody_gets_in(self) -> None:
        wait_until(lambda: self.here.backend.fetch().status_code == 401, "the key of the deleted project is refused")


@pytest.fixture
def two(settings: Settings) -> Iterator[Two]:
    with installation(settings.model_copy(update={"refresher": False})) as here:
        here.connected("alice")
        made = new_project(here.settings)
        neighbour = Backend(here.url, made.project_id, made.management_key)
        neighbour.create_app(here.provider.registration)
        here.browser().connect(neighbour.connect_url("nora"))
        yield Two(here, neighbour)
        neighbour.http.close()


def delete(backend: Backend, **fields: Any) -> httpx2.Response:
    return backend.http.post("/v1/mgmt/project/delete", json={"projectId": backend.project_id, **fields})


def records(two: Two, action: str) -> list[dict[str, Any]]:
    return [row for row in rows(two.settings, "audit_events") if row["action"] == action]


def test_a_thief_with_the_database_and_the_master_key_reads_nothing_of_a_deleted_project(
    two: Two, evergrant: Evergrant
) -> None:
    async def opened(broker: Broker) -> dict[str, str]:
        found = {}
        async with broker.database.read() as session:
            grants = list(await session.scalars(select(Grant)))
        for grant in grants:
            assert grant.refresh_token is not None
            slot = token_slot(owner_of(grant), grant.id, "refresh_token")
            try:
                found[grant.user_id] = (await broker.vault.open(slot, grant.refresh_token)).get_secret_value()
            except CannotOpenSealed:
                found[grant.user_id] = "noise"
        return found

    assert "noise" not in two.run(opened).values()
    (wrapped,) = [row["wrapped"] for row in rows(two.settings, "data_keys") if row["project_id"] == two.project]

    async def only_the_keys_go(broker: Broker) -> None:
        await shred_project(broker, two.project, now=wall_clock.now())

    two.run(only_the_keys_go)
    found = two.run(opened)
    assert found["alice"] == "noise"
    assert found["nora"] != "noise"
    files = two.settings.data_dir.glob("evergrant.db*") if two.settings.uses_sqlite else []
    assert not [file for file in files if wrapped in file.read_bytes()], "the database's file still has the key"
    assert evergrant(two.settings, "projects", "delete", two.project, "--yes").code == 0
    assert {row["user_id"] for row in rows(two.settings, "grants")} == {"nora"}
    two.require_that_the_neighbour_is_well()


def test_a_process_that_had_opened_the_keys_opens_nothing_after_a_deletion(two: Two) -> None:
    async def race(broker: Broker) -> None:
        async with broker.database.read() as session:
            grant = (await session.scalars(select(Grant).where(Grant.user_id == "alice"))).one()
        assert grant.access_token is not None
        slot = token_slot(owner_of(grant), grant.id, "access_token")
        await broker.vault.open(slot, grant.access_token)
        await shred_project(broker, two.project, now=wall_clock.now())
        with pytest.raises(CannotOpenSealed):
            await broker.vault.open(slot, grant.access_token)
        with pytest.raises(CannotOpenSealed):
            await broker.vault.reserve(two.project, seals=1)

    two.run(race)


def test_every_running_process_forgets_a_deleted_projects_keys_by_itself(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_keys, "LOOK_SECONDS", 0.0)  # each use looks, as it does once a minute

    async def another_process() -> None:
        async with open_broker(two.settings) as one, open_broker(two.settings) as other:
            async with one.database.read() as session:
                grants = {grant.user_id: grant for grant in await session.scalars(select(Grant))}

            async def open_by_the_other(user: str) -> None:
                grant = grants[user]
                assert grant.access_token is not None
                await other.vault.open(token_slot(owner_of(grant), grant.id, "access_token"), grant.access_token)

            await open_by_the_other("alice")
            await shred_project(one, two.project, now=wall_clock.now())
            with pytest.raises(CannotOpenSealed):
                await open_by_the_other("alice")
            await open_by_the_other("nora")

    asyncio.run(another_process())


def test_nobody_who_had_a_way_in_gets_into_a_deleted_project(two: Two) -> None:
    with serving(Issuer()) as idp:
        people.trust(two.here.backend, idp)
        link = two.here.backend.connect_url("bob")
        assert people.fetch(two.here, idp.access("alice")).status_code == 200
        browser = two.here.browser()
        callback = browser.allow(browser.agree(two.here.backend.connect_url("carol")))
        assert delete(two.here.backend).status_code == 200
        two.nobody_gets_in()
        wait_until(
            lambda: people.fetch(two.here, idp.access("alice")).status_code == 401, "the user's token is refused"
        )
        assert two.here.browser().open(link).status_code >= 400
        ended = browser.open(callback)
        assert ended.status_code == 404, ended.text
        exchange = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": idp.access("alice"),
        }
        asked = httpx2.post(f"{two.here.url}/oauth2/v1/token", data=exchange, trust_env=False)
        assert asked.status_code in (400, 401)
    two.require_that_the_neighbour_is_well()


def test_nothing_says_any_more_who_was_at_a_deleted_projects_pages(two: Two) -> None:
    """Its operators' sessions and links, its users' visits with all that their tokens said, and what was counted."""
    made = {"console_sessions": 1, "console_codes": 1, "portal_sessions": 1, "grant_counts": 1, "activity": 1}
    cookie_of(two.settings, project_id=two.project)
    one_time_link(two.settings, project_id=two.project)
    two.here.backend.post("accounts/session", {"userId": "alice"})
    two.here.backend.fetch("alice")

    async def count(broker: Broker) -> None:
        async with broker.database.write() as session:
            session.add(GrantCount(project_id=two.project, app_id="practice", n=1, counted_at=wall_clock.now()))
        broker.activity.note(two.project, "practice", "connect:started")
        await write_activity(broker)

    def left() -> dict[str, int]:
        return {table: sum(row["project_id"] == two.project for row in rows(two.settings, table)) for table in made}

    two.run(count)
    assert all(n >= made[table] for table, n in left().items()), left()
    assert delete(two.here.backend).status_code == 200

    async def count_late(broker: Broker) -> None:
        broker.activity.note(two.project, "practice", "connect:started")
        await prune_activity(broker, now=wall_clock.now())
        await write_activity(broker)

    two.run(count_late)
    assert left() == dict.fromkeys(made, 0)
    two.require_that_the_neighbour_is_well()


def test_what_a_call_under_way_made_at_the_last_moment_lets_nobody_into_a_deleted_project(two: Two) -> None:
    two.run(lambda broker: close_project(broker, two.project, shred_at=wall_clock.now(), now=wall_clock.now()))

    async def late_key(broker: Broker) -> str:
        async with broker.database.write() as session:
            return (await create_key(session, two.project, name="late", now=wall_clock.now())).text

    late = Backend(two.here.url, two.project, two.run(late_key))
    assert late.fetch().status_code == 401
    late.http.close()
    with serving(Issuer()) as idp:

        async def late_issuer(broker: Broker) -> None:
            keys, now = f"{idp.url}/jwks", wall_clock.now()
            await create_issuer(broker, two.project, issuer=idp.url, audience=AUDIENCE, jwks_url=keys, now=now)

        two.run(late_issuer)
        assert people.fetch(two.here, idp.access("alice")).status_code == 401
    two.require_that_the_neighbour_is_well()


@pytest.mark.parametrize(
    "limits",
    [
        {"permissions": ["keys", "apps:write", "tokens:write"]},
        {"app_ids": ["practice"]},
        {"allowed_cidrs": ["127.0.0.0/8"]},
        {"expires_at": timedelta(hours=1)},
    ],
    ids=["some permissions", "some apps", "some networks", "for an hour"],
)
def test_a_stolen_key_that_is_limited_in_any_way_deletes_no_project(two: Two, limits: dict[str, Any]) -> None:
    if "expires_at" in limits:
        limits = {"expires_at": wall_clock.now() + limits["expires_at"]}

    async def limited(broker: Broker) -> str:
        async with broker.database.write() as session:
            return (await create_key(session, two.project, name="limited", now=wall_clock.now(), **limits)).text

    thief = Backend(two.here.url, two.project, two.run(limited))
    assert delete(thief).status_code == 403
    thief.http.close()
    assert two.here.backend.fetch().status_code == 200
    assert delete(two.here.backend).status_code == 200, "and the key that may do everything can"


def test_nobody_deletes_a_project_by_a_slip_or_from_another_one(
    two: Two, evergrant: Evergrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Issuer()) as idp:
        people.trust(two.here.backend, idp)
        body = {"projectId": two.project}
        assert people.call(two.here, "/v1/mgmt/project/delete", idp.access("alice"), body).status_code == 403
    assert delete(two.neighbour, projectId=two.project).status_code == 400
    assert two.neighbour.http.post("/v1/mgmt/project/delete", json={}).status_code == 400
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{two.neighbour.project_id}\n"))
    asked = evergrant(two.settings, "projects", "delete", two.project)
    assert (asked.code, asked.err) == (1, "evergrant: that is not the id: nothing is deleted\n")
    assert two.here.backend.fetch().status_code == 200
    two.require_that_the_neighbour_is_well()


def test_the_log_proves_which_keys_went_and_still_verifies(two: Two, evergrant: Evergrant) -> None:
    (key,) = [row for row in rows(two.settings, "data_keys") if row["project_id"] == two.project]
    assert delete(two.here.backend).status_code == 200
    (record,) = evergrant(
        two.settings, "audit", "search", "--project", two.project, "--action", "project.shredded", "--json"
    ).json
    assert record["actor"].startswith("key:")
    assert record["data"] == {
        "dataKeys": [{"id": key["id"], "sha256": hashlib.sha256(key["wrapped"]).hexdigest()}],
        "apps": 1,
        "connections": 1,
        "revocations": 0,
    }
    assert evergrant(two.settings, "projects", "delete", two.project, "--yes").code == 0
    (shown,) = evergrant(two.settings, "projects", "deletion", two.project, "--json").json
    assert (shown["dataKeys"], shown["connections"], shown["otherRows"]) == (0, 0, 0)
    assert shown["destroyed"] == [record["data"]["dataKeys"][0]["sha256"]]
    verified = {row["project"]: row["problem"] for row in evergrant(two.settings, "audit", "verify", "--json").json}
    assert verified == {two.project: "", two.neighbour.project_id: ""}
    assert [p["id"] for p in evergrant(two.settings, "projects", "list", "--json").json] == [two.neighbour.project_id]
    everything = evergrant(two.settings, "projects", "list", "--all", "--json").json
    assert [bool(project["shredded"]) for project in everything] == [True, False]


def test_the_id_of_a_deleted_project_never_comes_to_life_again(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    assert delete(two.here.backend).status_code == 200
    again = two.settings.model_copy(
        update={"bootstrap_project_id": two.project, "bootstrap_management_key": two.settings.master_keys}
    )
    asyncio.run(prepare_database(again))
    assert "the bootstrap project was deleted" in caplog.text
    assert {row["project_id"] for row in rows(two.settings, "management_keys")} == {two.neighbour.project_id}
    assert {row["project_id"] for row in rows(two.settings, "data_keys")} == {two.neighbour.project_id}


def test_answers_of_a_deleted_project_are_thrown_away_wherever_they_wait(two: Two, tmp_path: Path) -> None:
    (grant,) = [row for row in rows(two.settings, "grants") if row["user_id"] == "alice"]
    values = {"access_token": Sealed(grant["access_token"]), "token_version": 2}
    entry = Entry(two.project, grant["id"], "owner", 1, values)
    folder = two.settings.data_dir / "journal"
    folder.mkdir(exist_ok=True)
    (folder / "0123456789abcdef.broken").write_text(json.dumps({"project_id": two.project}))
    (folder / "fedcba9876543210.broken").write_text(json.dumps({"project_id": two.neighbour.project_id}))
    assert Journal(folder).write(entry)

    async def shred(broker: Broker) -> None:
        await shred_project(broker, two.project, now=wall_clock.now())
        await finish_closed_projects(broker)
        assert Journal(folder).write(entry)  # one that comes after all that, or lies in another process's folder
        await replay_journal(broker)

    two.run(shred)
    assert [file.name for file in folder.iterdir()] == ["fedcba9876543210.broken"]


def test_a_deletion_that_a_crash_broke_off_is_finished_by_whoever_looks_next(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in ("bob", "carol"):
        two.here.connected(user)
    monkeypatch.setattr(shredding, "BATCH", 2)

    async def crash(broker: Broker) -> None:
        await shred_project(broker, two.project, now=wall_clock.now())
        async for _ in shredding.remove_rows(broker, two.project):
            break
        left = await count_rows(broker, two.project)
        assert (left["grants"], left["outbound_apps"], left["data_keys"]) == (1, 1, 0)
        with pytest.raises(NotFound):
            await shred_project(broker, two.project, now=wall_clock.now())

    two.run(crash)
    two.run(finish_closed_projects)
    assert not any(two.run(lambda broker: count_rows(broker, two.project)).values())
    assert len(records(two, "project.shredded")) == 1
    two.require_that_the_neighbour_is_well()


async def revoke_what_is_due(broker: Broker) -> None:
    pool: WorkerPool[str] = WorkerPool(most=4, most_per_key=1)
    await begin_revocations(broker, pool, asyncio.Event(), now=wall_clock.now())
    await pool.drain()


def test_the_providers_are_told_first_where_that_was_asked_for(two: Two) -> None:
    answer = delete(two.here.backend, revokeFirst=True)
    assert answer.status_code == 200
    assert (answer.json()["shreddedTime"], answer.json()["dataKeys"]) == ("", 0)
    two.nobody_gets_in()
    assert {row["project_id"] for row in rows(two.settings, "data_keys")} >= {two.project}

    async def go_on(broker: Broker) -> None:
        await finish_closed_projects(broker)
        await revoke_what_is_due(broker)
        await finish_closed_projects(broker)

    two.run(go_on)
    assert len(two.here.provider.state.revoked_families) == 1
    assert [row["action"] for row in records(two, "token.revoked")] == ["token.revoked"]
    (record,) = records(two, "project.shredded")
    assert record["actor"] == "evergrant"
    assert not any(two.run(lambda broker: count_rows(broker, two.project)).values())
    two.require_that_the_neighbour_is_well()


def test_a_provider_that_never_answers_does_not_keep_a_projects_secrets_alive(settings: Settings, clock: Clock) -> None:
    silent = ScriptedProvider()
    silent.answers((503, {"error": "temporarily_unavailable"}))
    with installation(settings.model_copy(update={"refresher": False})) as here, serving(silent):
        here.connected("alice")
        here.backend.change_app(
            revocationUrl=f"{silent.url}/revoke", clientSecret="the provider's secret for evergrant"
        )
        assert delete(here.backend, revokeFirst=True, withinHours=2).status_code == 200

        def keys_after(seconds: float) -> int:
            async def go_on() -> None:
                async with open_broker(here.settings) as broker:
                    await finish_closed_projects(broker)

            clock.advance(seconds)
            asyncio.run(go_on())
            return len(rows(here.settings, "data_keys"))

        assert keys_after(3600) == 1
        assert silent.requests
        assert keys_after(3599) == 1
        assert keys_after(2) == 0


def test_nothing_of_a_closed_project_is_refreshed(two: Two) -> None:
    soon = wall_clock.now() + timedelta(days=1)

    async def projects_with_due(broker: Broker) -> set[str]:
        return {app.project_id for app in await due_apps(broker, now=soon)}

    assert two.run(projects_with_due) == {two.project, two.neighbour.project_id}
    assert delete(two.here.backend, revokeFirst=True).status_code == 200
    assert two.run(projects_with_due) == {two.neighbour.project_id}


def test_no_data_key_that_is_just_being_made_outlives_its_project(two: Two) -> None:
    """A process that rolls a data key over, or rotates, at the very moment of the deletion."""

    async def race(broker: Broker) -> None:
        async with open_broker(two.settings) as other:
            async with other.database.write() as session:
                of_project = DataKeyRow.project_id == two.project
                old = (await session.scalars(select(DataKeyRow).where(of_project).with_for_update())).one()
                columns = {column.key: getattr(old, column.key) for column in DataKeyRow.__table__.columns}
                session.add(DataKeyRow(**columns | {"id": "0123456789abcdef"}))
                await session.flush()
                shredding = asyncio.create_task(shred_project(broker, two.project, now=wall_clock.now()))
                while not two.settings.uses_sqlite and not (await session.execute(text(WAITS))).scalar_one():
                    await asyncio.sleep(0.02)  # on SQLite it does not even begin before this has ended
            assert len(await shredding) == 2
        assert await start_new_data_keys(broker, now=wall_clock.now()) == 1, "the neighbour's"
        assert (await count_rows(broker, two.project))["data_keys"] == 0

    two.run(race)
    two.require_that_the_neighbour_is_well()


WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_what_a_call_under_way_still_writes_into_a_deleted_project_goes_too(two: Two) -> None:
    async def shred(broker: Broker) -> None:
        await shred_project(broker, two.project, now=wall_clock.now())
        await finish_closed_projects(broker)

    two.run(shred)
    columns = "project_id, id, issuer, jwks_url, audience, user_claim, tenant_claim, created_at"
    made = "2026-01-01 00:00:00.000000" + ("" if two.settings.uses_sqlite else "+00")
    values = f"'{two.project}', 'late', 'https://idp.example', 'https://idp.example/keys', 'a', 'sub', '', '{made}'"
    execute(two.settings, f"INSERT INTO trusted_issuers ({columns}) VALUES ({values})")
    two.run(finish_closed_projects)
    assert not any(two.run(lambda broker: count_rows(broker, two.project)).values())
