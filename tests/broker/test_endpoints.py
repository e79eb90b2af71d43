"""Endpoints: what is held against an address, what against a client, and how connections are shared out."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from evergrant.broker.runtime import endpoint_client
from evergrant.broker.runtime import endpoints as module
from evergrant.broker.runtime.breaker import FAILURES_TO_OPEN
from evergrant.broker.runtime.connection_shares import CONNECTIONS, FEWEST, ConnectionShares
from evergrant.broker.runtime.endpoint_gauges import MOST_SERIES, EndpointGauges
from evergrant.broker.runtime.endpoints import IDLE_SECONDS, Endpoint, Endpoints
from evergrant.errors import EgressRefused, EvergrantError, ReauthorizationRequired, Trouble, UpstreamUnavailable
from evergrant.metrics import MOST_APPS, Metrics
from tests.infra.waiting import PATIENCE, until

URL = "https://one.example.com/token"
SILENCE = UpstreamUnavailable("silent")
LIMIT = UpstreamUnavailable("too much", trouble=Trouble.LIMIT)
NAME = UpstreamUnavailable("no such name", trouble=Trouble.NAME)


class Ticks:
    """A monotonic clock that stands still."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    stopped = Ticks()
    for each in (module, endpoint_client):
        monkeypatch.setattr(each, "time", stopped)
    return stopped


async def ended(endpoint: Endpoint, error: Exception | None, *, client: str = "c", whose: str = "") -> None:
    """Make a call that ends like this."""
    with suppress(EvergrantError):
        async with endpoint.call(name="One", client_id=client, whose=whose):
            if error is not None:
                raise error


async def refusal(endpoint: Endpoint, client: str = "c") -> UpstreamUnavailable:
    """Return the error of a call that is not even begun."""
    with pytest.raises(UpstreamUnavailable) as held:
        async with endpoint.call(name="One", client_id=client):
            pytest.fail("it was let through")
    assert held.value.trouble is Trouble.OURS
    assert not held.value.in_doubt
    return held.value


@asynccontextmanager
async def under_way(endpoint: Endpoint, calls: int, client: str = "c") -> AsyncIterator[list[asyncio.Future[None]]]:
    """Have so many calls on the wire; each ends as its future does."""
    ends: list[asyncio.Future[None]] = []
    begun = 0

    async def one(end: "asyncio.Future[None]") -> None:
        nonlocal begun
        async with endpoint.call(name="One", client_id=client):
            begun += 1
            await end

    tasks = []
    for _ in range(calls):
        ends.append(asyncio.get_running_loop().create_future())
        tasks.append(asyncio.create_task(one(ends[-1])))
    await until(lambda: begun == calls, "all calls have begun")
    try:
        yield ends
    finally:
        for end in ends:
            if not end.done():
                end.set_result(None)
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_silence_opens_the_breaker_for_every_client(ticks: Ticks) -> None:
    endpoint = Endpoints().at(URL)
    for n in range(FAILURES_TO_OPEN):
        assert not endpoint.is_open
        await ended(endpoint, SILENCE, client=f"c{n}")
    assert endpoint.is_open
    assert f"{FAILURES_TO_OPEN} times in a row" in (await refusal(endpoint, "another")).message


@pytest.mark.parametrize("error", [NAME, LIMIT, UpstreamUnavailable("ours", trouble=Trouble.OURS), EgressRefused()])
async def test_nothing_else_does(ticks: Ticks, error: Exception) -> None:
    endpoint = Endpoints().at(URL)
    for n in range(FAILURES_TO_OPEN * 2):
        await ended(endpoint, error, client=f"c{n}")
    assert not endpoint.is_open


async def test_forty_calls_that_break_off_in_one_instant_are_one_event(ticks: Ticks) -> None:
    endpoint = Endpoints().at(URL)
    async with under_way(endpoint, 40) as ends:
        for end in ends:
            end.set_exception(SILENCE)
    assert endpoint.is_open
    assert (await refusal(endpoint)).retry_after <= 3
    ticks.now += 3.0
    await ended(endpoint, None)
    assert not endpoint.is_open


