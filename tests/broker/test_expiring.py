"""The memory for what may be some seconds old: nothing is remembered longer, and nothing without a bound."""

import time

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
