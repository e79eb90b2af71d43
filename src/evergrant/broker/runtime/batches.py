"""Work for a thread, handed over several pieces at a time."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Generic, TypeVar

P = TypeVar("P")
R = TypeVar("R")


class Batches(Generic[P, R]):
    """Has one thread work off pieces of one kind: those that come while it is at work are its next batch.

    A hand-over wakes a thread and then the event loop, which costs more than a small piece does; and each further
    thread fights the loop for the interpreter.
    """

    def __init__(self, work: Callable[[Sequence[P]], Sequence[R]], threads: Executor) -> None:
        self._work = work
        """Does a batch, and returns what came of each piece. It runs in a thread."""
        self._threads = threads
        self._waiting: list[tuple[P, asyncio.Future[R]]] = []
        self._is_at_work = False

    async def do(self, piece: P) -> R:
        """Have one piece done, and return what came of it. Raises what the work raises."""
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((piece, done))
        if not self._is_at_work:
            self._begin()
        return await done

    def _begin(self) -> None:
        batch, self._waiting = self._waiting, []
        self._is_at_work = True
        pieces = [piece for piece, _ in batch]
        working = asyncio.get_running_loop().run_in_executor(self._threads, self._work, pieces)
        working.add_done_callback(partial(self._ended, [done for _, done in batch]))

    def _ended(self, batch: Sequence[asyncio.Future[R]], working: asyncio.Future[Sequence[R]]) -> None:
        self._is_at_work = False
        if self._waiting:
            self._begin()
        error = working.exception()
        for number, done in enumerate(batch):
            if done.done():
                continue  # who wanted it waits no more
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(working.result()[number])