async def test_what_began_before_a_breaker_opened_and_fails_after_it_closed_is_old_news(ticks: Ticks) -> None:
    endpoint = Endpoints().at(URL)
    async with under_way(endpoint, 20) as ends:
        for end in ends[:FAILURES_TO_OPEN]:
            end.set_exception(SILENCE)
        await until(lambda: endpoint.is_open, "it is open")
        ticks.now += 3.0
        await ended(endpoint, ReauthorizationRequired())  # an answer like any other
        assert not endpoint.is_open
        for end in ends[FAILURES_TO_OPEN:]:
            end.set_exception(SILENCE)
    assert not endpoint.is_open


async def test_of_a_hundred_who_wait_one_tries_whether_it_is_back(ticks: Ticks) -> None:
    endpoint = Endpoints().at(URL)
    for _ in range(FAILURES_TO_OPEN):
        await ended(endpoint, SILENCE)
    ticks.now += 3.0
    assert endpoint.room_for("c") == 1
    let_in = asyncio.Event()
    tried = 0

    async def one() -> None:
        nonlocal tried
        async with endpoint.call(name="One", client_id="c"):
            tried += 1
            await let_in.wait()
            raise SILENCE

    calls = [asyncio.create_task(one()) for _ in range(100)]
    await until(lambda: sum(call.done() for call in calls) == 99, "all but one are sent away")
    assert (tried, endpoint.room_for("c")) == (1, 0)
    let_in.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert (await refusal(endpoint)).retry_after > 2, "it failed, so the next pause is longer"


async def test_a_try_that_is_never_sent_is_followed_by_another(ticks: Ticks) -> None:
    endpoint = Endpoints().at(URL)
    for _ in range(FAILURES_TO_OPEN):
        await ended(endpoint, SILENCE)
    ticks.now += 3.0
    await ended(endpoint, NAME)
    assert endpoint.is_open
    await refusal(endpoint)  # but not at once
    ticks.now += 3.0
    await ended(endpoint, None)
    assert not endpoint.is_open


async def test_a_limit_belongs_to_one_client(ticks: Ticks) -> None:
    endpoint = Endpoints().at(URL)
    busy = UpstreamUnavailable("too much", trouble=Trouble.LIMIT, retry_after=30)
    for n in range(10):
        if endpoint.room_for("greedy"):
            await ended(endpoint, busy, client="greedy", whose=f"{n}")
    assert endpoint.room_for("greedy") == 0, "the background does not even claim"
    assert (await refusal(endpoint, "greedy")).retry_after == 30
    assert endpoint.room_for("other") > 50
    await ended(endpoint, None, client="other")


async def test_the_background_claims_as_much_as_the_client_may_ask(ticks: Ticks) -> None:
    endpoint = Endpoints().at(URL)
    async with under_way(endpoint, 16) as ends:
        for end in ends[:5]:
            end.set_result(None)
        await until(lambda: sum(end.done() for end in ends) == 5, "five got through")
        await asyncio.sleep(0)
        for end in ends[5:]:
            end.set_exception(LIMIT)
    ticks.now += 1.0
    assert 2 <= endpoint.room_for("c") <= 5
    assert endpoint.most_for("c") <= 5
    assert endpoint.most_for("other") > 50


async def test_who_waits_for_a_turn_gets_it_in_order() -> None:
    endpoint = Endpoints().at(URL)
    for n in range(3):
        await ended(endpoint, None, whose=f"{n}")
    await ended(endpoint, LIMIT, whose="x")
    assert endpoint.clients["c"].allowance.is_limited
    order: list[int] = []

    async def one(n: int) -> None:
        async with endpoint.call(name="One", client_id="c"):
            order.append(n)

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(one(n) for n in range(4)))
    assert order == [0, 1, 2, 3]
    assert endpoint.clients["c"].waiting == 0


async def test_an_address_gets_a_quarter_of_what_the_others_leave_free() -> None:
    shares = ConnectionShares()
    got = []
    for n in range(30):
        room = shares.room(f"a{n}")
        for _ in range(room):
            await shares.take(f"a{n}")
        assert shares.room(f"a{n}") == 0
        got.append(room)
    assert got[0] == CONNECTIONS // 4
    assert got == sorted(got, reverse=True)
    assert got[10] >= 5, "beside ten slow ones there is something left"
    assert got[-1] == FEWEST, "and beside any number"


