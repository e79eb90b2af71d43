"""What every test may ask for: a real, migrated database, settings for it, and the clock."""

import functools
import gc
import os
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpcore2
import hypothesis
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from evergrant import clock as wall_clock
from evergrant.broker.operations import doctor_postgresql
from evergrant.settings import Settings
from tests.infra import statements
from tests.infra.databases import TEMPLATE, fresh_postgres_database, fresh_sqlite_database, migrate
from tests.infra.least_covered import write_least_covered
from tests.infra.ledgers import write_ledgers
from tests.infra.people import someone
from tests.infra.postgres import PostgresServer
from tests.infra.settings import settings_on

# An example that waits for a database, on a machine that other workers share, says nothing by taking long.
hypothesis.settings.register_profile("house", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("house")

# Reading the machine's certificate authorities takes 20 ms, and every new HTTP client does it. The tests make thousands
# and speak to this machine alone: one reading will do.
setattr(httpcore2, "default_ssl_context", functools.cache(httpcore2.default_ssl_context))  # noqa: B010 - not for mypy


statements.listen()

DATABASES = ("sqlite", "postgresql")
FACES = ("web", "trips", "sdk", "console", "cli", "attacks", "calls", "mcp")
"""The folders of tests that look at a whole installation from outside."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make everywhere` ask for all."""
    parser.addoption("--everywhere", action="store_true", help="run each test of a face on both databases")


gc.disable()  # until all tests are collected: they stay, and to look them through again and again takes seconds


def pytest_collection_finish() -> None:
    """Let the collector run from here on, but never look at the tests themselves."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Spread the tests of faces over the databases, and begin with what takes longest.

    What a test of a face asks goes through calls that many others make too, so each runs on one database, always the
    same: half of them on either. Everything else runs on both. xdist hands out whole files, in the order of their first
    tests: no worker is left alone with what takes long at the end.
    """
    if not config.getoption("everywhere"):
        left_out = _second_of_each_pair(items)
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _second_of_each_pair(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return one of each two tests of a face that differ in their database alone."""
    pairs: dict[str, dict[str, pytest.Item]] = {}
    for item in items:
        databases = [one for one in DATABASES if one in re.split(r"[\[\]-]", item.name)]
        if databases and item.path.parent.name in FACES:
            pairs.setdefault(item.nodeid.replace(databases[0], ""), {})[databases[0]] = item
    return [
        pair[DATABASES[zlib.crc32(what.encode()) % 2]] for what, pair in pairs.items() if len(pair) == len(DATABASES)
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what became of every grant in the faults, and where the tests reach least."""
    write_ledgers(terminalreporter)
    write_least_covered(terminalreporter)


class Clock:
    """The time as `evergrant.clock.now` tells it; it stands still until a test moves it."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def advance(self, seconds: float) -> datetime:
        """Move on by `seconds`, or back by a negative number, and return the new time."""
        self.now += timedelta(seconds=seconds)
        return self.now

    def utcnow(self) -> datetime:
        return self.now


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("EVERGRANT_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_statement_beyond_the_list() -> Iterator[None]:
    """Hold every statement to what distributed databases share: see docs/scale.md."""
    yield
    assert statements.outside_the_list() == [], "deploy/sql/features.toml does not list it"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock, stopped now, at a whole second."""
    stopped = Clock(datetime.now(UTC).replace(microsecond=0))
    monkeypatch.setattr(wall_clock, "now", stopped.utcnow)
    return stopped


@pytest.fixture
def user() -> str:
    """A user whom no other test has connected."""
    return someone()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test process, with a migrated template database."""
    server = PostgresServer()
    try:
        server.start()
        migrate(server.create_database(TEMPLATE))
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database that nobody is connected to."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The data folder of `settings`."""
    path = tmp_path / "data"
    path.mkdir()
    return path


@pytest.fixture
def postgresql_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh, migrated PostgreSQL database."""
    with fresh_postgres_database(postgres_server) as url:
        yield url


@pytest.fixture
def sqlite_url(migrated_sqlite_file: Path, data_dir: Path) -> str:
    """A fresh, migrated SQLite database."""
    return fresh_sqlite_database(migrated_sqlite_file, data_dir)


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh, migrated database; the test runs once on each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def settings(database_url: str, data_dir: Path) -> Settings:
    """Settings of a loopback trial on `database_url`; `model_copy(update=...)` changes some."""
    # No limit, because every browser and every wrong key of a test comes from one address.
    return settings_on(database_url, data_dir)


@pytest.fixture
def safe_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the doctor see a PostgreSQL that forgets nothing: the tests' servers are fast instead."""
    asked = doctor_postgresql.asked

    async def asked_of_a_safe_server(connection: AsyncConnection) -> Any:
        on = dict.fromkeys((*doctor_postgresql.MUST_BE_ON, "autovacuum"), "on")
        return SimpleNamespace(**{**(await asked(connection))._mapping, **on})

    monkeypatch.setattr(doctor_postgresql, "asked", asked_of_a_safe_server)
