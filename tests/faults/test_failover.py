"""PostgreSQL's primary is lost under load, and its standby takes its place."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster, Consents, cluster_of_processes, together
from tests.faults.conftest import Book
from tests.faults.ledger import Ledger
from tests.infra.databases import migrate
from tests.infra.pair import PostgresPair
from tests.infra.settings import settings_on
from tests.infra.waiting import wait_until

AT_ONCE = 12


@dataclass
class FailingOver:
    """Two processes on a primary and its standby."""

    pair: PostgresPair
    cluster: Cluster

    def journal(self) -> list[Path]:
        return list((self.cluster.settings.data_dir / "journal").glob("*.json"))


@pytest.fixture
def failing_over(data_dir: Path, tmp_path: Path) -> Iterator[FailingOver]:
    with PostgresPair("evergrant") as pair:
        migrate(pair.url)
        with cluster_of_processes(settings_on(pair.url, data_dir), 2, logs=tmp_path) as cluster:
            yield FailingOver(pair, cluster)


@dataclass
class Load:
    """Callers who fetch tokens again and again, from each server in turn, while the `with` block runs."""

    fresh: Consents
    statuses: set[int] = field(default_factory=set)
    served: list[int] = field(default_factory=lambda: [0, 0])
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Load":
        self._threads = [threading.Thread(target=self._fetch, args=(at,)) for at in (0, 1) for _ in range(2)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()

    def _fetch(self, at: int) -> None:
        while not self.over.is_set():
            for user in self.fresh.users:
                status = self.fresh.fetch(user, at=at).status_code
                self.statuses.add(status)
                self.served[at] += status == 200

    def wait_until_served(self) -> None:
        """Wait until both servers have served somebody from now on."""
        before = list(self.served)
        wait_until(lambda: all(now > then for now, then in zip(self.served, before, strict=True)), "both serve")


@pytest.mark.slow
def test_answers_on_the_wire_when_the_primary_is_lost_land_on_the_standby(
    failing_over: FailingOver, book: Book
) -> None:
    cluster, pair = failing_over.cluster, failing_over.pair
    fresh, consents = cluster.consents(6, seconds=3600), cluster.consents(AT_ONCE)
    later = cluster.consents(AT_ONCE)
    with Load(fresh) as load:
        load.wait_until_served()
        cluster.state.held = True
        consents.set_off()
        pair.primary.stop(immediately=True)
        cluster.state.held = False
        wait_until(lambda: len(failing_over.journal()) == AT_ONCE, "every answer is in the journal")
        pair.standby.promote()
        wait_until(lambda: not failing_over.journal(), "every answer has landed")
        load.wait_until_served()
        # The machine that was lost comes back, and its server takes no writes any more.
        pair.primary.start_read_only()
        load.wait_until_served()
        assert together([partial(later.works, user, at=1) for user in later.users]) == [True] * AT_ONCE
    assert load.statuses <= {200, 503}
    assert book(consents.ledger()) == Ledger.clean(AT_ONCE)
    assert book(later.ledger(at=1)) == Ledger.clean(AT_ONCE)