async def test_ten_slow_endpoints_take_nothing_that_a_healthy_one_needs() -> None:
    endpoints = Endpoints()
    async with AsyncExitStack() as slow:
        for n in range(10):
            endpoint = endpoints.at(f"https://slow-{n}.example.com/token")
            await slow.enter_async_context(under_way(endpoint, endpoint.room_for("c")))
        healthy = endpoints.at(URL)
        assert healthy.room_for("c") >= FEWEST
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(ended(healthy, None) for _ in range(100)))


async def test_what_one_gives_back_goes_to_whoever_waits_at_any_address() -> None:
    shares = ConnectionShares(16)
    for _ in range(4):
        await shares.take("slow")
    takers = [asyncio.create_task(shares.take("healthy")) for _ in range(6)]
    await until(lambda: sum(taker.done() for taker in takers) == 4, "the floor is taken")
    takers[4].cancel()  # who hangs up leaves its place to the next
    await asyncio.gather(takers[4], return_exceptions=True)
    shares.give_back("healthy")
    async with asyncio.timeout(PATIENCE):
        await takers[5]
    for _ in range(4):
        shares.give_back("healthy")
        shares.give_back("slow")
    assert shares.is_idle("healthy")
    assert shares.is_idle("slow")


async def test_a_connection_that_never_comes_is_our_affair(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoints().at(URL)
    async with under_way(endpoint, endpoint.room_for("c")):
        monkeypatch.setattr(module, "PATIENCE", 0.05)
        await refusal(endpoint)
    assert not endpoint.is_open


async def test_what_nobody_uses_is_forgotten_and_what_is_in_use_is_not(ticks: Ticks) -> None:
    endpoints = Endpoints()
    for n in range(1000):
        await ended(endpoints.at(f"https://shop-{n}.example.com/token"), LIMIT if n % 2 else SILENCE)
    busy = endpoints.at(URL)
    for n in range(1000):
        await ended(busy, None, client=f"client-{n}")
    slow = endpoints.at("https://slow.example.com/token")
    async with under_way(busy, 1, "kept"), under_way(slow, 1):
        ticks.now += IDLE_SECONDS + 1
        for _ in range(600):
            endpoints.at(URL).require("One", "kept")
        assert len(endpoints) == 2
        assert endpoints.at(slow.url) is slow, "somebody still waits for its answer"
        assert endpoints.at(URL) is busy
        assert list(busy.clients) == ["kept"]


async def test_only_endpoints_in_trouble_are_told_and_their_number_is_bounded(ticks: Ticks) -> None:
    endpoints = Endpoints()
    gauges = EndpointGauges(endpoints)

    def told() -> dict[str, dict[str, float]]:
        return {
            metric.name.removeprefix("evergrant_endpoint_"): {s.labels["endpoint"]: s.value for s in metric.samples}
            for metric in gauges.collect()
        }

    await ended(endpoints.at("https://user:pw@fine.example.com/token?x=1"), None)
    assert told() == {"breaker_open": {}, "limited_clients": {}, "limit_per_second": {}}
    limited = endpoints.at("https://user:pw@one.example.com/token?x=1")
    for client in ("a", "b"):
        await ended(limited, LIMIT, client=client)
    assert told()["limited_clients"] == {"one.example.com/token": 2}
    assert 0 < told()["limit_per_second"]["one.example.com/token"] < 10
    for n in range(MOST_SERIES * 2):
        for _ in range(FAILURES_TO_OPEN):
            await ended(endpoints.at(f"https://shop-{n}.example.com/token"), SILENCE)
    opened = told()["breaker_open"]
    assert len(opened) == MOST_SERIES
    assert math.isclose(sum(opened.values()), MOST_SERIES * 2)
    for endpoint in endpoints:
        endpoint.forgive()
    assert told()["breaker_open"] == {}


def test_refreshes_of_the_first_apps_are_counted_by_name_and_all_others_together() -> None:
    metrics = Metrics()
    for _ in range(2):
        for n in range(MOST_APPS + 500):
            metrics.refreshes.labels("P", f"app-{n}", "refreshed").inc()
    (family,) = [metric for metric in metrics.registry.collect() if metric.name == "evergrant_refreshes"]
    counts = {(s.labels["project"], s.labels["app"]): s.value for s in family.samples}
    assert len(counts) == MOST_APPS + 1
    assert counts["P", "app-0"] == 2
    assert counts["others", "others"] == 1000
