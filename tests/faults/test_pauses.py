"""A holder of leases that stands still, and goes on when others have long done its work."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from evergrant.pace import Pace
from tests.faults.cluster import SCALE, Cluster, cluster_of_processes, locked, pause, together
from tests.faults.conftest import Book
from tests.faults.ledger import Ledger
from tests.infra.rows import holders_were_last_seen_long_ago
from tests.infra.settings import settings_on
from tests.infra.waiting import wait_until


@pytest.fixture(params=["sqlite", "postgresql"])
def two_or_more(request: pytest.FixtureRequest, data_dir: Path, tmp_path: Path) -> Iterator[Cluster]:
    """Several servers on one database."""
    if request.param == "postgresql":
        yield request.getfixturevalue("replicas")
        return
    settings = settings_on(request.getfixturevalue("sqlite_url"), data_dir)
    with cluster_of_processes(settings, 2, logs=tmp_path, faster=SCALE) as cluster:
        yield cluster


def test_a_paused_holder_that_goes_on_after_its_lease_does_not_overwrite_newer_tokens(
    two_or_more: Cluster, book: Book
) -> None:
    """It is stopped with calls on the wire, and finds the answers when it goes on. The provider forgives repeats."""
    state, holder = two_or_more.state, two_or_more.servers[0]
    state.held, state.forgives_repeats = True, True
    consents = two_or_more.consents(4)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(consents.fetch, user) for user in consents.users]
        wait_until(lambda: len(consents.on_the_wire) == 4, "the holder's calls are on the wire")
        pause(holder, two_or_more.settings)
        state.held = False
        wait_until(lambda: not consents.on_the_wire, "the holder's answers are on their way")
        holders_were_last_seen_long_ago(two_or_more.settings)
        assert all(together([partial(consents.works, user, at=1) for user in consents.users]))
        stored = consents.rows
        holder.send(signal.SIGCONT)
        assert all(two_or_more.works(future.result()) for future in asked)
    assert consents.rows == stored
    assert book(consents.ledger()) == Ledger.clean(4, calls=8)


@pytest.mark.parametrize("times_as_long", [0.5, 1.1], ids=["within its lease", "past its lease"])
def test_answers_that_come_while_their_holder_is_paused_in_mid_call_land(
    replicas: Cluster, book: Book, times_as_long: float
) -> None:
    """It is stopped for longer than the provider may be silent: a machine that is migrated, or restored."""
    state, holder = replicas.state, replicas.servers[0]
    state.held = True
    consents = replicas.consents(4)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(consents.fetch, user) for user in consents.users]
        wait_until(lambda: len(consents.on_the_wire) == 4, "the holder's calls are on the wire")
        pause(holder, replicas.settings)
        state.held = False
        wait_until(lambda: not consents.on_the_wire, "the answers lie in the holder's sockets")
        time.sleep(Pace().lease / SCALE * times_as_long)
        holder.send(signal.SIGCONT)
        for future in asked:
            future.result()  # whatever these got: they may have waited for too long
    wait_until(lambda: consents.landed == set(consents.users), "the answers have landed")
    assert book(consents.ledger()) == Ledger.clean(4)


def test_a_holder_that_is_paused_before_its_call_does_not_make_it_when_its_lease_is_over(
    replicas: Cluster, book: Book
) -> None:
    """It has taken its leases and waits for the database; when it goes on, its refresh token is long spent."""
    holder = replicas.servers[0]
    consents = replicas.consents(3)
    with ThreadPoolExecutor(3) as pool:
        with locked(replicas.settings, "outbound_apps"):
            late = [pool.submit(consents.fetch, user) for user in consents.users]
            wait_until(lambda: None not in {row.lease_owner for row in consents.rows.values()}, "the holder has leases")
            pause(holder, replicas.settings)
            time.sleep(Pace().lease / SCALE + 0.5)
            holders_were_last_seen_long_ago(replicas.settings)
        assert all(consents.works(user, at=1) for user in consents.users)
        holder.send(signal.SIGCONT)
        assert all(replicas.works(future.result()) for future in late)
    assert book(consents.ledger()) == Ledger.clean(3)
