"""Tasks in the background: at most so many at once, and of these at most so many for one key."""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Hashable, Mapping
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class WorkerPool(Generic[K]):
    """Runs tasks, each for a key, within two bounds. Whoever starts them asks for room first."""

    def __init__(self, *, most: int, most_per_key: int) -> None:
        self._most = most
        self._most_per_key = most_per_key
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_key: Counter[K] = Counter()
        self._some_ended = asyncio.Event()
        self._half_free = asyncio.Event()

    def __len__(self) -> int:
        """Return how many tasks are running."""
        return len(self._tasks)

    @property
    def by_key(self) -> Mapping[K, int]:
        """How many tasks are running for each key; 0 for one that is not in it."""
        return self._by_key

    @property
    def room(self) -> int:
        """How many tasks may be started now, for whatever keys."""
        return self._most - len(self._tasks)

    def room_for(self, key: K) -> int:
        """Return how many tasks may be started now for a key."""
        return min(self._most_per_key - self._by_key[key], self.room)

    def start(self, key: K, work: Coroutine[Any, Any, None]) -> None:
        """Start a task. If it raises, the log says so, and nothing else happens.

        Raises:
            RuntimeError: there is no room for it.
        """
        if self.room_for(key) <= 0:
            work.close()
            raise RuntimeError(f"no room for another task of {key!r}")
        task = asyncio.create_task(work)
        self._tasks.add(task)
        self._by_key[key] += 1
        self._half_free.clear()
        task.add_done_callback(lambda done: self._ended(key, done))

    async def wait_for_slot(self, stop: asyncio.Event, *, seconds: float | None = None) -> None:
        """Wait until a task has ended since the last call, `stop` is set, or so many seconds are over."""
        await _first_of(self._some_ended, stop, seconds=seconds)
        self._some_ended.clear()

    async def wait_for_half(self, stop: asyncio.Event, *, seconds: float) -> None:
        """Wait until a key that lost a task since the last start has room for half of what it may have.

        Or until `stop` is set, or so many seconds are over.
        """
        await _first_of(self._half_free, stop, seconds=seconds)
        self._half_free.clear()

    async def drain(self, *, grace_seconds: float | None = None) -> None:
        """Let every task finish. After `grace_seconds`, those still running are cancelled; None never cancels."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=grace_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _ended(self, key: K, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._by_key[key] -= 1
        if not self._by_key[key]:
            del self._by_key[key]
        self._some_ended.set()
        if self.room_for(key) >= self._most_per_key // 2:
            self._half_free.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task in the background broke", exc_info=error)


async def _first_of(*events: asyncio.Event, seconds: float | None) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
