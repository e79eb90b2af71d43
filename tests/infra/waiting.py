"""How tests wait: for something to hold, never for a time to pass."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds until a test gives up on what has to come. It bounds a hang and nothing else: tests that pass never get near
it, also on a machine that has other things to do."""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition` holds; fail with `what` when it does not come to hold."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.005)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Do the same in an event loop, which goes on meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        await asyncio.sleep(0.005)


def in_a_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread of its own: an event loop may be running in this one, Playwright's for example."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
