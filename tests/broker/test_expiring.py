"""The memory for what may be some seconds old: nothing is remembered longer, and nothing without a bound."""

import asyncio
import time
from collections.abc import Callable

import pytest

from evergrant.broker.runtime.expiring import Expiring


class Ticks:
    """A monotonic clock that stands still."""

    now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    stopped = Ticks()
    monkeypatch.setattr(time, "monotonic", stopped.monotonic)
    return stopped


def test_a_value_is_found_until_its_seconds_are_over(ticks: Ticks) -> None:
    memory: Expiring[str, int] = Expiring(seconds=4.0, most=10)
    assert memory.get("a") is None
    memory.put("a", 1)
    ticks.now += 3.9
    assert memory.get("a") == 1
    ticks.now += 0.1
    assert memory.get("a") is None


def test_a_value_that_was_read_earlier_is_forgotten_earlier(ticks: Ticks) -> None:
    memory: Expiring[str, int] = Expiring(seconds=4.0, most=10)
    memory.put("a", 1, as_of=ticks.now - 3)
    ticks.now += 0.9
    assert memory.get("a") == 1
    ticks.now += 0.1
    assert memory.get("a") is None


def test_one_key_or_all_can_be_forgotten_at_once() -> None:
    memory: Expiring[str, int] = Expiring(seconds=60.0, most=10)
    for key in ("a", "b", "c"):
        memory.put(key, 1)
    memory.forget("a")
    memory.forget("never there")
    assert [memory.get(key) for key in ("a", "b", "c")] == [None, 1, 1]
    memory.clear()
    assert [memory.get(key) for key in ("a", "b", "c")] == [None, None, None]


def test_there_are_never_more_values_than_the_bound_and_the_newest_is_always_among_them() -> None:
    memory: Expiring[int, int] = Expiring(seconds=60.0, most=10)
    for key in range(95):
        memory.put(key, key)
        assert memory.get(key) == key
        assert len(memory) <= 10


def test_a_known_key_gets_a_new_value_without_anything_else_being_forgotten() -> None:
    memory: Expiring[str, int] = Expiring(seconds=60.0, most=2)
    memory.put("a", 1)
    memory.put("b", 1)
    memory.put("b", 2)
    assert (memory.get("a"), memory.get("b")) == (1, 2)


class Readings:
    """A table that is read in the end, as often as it is counted."""

    def __init__(self) -> None:
        self.count = 0
        self.may_end = asyncio.Event()
        self.answer: int | None = 1

    async def __call__(self) -> int | None:
        self.count += 1
        answer = self.answer
        await self.may_end.wait()
        if answer is None:
            raise LookupError
        return answer


async def asked_by(memory: Expiring[str, int | None], readings: Readings, count: int) -> list[asyncio.Task[int | None]]:
    """Let so many ask for the same, and wait until they do."""
    asking = [asyncio.create_task(memory.get_or_read("a", readings)) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return asking


async def test_many_who_miss_the_same_value_share_one_reading() -> None:
    memory: Expiring[str, int | None] = Expiring(seconds=60.0, most=10)
    readings = Readings()
    asking = await asked_by(memory, readings, 50)
    asking[0].cancel()  # whoever hangs up takes nothing from the others
    readings.may_end.set()
    assert await asyncio.gather(*asking[1:]) == [1] * 49
    assert await memory.get_or_read("a", readings) == 1
    assert readings.count == 1


async def test_a_reading_that_fails_fails_for_all_who_wait_and_the_next_one_reads_again() -> None:
    memory: Expiring[str, int | None] = Expiring(seconds=60.0, most=10)
    readings = Readings()
    readings.answer = None
    asking = await asked_by(memory, readings, 3)
    readings.may_end.set()
    assert [type(error) for error in await asyncio.gather(*asking, return_exceptions=True)] == [LookupError] * 3
    readings.answer = 2
    assert await memory.get_or_read("a", readings) == 2


@pytest.mark.parametrize("forget", [lambda memory: memory.forget("a"), lambda memory: memory.clear()])
async def test_what_was_being_read_when_it_changed_is_not_remembered(
    forget: Callable[[Expiring[str, int | None]], None],
) -> None:
    memory: Expiring[str, int | None] = Expiring(seconds=60.0, most=10)
    readings = Readings()
    before = await asked_by(memory, readings, 1)
    readings.answer = 2
    forget(memory)
    after = await asked_by(memory, readings, 1)
    readings.may_end.set()
    assert await asyncio.gather(*before, *after) == [1, 2]
    assert memory.get("a") == 2


async def test_a_reading_counts_from_when_it_began(ticks: Ticks) -> None:
    memory: Expiring[str, int | None] = Expiring(seconds=4.0, most=10)
    readings = Readings()
    asking = await asked_by(memory, readings, 1)
    ticks.now += 3
    readings.may_end.set()
    await asyncio.gather(*asking)
    ticks.now += 0.9
    assert memory.get("a") == 1
    ticks.now += 0.1
    assert memory.get("a") is None
