"""What a client learns of a provider's limit: near it without a word about it, fairly, and back when it is lifted.

Time is played here: each test is a provider that counts, and clients that always have something to ask.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest

from evergrant.broker.runtime.allowance import LONGEST_PAUSE, OTHERS, Allowance

ANSWER_SECONDS = 0.1


@dataclass
class Provider:
    """Takes so many calls per second, up to `burst` at once where some were not used, and refuses the rest."""

    per_second: float
    retry_after: float | None = None
    burst: float = 5.0
    left: float = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.left = self.burst

    def takes(self, now: float) -> bool:
        self.left = min(self.burst, self.left + (now - self.at) * self.per_second)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


def play(provider: Provider, clients: Sequence[Allowance], *, since: float, seconds: float) -> Counter[tuple[int, int]]:
    """Let each client ask as much as it may, 16 calls at once at most; return who got through in which second."""
    through: Counter[tuple[int, int]] = Counter()
    grants = count()
    numbers = count()
    events = [(since, next(numbers), who, 0.0, False, "") for who in range(len(clients)) for _ in range(16)]
    heapq.heapify(events)
    while events:
        now, _, who, begun, is_answer, grant = heapq.heappop(events)
        if now >= since + seconds:
            break
        client = clients[who]
        if is_answer:
            if grant:
                client.accepted(now, begun=begun, whose=grant)
                through[who, int(now)] += 1
            else:
                client.refused(now, begun=begun, whose=f"{next(grants)}", retry_after=provider.retry_after)
        if (wait := client.wait(now)) > 0:
            heapq.heappush(events, (now + wait, next(numbers), who, 0.0, False, ""))
            continue
        client.take(now)
        taken = f"{next(grants)}" if provider.takes(now) else ""
        heapq.heappush(events, (now + ANSWER_SECONDS, next(numbers), who, now, True, taken))
    return through


def per_second(through: Counter[tuple[int, int]], who: int, *, between: tuple[int, int]) -> float:
    begin, end = between
    return sum(through[who, second] for second in range(begin, end)) / (end - begin)


@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize("limit", [0.5, 5.0, 50.0])
def test_nearly_all_that_a_provider_takes_gets_through(limit: float, retry_after: float | None) -> None:
    through = play(Provider(limit, retry_after), [Allowance()], since=0.0, seconds=240.0)
    assert per_second(through, 0, between=(60, 240)) >= 0.8 * limit


@pytest.mark.parametrize("retry_after", [None, 40.0])
def test_a_limit_by_the_minute_is_used_as_well(retry_after: float | None) -> None:
    through = play(Provider(1.0, retry_after, burst=60.0), [Allowance()], since=0.0, seconds=600.0)
    assert per_second(through, 0, between=(60, 600)) >= 0.5


@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_replicas_share_one_limit_though_none_knows_of_the_other(retry_after: float | None) -> None:
    first, second = Allowance(), Allowance()
    provider = Provider(10.0, retry_after)
    play(provider, [first], since=0.0, seconds=60.0)  # alone for a minute: it has it all
    through = play(provider, [first, second], since=60.0, seconds=600.0)
    shares = [per_second(through, who, between=(180, 660)) for who in (0, 1)]
    assert sum(shares) >= 8.0
    assert min(shares) >= 0.7 * max(shares), shares


def test_a_limit_that_is_lifted_is_forgotten() -> None:
    client = Allowance()
    play(Provider(5.0), [client], since=0.0, seconds=60.0)
    assert client.is_limited
    play(Provider(1e6, burst=1e6), [client], since=60.0, seconds=300.0)
    assert not client.is_limited


def test_nothing_is_held_back_before_the_provider_says_so() -> None:
    client = Allowance()
    for _ in range(1000):
        assert client.wait(0.0) == 0
        client.take(0.0)
        client.accepted(0.1, begun=0.0, whose="")
    assert client.turns(0.2, within=1.0) > 1e9


def test_calls_that_are_refused_together_count_once() -> None:
    client = Allowance()
    for n in range(20):
        client.accepted(0.1, begun=0.0, whose=f"{n}")
    for n in range(20, 60):
        client.refused(0.2, begun=0.0, whose=f"{n}", retry_after=None)
    assert client.rate > 10


def test_nothing_is_asked_before_the_provider_said() -> None:
    client = Allowance()
    client.refused(100.0, begun=99.0, whose="a", retry_after=30.0)
    assert client.wait(100.0) == 30.0
    assert client.turns(128.0, within=1.0) == 0
    assert client.turns(130.0, within=0.1) == 1, "and not all at once then"


def test_a_refusal_among_many_calls_that_get_through_is_about_its_own_grant() -> None:
    client, now = Allowance(), 0.0
    for n in range(500):
        now += 0.01
        if n % 25 == 20:
            client.refused(now, begun=now - 0.1, whose=f"grant-{n}", retry_after=30.0)
        else:
            client.accepted(now, begun=now - 0.1, whose=f"grant-{n}")
        assert not client.is_limited
        assert client.wait(now) == 0
    for again in ("one", "another"):
        client.refused(now, begun=now - 0.1, whose=again, retry_after=30.0)
    assert client.is_limited
    assert client.wait(now) == 30.0


def test_a_pause_of_an_hour_is_asked_about_once_a_minute() -> None:
    client = Allowance()
    for n in range(20):
        client.accepted(-0.1, begun=-0.2, whose=f"before-{n}")
    client.refused(-0.05, begun=-0.2, whose="the first", retry_after=3600.0)
    now, asked = 0.0, 0
    while now < 3600.0:
        client.take(now)
        asked += 1
        client.refused(now + 0.1, begun=now, whose=f"{asked}", retry_after=3600.0 - now)
        now += 0.1 + client.wait(now + 0.1)
        assert client.turns(now, within=1.0) == 1
    assert 55 <= asked <= 61
    client.take(now)
    client.accepted(now + 0.1, begun=now, whose="other")
    assert client.rate >= 1, "where another gets through, it was not about the client"
    assert client.wait(now + 1.0) == 0


def test_one_user_who_is_held_back_holds_nobody_else_back() -> None:
    client = Allowance()
    now = 0.0
    for n in range(500):
        for who in (*(f"other-{n}-{other}" for other in range(OTHERS)), "ann"):
            now += client.wait(now)
            client.take(now)
            if who == "ann":
                client.refused(now + 0.1, begun=now, whose=who, retry_after=3600.0)
            else:
                client.accepted(now + 0.1, begun=now, whose=who)
            now += 0.1
    assert now < 2 * LONGEST_PAUSE + 500 * (OTHERS + 1) * 0.1, "no more than her first refusal cost anybody a moment"
