"""The journal: an answer that could not be stored, for an outage or a kill, still lands."""

import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update

from evergrant.broker.journal import Entry, Journal
from evergrant.broker.landing import replay
from evergrant.broker.runtime import open_broker
from evergrant.crypto.sealed import Sealed
from evergrant.db import Grant, GrantStatus
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import APP_ID, SCOPES, Installation, installation
from tests.infra.postgres import PostgresServer
from tests.infra.replicas import Replicas, replicas_on

FETCH: dict[str, Any] = {"appId": APP_ID, "userId": "alice", "scopes": SCOPES}
ENTRY = Entry(
    project_id="P1",
    grant_id="g1",
    lease_owner="owner",
    seen_version=3,
    values={
        "access_token": Sealed(b"\x01ciphertext"),
        "expires_at": datetime(2026, 11, 24, 12, 0, 0, 123, UTC),
        "fresh_until": None,
        "scopes": ["a", "b"],
        "token_version": 4,
    },
)


def test_an_entry_is_read_as_it_was_written_and_only_by_its_owner(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert list(journal.entries()) == []
    file = journal.write(ENTRY)
    assert file is not None
    assert list(journal.entries()) == [(file, ENTRY)]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    journal.forget(file)
    assert list(journal.entries()) == []
    journal.forget(file)  # somebody else may have been faster


def test_only_what_is_old_enough_is_taken_up_while_others_are_still_trying(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(ENTRY)
    assert list(journal.entries(older_than=time.time() - 60)) == []
    assert len(list(journal.entries(older_than=time.time() + 60))) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"values": {}}', '{"values": {"access_token": {"sealed": "%"}}}'])
def test_a_file_that_cannot_be_read_is_put_aside_and_stops_nothing(tmp_path: Path, text: str) -> None:
    journal = Journal(tmp_path)
    (tmp_path / "0.json").write_text(text)
    file = journal.write(ENTRY)
    assert [found for found, _ in journal.entries()] == [file]
    assert [path.name for path in tmp_path.glob("*.broken")] == ["0.broken"]


def test_where_the_journal_cannot_be_written_the_landing_goes_on_without(settings: Settings, clock: Clock) -> None:
    with installation(settings.model_copy(update={"refresher": False})) as here:
        here.connected("alice")
        (settings.data_dir / "journal").write_text("a file where the folder should be")
        clock.advance(3601)
        assert here.backend.token("alice")["lastRefreshTime"] == str(int(clock.now.timestamp()))


@pytest.fixture
def here(settings: Settings) -> Iterator[Installation]:
    with installation(settings.model_copy(update={"refresher": False})) as running:
        running.connected("alice")
        yield running


async def test_an_entry_lands_once_and_on_the_row_that_it_was_got_with(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        async with broker.database.read() as session:
            grant = (await session.scalars(select(Grant))).one()
        entry = Entry(
            grant.project_id,
            grant.id,
            "a process that is dead",
            grant.token_version,
            {"token_version": grant.token_version + 1, "last_refresh_error": "landed"},
        )

        async def state() -> tuple[int, str, str | None]:
            async with broker.database.read() as session:
                row = (await session.scalars(select(Grant))).one()
            return row.token_version, row.last_refresh_error, row.lease_owner

        async def set_row(**values: Any) -> None:
            async with broker.database.write() as session:
                await session.execute(update(Grant).values(**values))

        # its own lease goes with it
        await set_row(lease_owner="a process that is dead")
        broker.journal.write(entry)
        assert await replay(broker) == 1
        assert await state() == (grant.token_version + 1, "landed", None)
        # the same again is out of date, and is forgotten
        await set_row(last_refresh_error="")
        broker.journal.write(entry)
        assert await replay(broker) == 0
        assert await state() == (grant.token_version + 1, "", None)
        # somebody who is refreshing now keeps the lease, and will find the newer tokens
        await set_row(lease_owner="somebody else")
        broker.journal.write(replace(entry, seen_version=grant.token_version + 1))
        assert await replay(broker) == 1
        assert (await state())[2] == "somebody else"
        # an ended consent is not revived
        await set_row(status=GrantStatus.REAUTHORIZATION_REQUIRED, last_refresh_error="dead")
        broker.journal.write(entry)
        assert await replay(broker) == 0
        assert (await state())[1] == "dead"
        assert list(broker.journal.entries()) == []


class Outage:
    """One server process on PostgreSQL whose database goes away when the provider has been asked."""

    def __init__(self, running: Replicas, postgres: PostgresServer, *, database: str, journal: Path) -> None:
        (self.server,), (self.backend,), self.provider = running.servers, running.backends, running.provider
        self.database = database
        self._postgres = postgres
        self._journal = journal

    def begin(self) -> None:
        self._postgres.execute(f'ALTER DATABASE "{self.database}" ALLOW_CONNECTIONS false')
        self._postgres.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.database}'"
        )

    def end(self) -> None:
        self._postgres.execute(f'ALTER DATABASE "{self.database}" ALLOW_CONNECTIONS true')

    def ask_while_it_begins(self) -> None:
        """Fetch an expired token; the provider rotates, and meanwhile the database goes."""
        self.provider.state.token_latency = 1.0
        self.provider.state.access_token_seconds = 3600
        time.sleep(2.1)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.backend.http.post, "/v1/mgmt/outbound/app/user/token", json=FETCH, timeout=4)
            while not self.provider.state.rotations:
                time.sleep(0.02)
            self.begin()
            with suppress(httpx2.HTTPError):
                asked.result()

    @property
    def waiting(self) -> list[Path]:
        return list(self._journal.glob("*.json"))


@pytest.fixture
def outage(postgres_server: PostgresServer, postgresql_url: str, data_dir: Path, tmp_path: Path) -> Iterator[Outage]:
    name = postgresql_url.split("?")[0].rsplit("/", 1)[1]
    with replicas_on(postgresql_url, data_dir=data_dir, logs=tmp_path, count=1) as running:
        made = Outage(running, postgres_server, database=name, journal=data_dir / "journal")
        try:
            yield made
        finally:
            made.end()


def fetched_fresh(outage: Outage) -> bool:
    answer = outage.backend.post("app/user/token", FETCH)
    state = outage.provider.state
    once = (state.token_calls["refresh_token"], state.rotations, state.reuse_detections) == (1, 1, 0)
    return answer.status_code == 200 and once and not state.revoked_families


def test_an_answer_survives_the_database_being_away_when_it_comes(outage: Outage) -> None:
    outage.ask_while_it_begins()
    time.sleep(1.0)
    assert len(outage.waiting) == 1
    outage.end()
    time.sleep(2.5)  # the landing tries every two seconds at most
    assert fetched_fresh(outage)
    assert outage.waiting == []


def test_an_answer_survives_a_kill_while_the_database_is_away(outage: Outage) -> None:
    outage.ask_while_it_begins()
    time.sleep(0.5)
    outage.server.kill()
    assert len(outage.waiting) == 1
    outage.end()
    outage.server.start()
    assert outage.waiting == []
    assert fetched_fresh(outage)
