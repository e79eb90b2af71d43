"""Single flight: one task per key in this process, shared by all who ask for it while it runs."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Runs at most one task per key. A caller that stops waiting does not cancel the task."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[V]] = {}

    def __len__(self) -> int:
        """Return how many tasks are in flight."""
        return len(self._tasks)

    def is_running(self, key: K) -> bool:
        """Tell whether a task for `key` is in flight."""
        return key in self._tasks

    def start(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> asyncio.Task[V]:
        """Return the running task for `key`, starting `work` if there is none.

        Await it through `asyncio.shield`, so that a caller who hangs up cancels only its own wait.
        """
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.create_task(work(), name=f"flight {key}")
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return task

    async def drain(self, grace_seconds: float) -> None:
        """Let what is in flight finish, for at most `grace_seconds`."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=grace_seconds)
            if late:
                log.error("stopping with work in flight", extra={"inFlight": len(late)})

    def _landed(self, key: K, task: asyncio.Task[V]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # mark it as seen: every caller may have hung up
