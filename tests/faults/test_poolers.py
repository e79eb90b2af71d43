"""PgBouncer between evergrant and its database: lending a connection for one transaction, or for a session."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from evergrant.broker.runtime.broker import open_database
from evergrant.settings import Settings
from tests.faults.cluster import cluster_of_processes, together
from tests.faults.conftest import Book
from tests.faults.ledger import Ledger
from tests.infra.databases import fresh_postgres_database
from tests.infra.pgbouncer import PgBouncer
from tests.infra.postgres import PostgresServer
from tests.infra.settings import settings_on

USERS = 30
ROUNDS = 3
AT_ONCE = 12
SIZE = {"transaction": 5, "session": 100}
"""How many connections there are: in session mode each of evergrant's own keeps one."""


@pytest.fixture(params=["transaction", "session"])
def pooled(request: pytest.FixtureRequest, postgres_server: PostgresServer, data_dir: Path) -> Iterator[Settings]:
    """Settings of an installation that reaches its database through PgBouncer in this mode."""
    with (
        fresh_postgres_database(postgres_server) as url,
        PgBouncer(postgres_server, mode=request.param, size=SIZE[request.param]) as pgbouncer,
    ):
        yield settings_on(pgbouncer.url(url.partition("@/")[2].partition("?")[0]), data_dir)


@pytest.mark.slow
def test_two_processes_work_under_load_behind_a_pooler(pooled: Settings, tmp_path: Path, book: Book) -> None:
    with cluster_of_processes(pooled, 2, logs=tmp_path) as cluster:
        for _ in range(ROUNDS):
            consents = cluster.consents(USERS)
            calls = [partial(consents.fetch, user, at=at) for user in consents.users for at in (0, 1, 0, 1)]
            answers = together(calls, threads=AT_ONCE)
            assert {answer.status_code for answer in answers} == {200}
            assert book(consents.ledger()) == Ledger.clean(USERS)
        assert [server.output() for server in cluster.servers] == ["", ""]


async def test_a_pooler_is_found_out_and_told(pooled: Settings) -> None:
    database = open_database(pooled)
    assert database.kind == "PostgreSQL"
    await database.ping()
    assert database.kind == "PostgreSQL behind a connection pooler"
    await database.dispose()


async def test_without_a_pooler_none_is_found(settings: Settings) -> None:
    database = open_database(settings)
    await database.ping()
    assert database.kind in ("PostgreSQL", "SQLite")
    await database.dispose()


async def test_a_pooler_may_be_said_outright(pooled: Settings) -> None:
    for said, kind in (("transaction", "PostgreSQL behind a connection pooler"), ("none", "PostgreSQL")):
        database = open_database(pooled.model_copy(update={"database_pooler": said}))
        await database.ping()
        assert database.kind == kind
        await database.dispose()
