"""What every fault is given: somewhere to write its ledger, and replicas that are shared."""

from collections.abc import Callable, Iterator

import pytest

from tests.faults.clocks import Clocks
from tests.faults.cluster import SCALE, Cluster, cluster_of_processes
from tests.faults.ledger import Ledger
from tests.infra.databases import fresh_postgres_database
from tests.infra.ledgers import PROPERTY
from tests.infra.postgres import PostgresServer
from tests.infra.settings import settings_on

Book = Callable[[Ledger], Ledger]


@pytest.fixture
def book(record_property: Callable[[str, object], None]) -> Book:
    """Write a ledger into the report, so that it is printed at the end of the run, and return it."""

    def write(ledger: Ledger) -> Ledger:
        record_property(PROPERTY, dict(zip(Ledger.headings(), ledger.columns(), strict=True)))
        return ledger

    return write


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of the test's own, which it may take away."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Clocks:
    """The clocks of the replicas, right until a test makes them wrong."""
    return Clocks(tmp_path_factory.mktemp("clocks"), count=3)


@pytest.fixture(scope="session")
def shared_replicas(
    postgres_server: PostgresServer, clocks: Clocks, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("replicas")
    with fresh_postgres_database(postgres_server) as url:
        settings = settings_on(url, folder / "data")
        with cluster_of_processes(settings, 3, logs=folder, faster=SCALE, clock_offsets=clocks.files) as cluster:
            yield cluster


@pytest.fixture
def replicas(shared_replicas: Cluster) -> Iterator[Cluster]:
    """Three replicas on PostgreSQL, all of them running, and their provider on a good day.

    They take long to start, so all tests of a worker share them.
    """
    for server in shared_replicas.servers:
        server.start()
    yield shared_replicas
    shared_replicas.good_day()
