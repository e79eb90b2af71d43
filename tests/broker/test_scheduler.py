"""How a refresher's slots are shared out: bounds in all and by endpoint, what is due first, the overdue slowly."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from evergrant.broker.refresh import scheduler as scheduling
from evergrant.broker.refresh.claims import ClaimQuota
from evergrant.broker.refresh.due_apps import MANY, DueApp
from evergrant.broker.refresh.queues import Queue, Queues
from evergrant.broker.refresh.scheduler import Scheduler
from evergrant.broker.runtime.breaker import FAILURES_TO_OPEN
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.errors import Trouble, UpstreamUnavailable
from evergrant.settings import Settings

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
JUST = NOW - timedelta(seconds=10)
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


def app(name: str, *, host: str = "", client: str = "evergrant", due: int = MANY, overdue: int = 0) -> DueApp:
    return DueApp("Pshop", name, f"https://{host or name}.example.com/token", client, JUST, due, overdue)


def shares(scheduler: Scheduler, *waiting: DueApp) -> dict[str, tuple[int, int]]:
    quotas = [quota for line in scheduler.quotas(Queues(waiting)).values() for quota in line.values()]
    return {quota.app[1]: (quota.due, quota.overdue) for quota in quotas}


def occupy(scheduler: Scheduler, one: DueApp, slots: int, until: asyncio.Event) -> None:
    async def work() -> None:
        await until.wait()

    for _ in range(slots):
        scheduler.pool.start(one.token_url, work())


async def test_each_endpoint_gets_its_share_until_all_slots_are_taken(broker: Broker) -> None:
    waiting = (app("a"), app("b"), app("c"), app("d"))
    assert shares(Scheduler(broker), *waiting) == {"a": (4, 0), "b": (4, 0), "c": (2, 0)}


async def test_apps_of_one_endpoint_share_it(broker: Broker) -> None:
    waiting = (app("a", host="same"), app("b", host="same"), app("other", host="same", client="another"), app("c"))
    assert shares(Scheduler(broker), *waiting) == {"a": (4, 0), "c": (4, 0)}


async def test_an_app_gets_no_slots_that_it_has_no_use_for(broker: Broker) -> None:
    waiting = (app("a", due=1), app("b", host="same", due=1), app("c", host="same", due=2), app("d", host="same"))
    assert shares(Scheduler(broker), *waiting) == {"a": (1, 0), "b": (1, 0), "c": (2, 0), "d": (1, 0)}


@pytest.mark.parametrize(("running", "free"), [(1, 3), (2, 2), (3, 0), (4, 0)])
async def test_a_busy_endpoint_is_filled_up_by_the_half(broker: Broker, running: int, free: int) -> None:
    one, end = app("a"), asyncio.Event()
    scheduler = Scheduler(broker)
    occupy(scheduler, one, running, end)
    assert shares(scheduler, one) == ({"a": (free, 0)} if free else {})
    end.set()
    await scheduler.pool.drain()
    assert shares(scheduler, one) == {"a": (4, 0)}


async def test_an_endpoint_that_fails_gets_one_call_when_its_pause_is_over_and_none_before(broker: Broker) -> None:
    one, other = app("a"), app("b")
    endpoint = broker.endpoints.at(one.token_url)
    endpoint.breaker.failures = FAILURES_TO_OPEN
    scheduler = Scheduler(broker)
    assert shares(scheduler, one, other) == {"a": (1, 0), "b": (4, 0)}
    end = asyncio.Event()
    occupy(scheduler, one, 1, end)
    assert shares(scheduler, one, other) == {"b": (4, 0)}
    end.set()
    await scheduler.pool.drain()


async def test_a_client_that_may_ask_no_more_gets_nothing_and_others_at_its_endpoint_their_share(
    broker: Broker,
) -> None:
    greedy, twin = (app(name, host="same", client="greedy") for name in ("a", "b"))
    with pytest.raises(UpstreamUnavailable):
        async with broker.endpoints.at(greedy.token_url).call(name="a", client_id="greedy"):
            raise UpstreamUnavailable(trouble=Trouble.LIMIT, retry_after=3600)
    assert shares(Scheduler(broker), greedy, twin, app("c", host="same")) == {"c": (4, 0)}


async def test_apps_of_one_client_share_what_it_may_ask(broker: Broker) -> None:
    waiting = [app(f"app{n}", host="same", client="") for n in range(3)]
    endpoint = broker.endpoints.at(waiting[0].token_url)
    for n in range(3):
        async with endpoint.call(name="a", whose=f"{n}"):
            pass
    with pytest.raises(UpstreamUnavailable):
        async with endpoint.call(name="a"):
            raise UpstreamUnavailable(trouble=Trouble.LIMIT)
    asked = shares(Scheduler(broker), *waiting)
    assert sum(due + late for due, late in asked.values()) <= endpoint.most_for("") <= 3


async def test_what_is_long_overdue_begins_with_one_call_and_grows_to_half(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = app("a", due=0, overdue=MANY)
    scheduler = Scheduler(broker)
    assert shares(scheduler, late) == {"a": (0, 1)}
    assert shares(scheduler, late, app("b", host="a", due=0, overdue=MANY)) == {"a": (0, 1)}
    monkeypatch.setattr(scheduling, "RAMP_SECONDS", 1e-9)  # long ago
    assert shares(scheduler, late) == {"a": (0, 2)}


async def test_beside_what_is_due_the_overdue_gets_one_slot(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "RAMP_SECONDS", 1e-9)
    assert shares(Scheduler(broker), app("a", overdue=MANY)) == {"a": (3, 1)}


async def test_no_share_goes_beyond_any_bound_whoever_waits(broker: Broker) -> None:
    waiting = [app(f"app{n}", host=f"host{n % 3}", due=n % 4, overdue=n % 5) for n in range(30)]
    at: Counter[str] = Counter()
    for (url, _), line in Scheduler(broker).quotas(Queues(waiting)).items():
        for quota in line.values():
            assert min(quota.due, quota.overdue) >= 0
            at[url] += quota.due + quota.overdue
    assert at.total() == TOTAL
    assert max(at.values()) <= PER_ENDPOINT


def learned(one: DueApp, asked: tuple[int, int], got: tuple[int, int]) -> Queue:
    queue = Queue.of(one)
    queue.learn(ClaimQuota(queue.app, *asked), due=got[0], overdue=got[1])
    return queue


def test_a_part_that_gave_less_than_it_was_asked_for_is_at_its_end() -> None:
    both = app("a", due=MANY, overdue=MANY)
    for asked, got, left in (
        ((2, 1), (2, 1), (MANY, MANY)),  # so many, or more
        ((2, 1), (1, 1), (0, MANY)),
        ((0, 1), (0, 0), (MANY, 0)),
    ):
        queue = learned(both, asked, got)
        assert (queue.due, queue.overdue) == left


def test_a_part_whose_number_is_known_is_at_its_end_when_all_are_taken() -> None:
    queue = learned(app("a", due=3, overdue=1), (2, 1), (2, 1))
    assert (queue.due, queue.overdue) == (1, 0)


def test_who_was_served_stands_behind_the_others_and_who_has_nothing_left_goes() -> None:
    queues = Queues([app("a", host="same"), app("b", host="same", due=1), app("c", host="same")])
    ((line, (first, second, _)),) = queues
    second.due = 0
    queues.put_behind({line: [first, second]})
    ((_, left),) = queues
    assert [queue.app[1] for queue in left] == ["c", "a"]
    queues.put_behind({line: []})
    for queue in left:
        queue.due = 0
    queues.put_behind({line: list(left)})
    assert not queues
