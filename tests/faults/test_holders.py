"""Holders of leases that are away for longer than their leases last, and others who would like to have them."""

import signal
import time
from functools import partial
from pathlib import Path

import pytest

from evergrant.pace import Pace
from evergrant.settings import Settings
from tests.faults.cluster import SCALE, cluster_of_processes, together
from tests.faults.conftest import Book
from tests.faults.ledger import Ledger
from tests.infra.databases import migrate
from tests.infra.postgres import PostgresServer
from tests.infra.rows import rows
from tests.infra.settings import settings_on
from tests.infra.waiting import wait_until


@pytest.mark.slow
def test_an_outage_longer_than_a_lease_gives_nobody_the_leases_of_those_who_have_answers_to_land(
    own_postgres: PostgresServer, tmp_path: Path, book: Book
) -> None:
    """One replica has the answers, and stands still when the database comes back. The other is there all the while."""
    url = own_postgres.create_database("evergrant")
    migrate(url)
    settings = settings_on(url, tmp_path / "data")
    with cluster_of_processes(settings, 2, logs=tmp_path, faster=SCALE, apart=True) as cluster:
        warm = cluster.consents(2)
        assert all(together([partial(warm.works, user, at=at) for at, user in enumerate(warm.users)]))
        consents = cluster.consents(12)
        cluster.state.held = True
        consents.set_off(at=0)
        own_postgres.stop()
        try:
            cluster.state.held = False
            wait_until(lambda: len(journal_of(settings, 0)) == 12, "the answers are there, and have nowhere to go")
            time.sleep(Pace().lease / SCALE + 1)
            cluster.servers[0].send(signal.SIGSTOP)
        finally:
            own_postgres.start()
        told = partial(consents.fetch, consents.users[0], at=1)
        wait_until(lambda: "is gone" in told().text, "the other knows of no more reason to wait than its patience")
        cluster.servers[0].send(signal.SIGCONT)
        wait_until(lambda: all(together([partial(consents.works, user, at=1) for user in consents.users])), "it works")
        assert consents.times_presented() == {1}
        assert book(consents.ledger(at=1)) == Ledger.clean(12)


def test_what_a_killed_process_held_is_left_to_it_until_it_is_back_and_then_given_back_at_once(
    postgresql_url: str, tmp_path: Path, book: Book
) -> None:
    """Each replica has a data folder of its own, so that the other cannot know. The provider forgives repeats."""
    settings = settings_on(postgresql_url, tmp_path / "data")
    with cluster_of_processes(settings, 2, logs=tmp_path, faster=SCALE, apart=True) as cluster:
        state, killed = cluster.state, cluster.servers[0]
        consents = cluster.consents(4)
        state.held, state.forgives_repeats = True, True
        consents.set_off(at=0)
        killed.kill()
        state.held = False
        wait_until(lambda: not consents.on_the_wire, "the answers came when nobody listened")
        told = partial(consents.fetch, consents.users[0], at=1)
        wait_until(lambda: "is gone" in told().text, "the other says so")
        assert 1 <= int(told().headers["retry-after"]) <= 30
        assert consents.times_presented() == {1}
        assert {row.lease_owner is None for row in consents.rows.values()} == {False}
        killed.start()
        assert {row.lease_owner for row in consents.rows.values()} == {None}
        interrupted = {row["user_id"] for row in rows(settings, "grants") if row["interrupted_at"] is not None}
        assert interrupted == set(consents.users)
        assert all(together([partial(consents.works, user, at=1) for user in consents.users]))
        ledger = book(consents.ledger(in_doubt=consents.users, at=1))
    assert ledger == Ledger(grants=4, landed=4, calls=8, in_doubt=4, fresh=4)


def test_machines_whose_clocks_are_10_minutes_wrong_give_nobody_an_expired_token_and_agree_on_when_it_ends(
    postgresql_url: str, tmp_path: Path, book: Book
) -> None:
    """The tokens live for 5 minutes, which is less than the clocks are wrong."""
    settings = settings_on(postgresql_url, tmp_path / "data")
    with cluster_of_processes(settings, 3, logs=tmp_path, machine_clock_offsets=[0.0, 600.0, -600.0]) as cluster:
        cluster.state.access_token_seconds = 300
        consents = cluster.consents(6)  # of which the slow machine would say that they are good for 9 minutes more
        for at in (2, 1, 0, 2):
            assert all(together([partial(consents.works, user, at=at) for user in consents.users]))
        ends = {row["expires_at"].timestamp() - time.time() for row in rows(settings, "grants")}
        assert all(-60 < end <= 301 for end in ends), ends
        # By the fast machine's own clock they have ended again long ago, and by the slow one's not begun.
        assert book(consents.ledger(at=1)) == Ledger.clean(6)
        assert "clock is wrong" in cluster.servers[1].output()
        assert "clock is wrong" not in cluster.servers[0].output()


def journal_of(settings: Settings, server: int) -> list[Path]:
    """Return what waits in the journal of one of several servers."""
    return list((settings.data_dir / f"server-{server}" / "journal").glob("*.json"))
