"""How a refresher's slots are shared out: bounds in all and by endpoint, what is due first, the overdue slowly."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from evergrant.broker.refresh import scheduler as scheduling
from evergrant.broker.refresh.lease import LeasedGrant
from evergrant.broker.refresh.refresh import ClaimedGrant
from evergrant.broker.refresh.scheduler import Queue, Scheduler
from evergrant.broker.refresh.sweep import ClaimQuota, DueApp
from evergrant.broker.runtime.breaker import FAILURES_TO_OPEN
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.db import Grant, OutboundApp
from evergrant.errors import Trouble, UpstreamUnavailable
from evergrant.settings import Settings

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
JUST = NOW - timedelta(seconds=10)
LONG_AGO = NOW - timedelta(hours=3)
TOTAL, PER_ENDPOINT = 10, 4


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One kind is enough: nothing here asks the database."""
    return sqlite_url


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Broker]:
    changes = {"refresh_concurrency": TOTAL, "refresh_concurrency_per_endpoint": PER_ENDPOINT}
    async with open_broker(settings.model_copy(update=changes)) as opened:
        yield opened


def app(name: str, *, host: str = "") -> OutboundApp:
    return OutboundApp(
        project_id="Pshop", id=name, name=name, client_id="", token_url=f"https://{host or name}.example.com/token"
    )


def queues(*apps: OutboundApp, due: bool = True, overdue: bool = False) -> list[Queue]:
    return [Queue(one, due, overdue) for one in apps]


def shares(scheduler: Scheduler, waiting: list[Queue]) -> dict[str, tuple[int, int]]:
    return {quota.app.id: (quota.due, quota.overdue) for quota in scheduler.quotas(waiting).values()}


def occupy(scheduler: Scheduler, one: OutboundApp, broker: Broker, slots: int, until: asyncio.Event) -> None:
    async def work() -> None:
        await until.wait()

    for _ in range(slots):
        scheduler.pool.start(broker.endpoints.of(one), work())


def claim(of: OutboundApp, due_at: datetime) -> ClaimedGrant:
    return ClaimedGrant(LeasedGrant("owner", Grant(id="g", next_refresh_at=due_at), 0.0, 0.0), of)


async def test_each_endpoint_gets_its_share_until_all_slots_are_taken(broker: Broker) -> None:
    waiting = queues(app("a"), app("b"), app("c"), app("d"))
    assert shares(Scheduler(broker), waiting) == {"a": (4, 0), "b": (4, 0), "c": (2, 0)}


async def test_apps_of_one_endpoint_share_it(broker: Broker) -> None:
    waiting = queues(app("a", host="same"), app("b", host="same"), app("c"))
    assert shares(Scheduler(broker), waiting) == {"a": (4, 0), "c": (4, 0)}


@pytest.mark.parametrize(("running", "free"), [(1, 3), (2, 2), (3, 0), (4, 0)])
async def test_a_busy_endpoint_is_filled_up_by_the_half(broker: Broker, running: int, free: int) -> None:
    one, end = app("a"), asyncio.Event()
    scheduler = Scheduler(broker)
    occupy(scheduler, one, broker, running, end)
    assert shares(scheduler, queues(one)) == ({"a": (free, 0)} if free else {})
    end.set()
    await scheduler.pool.drain()
    assert shares(scheduler, queues(one)) == {"a": (4, 0)}


async def test_an_endpoint_that_fails_gets_one_call_when_its_pause_is_over_and_none_before(broker: Broker) -> None:
    one, other = app("a"), app("b")
    endpoint = broker.endpoints.of(one)
    endpoint.breaker.failures = FAILURES_TO_OPEN
    scheduler = Scheduler(broker)
    assert shares(scheduler, queues(one, other)) == {"a": (1, 0), "b": (4, 0)}
    end = asyncio.Event()
    occupy(scheduler, one, broker, 1, end)
    assert shares(scheduler, queues(one, other)) == {"b": (4, 0)}
    end.set()
    await scheduler.pool.drain()


async def test_a_client_that_may_ask_no_more_gets_nothing_and_others_at_its_endpoint_their_share(
    broker: Broker,
) -> None:
    greedy, twin, modest = app("a", host="same"), app("b", host="same"), app("c", host="same")
    greedy.client_id = twin.client_id = "greedy"
    with pytest.raises(UpstreamUnavailable):
        async with broker.endpoints.of(greedy).call(name="a", client_id="greedy"):
            raise UpstreamUnavailable(trouble=Trouble.LIMIT, retry_after=3600)
    assert shares(Scheduler(broker), queues(greedy, twin, modest)) == {"c": (4, 0)}


async def test_apps_of_one_client_share_what_it_may_ask(broker: Broker) -> None:
    apps = [app(f"app{n}", host="same") for n in range(3)]
    endpoint = broker.endpoints.of(apps[0])
    for n in range(3):
        async with endpoint.call(name="a", whose=f"{n}"):
            pass
    with pytest.raises(UpstreamUnavailable):
        async with endpoint.call(name="a"):
            raise UpstreamUnavailable(trouble=Trouble.LIMIT)
    asked = shares(Scheduler(broker), queues(*apps))
    assert sum(due + late for due, late in asked.values()) <= endpoint.most_for("") <= 3


async def test_what_is_long_overdue_begins_with_one_call_and_grows_to_half(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = queues(app("a"), due=False, overdue=True)
    scheduler = Scheduler(broker)
    assert shares(scheduler, waiting) == {"a": (0, 1)}
    monkeypatch.setattr(scheduling, "RAMP_SECONDS", 1e-9)  # long ago
    assert shares(scheduler, waiting) == {"a": (0, 2)}


async def test_beside_what_is_due_the_overdue_gets_one_slot(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "RAMP_SECONDS", 1e-9)
    assert shares(Scheduler(broker), queues(app("a"), overdue=True)) == {"a": (3, 1)}


async def test_no_share_goes_beyond_any_bound_whoever_waits(broker: Broker) -> None:
    scheduler = Scheduler(broker)
    apps = [app(f"app{n}", host=f"host{n % 3}") for n in range(9)]
    waiting = [Queue(one, n % 2 == 0, n % 3 == 0) for n, one in enumerate(apps)]
    at: Counter[str] = Counter()
    for quota in scheduler.quotas(waiting).values():
        assert min(quota.due, quota.overdue) >= 0
        at[quota.app.token_url] += quota.due + quota.overdue
    assert at.total() <= TOTAL
    assert max(at.values()) <= PER_ENDPOINT


def test_a_queue_knows_what_it_has_from_when_its_first_grant_fell_due() -> None:
    fresh, old = (Queue.of(DueApp(app("a"), since), now=NOW) for since in (JUST, LONG_AGO))
    assert (fresh.due, fresh.overdue) == (True, False)
    assert (old.due, old.overdue) == (True, True)


def test_a_part_that_gave_less_than_it_was_asked_for_is_at_its_end() -> None:
    one = app("a")
    queue = Queue(one, due=True, overdue=True)
    queue.learn(ClaimQuota(one, due=2, overdue=1), [claim(one, JUST), claim(one, JUST), claim(one, LONG_AGO)], now=NOW)
    assert (queue.due, queue.overdue) == (True, True)
    queue.learn(ClaimQuota(one, due=2, overdue=1), [claim(one, JUST), claim(one, LONG_AGO)], now=NOW)
    assert (queue.due, queue.overdue) == (False, True)
    queue.learn(ClaimQuota(one, due=0, overdue=1), [], now=NOW)
    assert (queue.due, queue.overdue) == (False, False)
