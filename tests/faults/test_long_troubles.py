"""What keeps the holder of answers from the database for longer than a lease, while others are asked for the same.

Everything that evergrant times is as many times faster as `SCALE` says.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import pytest

from evergrant.pace import Pace
from tests.faults.cluster import SCALE, Cluster, Consents, cluster_of_processes, locked, together
from tests.faults.conftest import Book
from tests.faults.ledger import Ledger
from tests.infra.cable import Cable
from tests.infra.databases import fresh_postgres_database
from tests.infra.postgres import PostgresServer
from tests.infra.settings import settings_on
from tests.infra.waiting import PATIENCE, wait_until

COUNT = 10
LONGER_THAN_A_LEASE = Pace().faster(SCALE).lease * 1.25
TAKEOVER_SECONDS = 30
"""Longer than anything here but a process that never comes back."""
HOLDER, OTHER = 0, 1

pytestmark = pytest.mark.slow


@dataclass
class Stage:
    """Two replicas, each with a cable of its own to the database."""

    cluster: Cluster
    cables: list[Cable]

    def asked_by_the_holder(self) -> Consents:
        """Return connections whose refresh the holder has asked the provider for, which does not answer yet."""
        self.cluster.state.held = True
        consents = self.cluster.consents(COUNT)
        consents.set_off(at=HOLDER)
        return consents

    def answer(self, consents: Consents) -> None:
        """Let the provider answer."""
        self.cluster.state.held = False
        wait_until(lambda: not consents.on_the_wire, "the provider has answered")

    @contextmanager
    def others_ask(self, consents: Consents) -> Iterator[None]:
        """Have the other replica asked for these connections all the while, and until everything has landed."""
        over = threading.Event()

        def ask(user: str) -> None:
            while not over.wait(0.2):
                answer = consents.fetch(user, at=OTHER)
                assert answer.status_code in (200, 503), answer.text
                assert answer.status_code == 200 or int(answer.headers["retry-after"]) > 0

        with ExitStack() as stack:
            asking = threading.Thread(target=lambda: together([partial(ask, user) for user in consents.users]))
            asking.start()
            stack.callback(asking.join, PATIENCE)
            stack.callback(over.set)
            yield
            wait_until(lambda: consents.landed == set(consents.users), "everything has landed")


@pytest.fixture(scope="module")
def shared_stage(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("long")
    with ExitStack() as stack:
        url = stack.enter_context(fresh_postgres_database(postgres_server))
        name = urlsplit(url).path.removeprefix("/")
        cables = [Cable(postgres_server), Cable(postgres_server)]
        for cable in cables:
            stack.callback(cable.remove)
        settings = settings_on(url, folder / "data", takeover_seconds=TAKEOVER_SECONDS)
        urls = [cable.url(name) for cable in cables]
        replicas = cluster_of_processes(settings, 2, logs=folder, faster=SCALE, apart=True, database_urls=urls)
        yield Stage(stack.enter_context(replicas), cables)


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    for cable in shared_stage.cables:
        cable.mend()
    for server in shared_stage.cluster.servers:
        server.start()
    yield shared_stage
    shared_stage.cluster.good_day()


@pytest.mark.parametrize("way", ["cut", "hangs"])
def test_a_holder_that_is_cut_off_from_the_database_lands_when_it_is_back(stage: Stage, book: Book, way: str) -> None:
    consents = stage.asked_by_the_holder()
    cable = stage.cables[HOLDER]
    (cable.cut if way == "cut" else cable.hang)()
    stage.answer(consents)
    with stage.others_ask(consents):
        time.sleep(LONGER_THAN_A_LEASE)
        assert consents.landed == set()
        cable.mend()
    assert book(consents.ledger(at=OTHER)) == Ledger.clean(COUNT)


def test_answers_wait_for_a_table_that_is_locked_for_longer_than_a_lease(stage: Stage, book: Book) -> None:
    consents = stage.asked_by_the_holder()
    with locked(stage.cluster.settings, "grants"):
        stage.answer(consents)
        time.sleep(LONGER_THAN_A_LEASE)
    with stage.others_ask(consents):
        pass
    assert book(consents.ledger(at=OTHER)) == Ledger.clean(COUNT)


def test_what_a_killed_process_held_that_never_comes_back_is_taken_over_in_the_end(stage: Stage, book: Book) -> None:
    """The provider forgives repeats: at a strict one the consents would end, and say why."""
    consents = stage.asked_by_the_holder()
    stage.cluster.servers[HOLDER].kill()
    stage.cluster.state.forgives_repeats = True
    stage.answer(consents)
    with stage.others_ask(consents):
        pass
    assert consents.times_presented() == {2}
    ledger = book(consents.ledger(in_doubt=consents.users, at=OTHER))
    assert ledger == Ledger(grants=COUNT, landed=COUNT, calls=2 * COUNT, in_doubt=COUNT, fresh=COUNT)
