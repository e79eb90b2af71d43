"""How tests wait: for something to hold, never for a time to pass."""

import asyncio
import time
from collections.abc import Callable

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
