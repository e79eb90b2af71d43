"""A provider's bad days: no consent dies, a valid token is served meanwhile, and all is well when they are over."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from evergrant import pace
from evergrant.broker.refresh import failures
from evergrant.broker.tokens import fetch
from evergrant.practice.faults import Fault, dropped, edited, half_a_body, html, instead
from evergrant.practice.state import ProviderState
from tests.conftest import Clock
from tests.faults.cluster import CLIENTS, CONSENT, KINDS, ROBOTS, Cluster, Consents, cluster_in_this_process, together
from tests.faults.conftest import Book
from tests.faults.ledger import Ledger
from tests.infra.databases import settings_for
from tests.infra.rows import rows
from tests.infra.waiting import wait_until

LIFETIME = 3600
STALE = LIFETIME - 200
"""Within the margin of five minutes: a fetch refreshes first, and has a valid token if that fails."""
FORCE = {"forceRefresh": True}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with settings_for(request, tmp_path_factory) as settings, cluster_in_this_process(settings) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """What the module shares, on a good day, with a broker that tries again at once."""
    monkeypatch.setattr(failures, "ON_DEMAND_PAUSE", (0.05, 0.05))
    yield shared
    shared.good_day()


Arm = Callable[[ProviderState], None]


def next_one(fault: Fault) -> Arm:
    return lambda state: state.next_token_answers.append(fault)


def does_not_rotate(state: ProviderState) -> None:
    state.rotates = False


REFUSES: dict[str, Arm] = {
    "answers 500": next_one(instead(500, "oops", media_type="text/plain")),
    "answers 429 with Retry-After": next_one(instead(429, {"error": "slow_down"}, headers={"Retry-After": "1"})),
    "hangs": next_one(instead(200, {"access_token": "too late", "token_type": "Bearer"}, delay=5.0)),
    "resets the connection": next_one(dropped(lands=False)),
    "sends HTML": next_one(html(200)),
    "sends an HTML error": next_one(html(502)),
    "sends half a body": next_one(half_a_body(lands=False)),
}
"""Days on which nothing is refreshed."""
ODD: dict[str, Arm] = {
    "omits expires_in": next_one(edited(expires_in=None)),
    "omits the refresh token": does_not_rotate,
    "rotates the refresh token": lambda state: None,
    "returns an empty scope": next_one(edited(scope="")),
}
"""Days on which the answer is an odd one."""


def access_tokens(consents: Consents) -> dict[str, str]:
    return {user: consents.fetch(user).json()["token"]["accessToken"] for user in consents.users}


@pytest.mark.parametrize("arm", REFUSES.values(), ids=REFUSES)
def test_a_provider_has_a_bad_day_and_no_grant_is_lost(
    cluster: Cluster, clock: Clock, book: Book, monkeypatch: pytest.MonkeyPatch, arm: Arm
) -> None:
    if arm is REFUSES["hangs"]:
        monkeypatch.setattr(pace, "PACE", pace.Pace(call=0.5))
    consents = cluster.consents(3, seconds=LIFETIME)
    before = access_tokens(consents)
    clock.advance(STALE)
    for user in consents.users:
        arm(cluster.state)
        # the token is valid for another 200 seconds, and is served
        assert consents.fetch(user).json()["token"]["accessToken"] == before[user]
    # who forces a refresh has seen the old token fail: never that one
    arm(cluster.state)
    forced = consents.fetch(consents.users[0], options=FORCE)
    assert forced.status_code == 503
    assert int(forced.headers["Retry-After"]) >= 1
    # the bad day is over, and so is the token
    cluster.state.next_token_answers.clear()
    monkeypatch.setattr(pace, "PACE", pace.Pace())
    clock.advance(LIFETIME - STALE + 1)
    wait_until(lambda: all(consents.fetch(user).status_code == 200 for user in consents.users), "all is well again")
    ledger = book(consents.ledger())
    assert ledger == Ledger.clean(3, calls=ledger.calls)
    assert 6 <= ledger.calls <= 7  # three failed, three succeeded, and the forced one where there was no pause


@pytest.mark.parametrize("arm", ODD.values(), ids=ODD)
def test_a_provider_answers_oddly_and_is_understood(cluster: Cluster, clock: Clock, book: Book, arm: Arm) -> None:
    consents = cluster.consents(3, seconds=LIFETIME)
    before = access_tokens(consents)
    clock.advance(LIFETIME + 1)
    for user in consents.users:
        arm(cluster.state)
        answer = consents.fetch(user)
        assert cluster.works(answer)
        assert answer.json()["token"]["accessToken"] != before[user]
    clock.advance(LIFETIME + 1)  # and once more with what was understood of the odd answer
    arm(cluster.state)
    for user in consents.users:
        assert consents.works(user)
    assert book(consents.ledger()) == Ledger.clean(3, calls=6, landed=6)


LOST: dict[str, Fault] = {
    "resets": dropped(),
    "sends half a body": half_a_body(),
    "hangs": Fault(delay=5.0),
}
"""Answers that get lost when the refresh token has rotated. Nobody can know that it has."""


def test_an_answer_lost_for_credentials_that_stay_is_in_no_doubt(
    cluster: Cluster, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PACE", pace.Pace(call=1.0))
    consents = cluster.consents(len(LOST), kinds=(CLIENTS, ROBOTS))
    for user, fault in zip(consents.users, LOST.values(), strict=True):
        cluster.state.next_token_answers.append(fault)
        assert consents.fetch(user).status_code == 503
    monkeypatch.setattr(pace, "PACE", pace.Pace())
    wait_until(lambda: all(consents.fetch(user).status_code == 200 for user in consents.users), "all have tokens")
    assert book(consents.ledger()) == Ledger.clean(3, calls=6)
    found = [row for row in rows(cluster.settings, "grants") if row["user_id"] in consents.families]
    assert {row["interrupted_at"] for row in found} == {None}


@pytest.mark.parametrize("repeats", ["refused", "forgiven"])
def test_an_answer_lost_after_the_rotation_is_in_doubt_retried_once_and_labelled(
    cluster: Cluster, book: Book, monkeypatch: pytest.MonkeyPatch, repeats: str
) -> None:
    monkeypatch.setattr(pace, "PACE", pace.Pace(call=1.0))
    cluster.state.forgives_repeats = repeats == "forgiven"
    consents = cluster.consents(len(LOST), kinds=[CONSENT])
    for user, fault in zip(consents.users, LOST.values(), strict=True):
        cluster.state.next_token_answers.append(fault)
        assert consents.fetch(user).status_code == 503
    monkeypatch.setattr(pace, "PACE", pace.Pace())
    wait_until(lambda: all(consents.fetch(user).status_code != 503 for user in consents.users), "all are retried")
    ledger = book(consents.ledger(in_doubt=consents.users))
    assert consents.times_presented() == {2}
    if repeats == "forgiven":
        assert ledger == Ledger(grants=3, landed=3, calls=6, in_doubt=3, fresh=3)
        return
    assert ledger == Ledger(grants=3, landed=0, calls=6, reuse=3, revoked=3, in_doubt=3)
    for user in consents.users:
        refused = consents.fetch(user).json()["details"]
        assert refused["reason"] == "reauthorization_required"
        assert "interrupted refresh" in refused["lastRefreshError"]


def test_callers_are_not_held_long_by_a_token_endpoint_that_hangs(
    cluster: Cluster, clock: Clock, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twenty-fifth of the real time. The refresh goes on, and lands."""
    assert fetch.WAIT_SECONDS <= 25
    assert fetch.WAIT_SECONDS_WITH_VALID_TOKEN <= 5
    monkeypatch.setattr(fetch, "WAIT_SECONDS", fetch.WAIT_SECONDS / 25)
    monkeypatch.setattr(fetch, "WAIT_SECONDS_WITH_VALID_TOKEN", fetch.WAIT_SECONDS_WITH_VALID_TOKEN / 25)
    valid = cluster.consents(4, seconds=LIFETIME)
    before = access_tokens(valid)
    clock.advance(STALE)
    expired = cluster.consents(4)
    cluster.state.held = True
    answers = together(
        [partial(valid.fetch, user) for user in valid.users] + [partial(expired.fetch, user) for user in expired.users]
    )
    # nobody lets the provider answer before the callers have theirs
    assert [answer.json()["token"]["accessToken"] for answer in answers[:4]] == list(before.values())
    assert [answer.status_code for answer in answers[4:]] == [503] * 4
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers[4:])
    cluster.state.held = False
    both = Consents(cluster, valid.families | expired.families)
    wait_until(lambda: both.landed == set(both.users), "all refreshes have landed")
    assert book(both.ledger()) == Ledger.clean(8)


