"""The database goes away between the provider's answer and the write."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from evergrant.settings import Settings
from tests.faults.cluster import Cluster, Consents, cluster_in_this_process, cluster_of_processes
from tests.faults.conftest import Book
from tests.faults.ledger import Ledger
from tests.infra.databases import migrate
from tests.infra.postgres import PostgresServer
from tests.infra.rows import execute
from tests.infra.settings import settings_on
from tests.infra.waiting import wait_until

AT_ONCE = 12


class Absence(Protocol):
    """A way for a database to be away."""

    def begin(self) -> None: ...
    def end(self) -> None: ...


class Stopped:
    """PostgreSQL ends its sessions and stops."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def begin(self) -> None:
        self._server.stop()

    def end(self) -> None:
        self._server.start()


class Locked:
    """Another program keeps the SQLite file to itself, for longer than a writer waits."""

    def __init__(self, file: str) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None, timeout=30)

    def begin(self) -> None:
        self._connection.execute("BEGIN EXCLUSIVE")

    def end(self) -> None:
        self._connection.rollback()


@dataclass
class Outage:
    """One server process whose database goes away when it has asked the provider about all of `consents`."""

    cluster: Cluster
    absence: Absence
    consents: Consents
    away: bool = False

    def begin(self) -> None:
        """Ask, take the database away, and let the provider answer."""
        self.cluster.state.held = True
        self.consents.set_off()
        self.absence.begin()
        self.away = True
        self.cluster.state.held = False
        wait_until(lambda: len(self.in_journal) == AT_ONCE, "every answer is in the journal")

    def end(self) -> None:
        """Bring the database back."""
        if self.away:
            self.absence.end()
            self.away = False

    @property
    def in_journal(self) -> list[Path]:
        """What waits on disk."""
        return list((self.cluster.settings.data_dir / "journal").glob("*.json"))


@pytest.fixture(params=["sqlite", "postgresql"])
def outage(request: pytest.FixtureRequest, data_dir: Path, tmp_path: Path) -> Iterator[Outage]:
    with ExitStack() as stack:
        absence: Absence
        if request.param == "sqlite":
            url = request.getfixturevalue("sqlite_url")
            absence = Locked(url.removeprefix("sqlite:///"))
        else:
            server = PostgresServer()  # of its own: the other tests need theirs
            stack.callback(server.remove)
            server.start()
            url = server.create_database("evergrant")
            migrate(url)
            absence = Stopped(server)
        settings = settings_on(url, data_dir)
        patched = {"evergrant.db.engine.SQLITE_BUSY_SECONDS": 0.5}
        cluster = stack.enter_context(cluster_of_processes(settings, 1, logs=tmp_path, patched=patched))
        made = Outage(cluster, absence, cluster.consents(AT_ONCE))
        stack.callback(made.end)  # a server cannot stop while it waits for a database
        yield made


@pytest.mark.slow
def test_answers_survive_the_database_being_away_for_10_seconds_before_the_write(outage: Outage, book: Book) -> None:
    outage.begin()
    time.sleep(10)
    wait_until(lambda: len(outage.in_journal) == AT_ONCE, "every answer is in the journal")
    outage.end()
    wait_until(lambda: not outage.in_journal, "every answer has landed")
    assert outage.consents.landed == set(outage.consents.users)
    assert book(outage.consents.ledger()) == Ledger.clean(AT_ONCE)


def test_answers_survive_a_database_that_comes_back_without_its_last_commits(settings: Settings, book: Book) -> None:
    """A fail-over to a replica that lagged: the leases are gone, and nobody else has refreshed."""
    with cluster_in_this_process(settings) as cluster:
        cluster.state.held = True
        consents = cluster.consents(AT_ONCE)
        consents.set_off()
        execute(cluster.settings, "UPDATE grants SET lease_owner = NULL, lease_until = NULL")
        cluster.state.held = False
        wait_until(lambda: not consents.on_the_wire, "the answers are there")
        assert book(consents.ledger()) == Ledger.clean(AT_ONCE)


def test_answers_survive_a_sigkill_while_the_database_is_away_and_land_at_the_restart(
    outage: Outage, book: Book
) -> None:
    outage.begin()
    outage.cluster.servers[0].kill()
    outage.end()
    assert outage.consents.landed == set()
    outage.cluster.servers[0].start()
    assert outage.in_journal == []
    assert outage.consents.landed == set(outage.consents.users)
    assert book(outage.consents.ledger()) == Ledger.clean(AT_ONCE)
