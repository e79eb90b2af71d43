"""Several server processes on one database, as in production: one dies, one sleeps, one's clock is wrong."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial

import httpx2
import pytest

from evergrant import clock as wall_clock
from tests.faults.clocks import Clocks
from tests.faults.cluster import KINDS, SCALE, Cluster, Consents, together
from tests.faults.conftest import Book
from tests.faults.ledger import Ledger
from tests.infra.waiting import PATIENCE, wait_until


@pytest.mark.parametrize("kind", KINDS)
def test_200_concurrent_fetches_of_an_expired_grant_over_3_processes_cost_one_call(
    replicas: Cluster, book: Book, kind: str
) -> None:
    replicas.state.token_latency = 0.5
    consents = replicas.consents(1, kinds=[kind])
    (user,) = consents.users
    answers = together([partial(consents.fetch, user, at=n % 3) for n in range(200)])
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["token"]["accessToken"] for answer in answers}) == 1
    assert book(consents.ledger()) == Ledger.clean(1)


@pytest.mark.parametrize("repeats", ["refused", "forgiven"])
def test_a_sigkill_of_one_of_3_replicas_under_load_leaves_in_doubt_only_what_was_on_the_wire(
    replicas: Cluster, book: Book, repeats: str
) -> None:
    """At a strict provider such a grant ends with a reason; at one that forgives a repeat, it goes on.

    One of credentials that stay goes on at any.
    """
    state = replicas.state
    state.forgives_repeats = repeats == "forgiven"
    consents = replicas.consents(48)
    together([partial(consents.fetch, user, at=2) for user in consents.users[:8]])
    assert consents.landed == set(consents.users[:8])
    state.held = True
    answers: list[tuple[str, httpx2.Response]] = []
    with load_on(consents, answers, threads=24, rounds=3):
        wait_until(lambda: len(consents.on_the_wire) == 24, "every caller waits for the provider")
        replicas.servers[0].kill()
        under_way = consents.on_the_wire
        doubted = under_way & set(consents.users[::3])  # the load asks the first server for every third user
        state.held = False
        wait_until(lambda: under_way - doubted <= consents.landed, "the others have stored their answers")
        # Those that share the dead one's data folder give back what it held, and its callers' next tries go on.
    assert doubted, "the kill hit nothing, so this test shows nothing"
    assert consents.unheard <= doubted

    whole = set(consents.users) - doubted
    dead = {user for user, row in consents.rows.items() if row.status == "reauthorization_required"}
    for user, answer in answers:
        assert answer.status_code == 200 or user in dead, answer.text
    may_be_lost = doubted & consents.consented
    in_doubt, calls = len(may_be_lost), 48 + len(doubted)
    ledger = book(consents.ledger(in_doubt=may_be_lost, at=1))
    if repeats == "forgiven":
        assert dead == set()
        assert ledger == Ledger(grants=48, landed=48, calls=calls, in_doubt=in_doubt, fresh=48)
    else:
        assert dead == may_be_lost
        for user in dead:
            refused = consents.fetch(user, at=2).json()["details"]
            assert refused["reason"] == "reauthorization_required"
            assert "interrupted refresh" in refused["lastRefreshError"]
        assert ledger == Ledger(
            grants=48,
            landed=48 - in_doubt,
            calls=calls,
            reuse=in_doubt,
            revoked=in_doubt,
            in_doubt=in_doubt,
            fresh=48 - in_doubt,
        )
    # retried, and no more than once
    assert consents.times_presented(doubted) == {2}
    assert consents.times_presented(whole) == {1}


def test_the_same_refresh_token_is_never_sent_twice_while_a_provider_takes_12_seconds(
    replicas: Cluster, book: Book
) -> None:
    """Callers hang up and ask the next replica, again and again."""
    replicas.state.token_latency = 12 / SCALE
    consents = replicas.consents(6)

    def impatient(user: str) -> None:
        for at in range(3):
            consents.fetch_and_hang_up(user, at=at, after=3 / SCALE)

    together([partial(impatient, user) for user in consents.users * 2])
    assert book(consents.ledger()) == Ledger.clean(6)
    assert consents.times_presented() == {1}


def test_clocks_that_are_2_minutes_wrong_in_both_directions_cost_nothing(
    replicas: Cluster, clocks: Clocks, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One replica is right, one 2 minutes fast, one 2 minutes slow. Nobody ever gets a token that is over."""
    monkeypatch.setattr(wall_clock, "now", clocks.utcnow)
    wrong_by = [0.0, 120.0, -120.0]
    replicas.state.token_latency = 0.1
    try:
        clocks.set(wrong_by)
        consents = replicas.consents(9, seconds=-600)
        fast_then_slow, slow_then_fast, any_of_them = (consents.users[n::3] for n in range(3))
        for passed in (0, 3000, 3300, 3500, 3530, 3560, 3590):
            clocks.set(wrong_by, passed=passed)
            fetches = [(user, 2 if passed else 1) for user in fast_then_slow]
            fetches += [(user, 1 if passed else 2) for user in slow_then_fast]
            fetches += [(user, at) for user in any_of_them for at in range(3)]
            assert all(together([partial(consents.works, user, at=at) for user, at in fetches])), passed
        assert book(consents.ledger()) == Ledger.clean(9, calls=18, landed=18)
    finally:
        clocks.set([0.0, 0.0, 0.0])


@contextmanager
def load_on(
    consents: Consents, answers: list[tuple[str, httpx2.Response]], *, threads: int, rounds: int
) -> Iterator[None]:
    """Fetch every user's token, `rounds` times, from each server in turn.

    A caller whose server dies asks the next, and one that is told to come back later comes back.

    All other answers are there when the block has ended.
    """
    count = len(consents.cluster.backends)

    def ask(user: str, first: int) -> None:
        for at in range(first, first + count):
            with suppress(httpx2.TransportError):
                answers.append((user, _fetched(consents, user, at=at % count)))
                return
        raise AssertionError("no server is left")

    with ThreadPoolExecutor(threads) as pool:
        asked = [
            pool.submit(ask, user, number + turn)
            for turn in range(rounds)
            for number, user in enumerate(consents.users)
        ]
        yield
        for future in asked:
            future.result(timeout=PATIENCE)


def _fetched(consents: Consents, user: str, *, at: int) -> httpx2.Response:
    deadline = time.monotonic() + PATIENCE
    while (answer := consents.fetch(user, at=at)).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.2)
    return answer