def test_a_500_while_the_token_is_valid_for_10_more_minutes_costs_nothing(
    cluster: Cluster, clock: Clock, book: Book
) -> None:
    consents = cluster.consents(3, seconds=LIFETIME)
    before = access_tokens(consents)
    clock.advance(LIFETIME - 600)
    for user in consents.users:
        cluster.state.next_token_answers.append(instead(500, "oops"))
        assert consents.fetch(user, options=FORCE).status_code == 503
    assert access_tokens(consents) == before
    for user in consents.users:
        wait_until(lambda: consents.fetch(user, options=FORCE).status_code == 200, "the provider answers again")  # noqa: B023
    assert book(consents.ledger()) == Ledger.clean(3, calls=6)


@pytest.mark.parametrize("kind", KINDS)
def test_40_forced_refreshes_at_once_never_answer_with_the_old_token(
    cluster: Cluster, clock: Clock, book: Book, kind: str
) -> None:
    consents = cluster.consents(1, seconds=LIFETIME, kinds=[kind])
    (user,) = consents.users
    cluster.state.token_latency = 0.3
    cluster.state.next_token_answers.extend([instead(500, "oops", delay=0.3)] * 40)  # a late caller meets the next one
    assert {answer.status_code for answer in together([partial(consents.fetch, user, options=FORCE)] * 40)} == {503}
    failed = 40 - len(cluster.state.next_token_answers)
    cluster.state.next_token_answers.clear()

    wait_until(lambda: consents.fetch(user, options=FORCE).status_code == 200, "the pause is over")
    clock.advance(10)
    old = access_tokens(consents)[user]
    answers = together([partial(consents.fetch, user, options=FORCE)] * 40)
    assert {answer.status_code for answer in answers} == {200}
    assert old not in {answer.json()["token"]["accessToken"] for answer in answers}
    assert all(cluster.works(answer) for answer in answers)
    assert book(consents.ledger()) == Ledger.clean(1, calls=failed + 2, landed=2)
