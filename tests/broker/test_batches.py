"""Work for a thread: what comes while it is busy is done together, and who waits for it hears what came of it."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from evergrant.broker.runtime.batches import Batches


class Desk:
    """Doubles numbers, one batch after another, when it may; refuses a batch with a negative one."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.batches: list[list[int]] = []

    def work(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        assert self.may.wait(30)
        if min(numbers) < 0:
            raise ValueError("negative")
        return [number * 2 for number in numbers]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


async def test_what_comes_while_the_thread_is_busy_is_its_next_batch(threads: ThreadPoolExecutor) -> None:
    desk = Desk()
    batches = Batches(desk.work, threads)
    waiting = [asyncio.create_task(batches.do(number)) for number in range(5)]
    await asyncio.sleep(0)
    desk.may.set()
    assert await asyncio.gather(*waiting) == [0, 2, 4, 6, 8]
    assert desk.batches == [[0], [1, 2, 3, 4]]
    assert await batches.do(7) == 14


async def test_a_batch_that_fails_is_heard_of_by_all_and_the_next_one_is_done(threads: ThreadPoolExecutor) -> None:
    desk = Desk()
    batches = Batches(desk.work, threads)
    waiting = [asyncio.create_task(batches.do(number)) for number in (1, -2, 3)]
    await asyncio.sleep(0)
    desk.may.set()
    first, *others = await asyncio.gather(*waiting, return_exceptions=True)
    assert first == 2
    assert [str(other) for other in others] == ["negative", "negative"]
    assert await batches.do(4) == 8


async def test_who_waits_no_more_takes_nothing_from_the_others(threads: ThreadPoolExecutor) -> None:
    desk = Desk()
    batches = Batches(desk.work, threads)
    waiting = [asyncio.create_task(batches.do(number)) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    desk.may.set()
    assert await waiting[0] == 2
    assert await waiting[2] == 6
    assert waiting[1].cancelled()
