"""The pool of background tasks: its bounds hold, none of its tasks is lost, and none fails in silence."""

import asyncio
import logging
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergrant.broker.runtime.worker_pool import WorkerPool


class Bench:
    """Work that waits until it is let go, and counts how much of it runs at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.most_in_all = 0
        self.finished: list[str] = []

    async def work(self, key: str) -> None:
        self.running[key] += 1
        self.most[key] = max(self.most[key], self.running[key])
        self.most_in_all = max(self.most_in_all, self.running.total())
        await self.go.wait()
        self.running[key] -= 1
        self.finished.append(key)


@pytest.fixture
def stop() -> asyncio.Event:
    return asyncio.Event()


async def failing() -> None:
    raise ZeroDivisionError


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.integers(1, 8), st.integers(1, 8))
def test_the_bounds_hold_whatever_comes_and_everything_gets_its_turn(keys: str, most: int, most_per_key: int) -> None:
    async def play() -> Bench:
        bench, stop = Bench(), asyncio.Event()
        pool: WorkerPool[str] = WorkerPool(most=most, most_per_key=most_per_key)
        bench.go.set()
        waiting = list(keys)
        while waiting:
            for key in waiting[:]:
                if pool.room_for(key) > 0:
                    waiting.remove(key)
                    pool.start(key, bench.work(key))
            assert len(pool) <= most
            if waiting:
                await pool.wait_for_slot(stop)
        await pool.drain()
        return bench

    bench = asyncio.run(play())
    assert sorted(bench.finished) == sorted(keys)
    assert bench.most_in_all <= most
    assert max(bench.most.values(), default=0) <= most_per_key


async def test_room_is_what_is_left_of_both_bounds() -> None:
    bench = Bench()
    pool: WorkerPool[str] = WorkerPool(most=3, most_per_key=2)
    assert (pool.room, pool.room_for("a")) == (3, 2)
    pool.start("a", bench.work("a"))
    pool.start("a", bench.work("a"))
    assert (len(pool), dict(pool.by_key), pool.room) == (2, {"a": 2}, 1)
    assert (pool.room_for("a"), pool.room_for("b")) == (0, 1)
    bench.go.set()
    await pool.drain()
    assert (len(pool), dict(pool.by_key), pool.room_for("a")) == (0, {}, 2)


async def test_starting_without_room_is_an_error_and_starts_nothing() -> None:
    bench = Bench()
    pool: WorkerPool[str] = WorkerPool(most=1, most_per_key=1)
    pool.start("a", bench.work("a"))
    with pytest.raises(RuntimeError, match="no room"):
        pool.start("b", bench.work("b"))
    bench.go.set()
    await pool.drain()
    assert bench.finished == ["a"]


async def test_a_slot_that_came_free_before_the_wait_is_not_missed(stop: asyncio.Event) -> None:
    bench = Bench()
    pool: WorkerPool[str] = WorkerPool(most=1, most_per_key=1)
    bench.go.set()
    pool.start("a", bench.work("a"))
    while pool:
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await pool.wait_for_slot(stop)


async def test_waiting_for_a_slot_ends_with_the_stop_and_with_the_time(stop: asyncio.Event) -> None:
    bench = Bench()
    pool: WorkerPool[str] = WorkerPool(most=1, most_per_key=1)
    pool.start("a", bench.work("a"))
    async with asyncio.timeout(5):
        await pool.wait_for_slot(stop, seconds=0.01)
        stop.set()
        await pool.wait_for_slot(stop)
    assert len(pool) == 1
    bench.go.set()
    await pool.drain()


async def test_slots_gather_until_half_of_those_of_a_key_are_free(stop: asyncio.Event) -> None:
    benches = [Bench() for _ in range(4)]
    pool: WorkerPool[str] = WorkerPool(most=8, most_per_key=4)
    for bench in benches:
        pool.start("a", bench.work("a"))
    waiting = asyncio.create_task(pool.wait_for_half(stop, seconds=60))
    for bench in benches[:2]:
        await asyncio.sleep(0.01)
        assert not waiting.done()
        bench.go.set()
    async with asyncio.timeout(5):
        await waiting
        await pool.wait_for_half(stop, seconds=0.01)  # none has ended since
        stop.set()
        await pool.wait_for_half(stop, seconds=60)
    for bench in benches:
        bench.go.set()
    await pool.drain()


async def test_a_drain_waits_for_every_task() -> None:
    bench = Bench()
    pool: WorkerPool[str] = WorkerPool(most=10, most_per_key=10)
    for _ in range(10):
        pool.start("a", bench.work("a"))
    draining = asyncio.create_task(pool.drain())
    await asyncio.sleep(0.01)
    assert not draining.done()
    bench.go.set()
    await draining
    assert len(bench.finished) == 10


async def test_a_drain_with_a_limit_cancels_what_is_late_and_waits_for_that_too() -> None:
    tidied = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            tidied.append(True)

    pool: WorkerPool[str] = WorkerPool(most=2, most_per_key=2)
    pool.start("a", slow())
    pool.start("b", slow())
    async with asyncio.timeout(5):
        await pool.drain(grace_seconds=0.01)
    assert tidied == [True, True]
    assert len(pool) == 0


async def test_a_task_that_breaks_is_in_the_log_and_gives_its_slot_back(
    caplog: pytest.LogCaptureFixture, stop: asyncio.Event
) -> None:
    pool: WorkerPool[str] = WorkerPool(most=1, most_per_key=1)
    pool.start("a", failing())
    async with asyncio.timeout(5):
        await pool.wait_for_slot(stop)
    assert pool.room_for("a") == 1
    (entry,) = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert entry.exc_info is not None
    assert entry.exc_info[0] is ZeroDivisionError
