"""The answers in hand of one process that the database has not taken yet: how many, and what a stop does with them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Landings:
    """Counts the landings that wait for the database, and lets go of those that the journal has when it is time."""

    def __init__(self) -> None:
        self._waiting: set[object] = set()
        self._in_journal: set[asyncio.Timeout] = set()
        self._within: float | None = None

    def __len__(self) -> int:
        """Return how many have been tried and wait for the database. They go before anything new is begun."""
        return len(self._waiting)

    def add(self, landing: object) -> None:
        """Count a landing that has been tried in vain."""
        self._waiting.add(landing)

    def discard(self, landing: object) -> None:
        """Count it no more, if it was counted."""
        self._waiting.discard(landing)

    @asynccontextmanager
    async def until_let_go(self) -> AsyncIterator[None]:
        """Break off the landing in the block, which the journal has, some time after `let_go`.

        Raises:
            TimeoutError: that has happened.
        """
        async with asyncio.timeout(self._within) as limit:
            self._in_journal.add(limit)
            try:
                yield
            finally:
                self._in_journal.discard(limit)

    def let_go(self, *, within: float) -> None:
        """Give what is in the journal so many seconds, now and from now on: whoever uses the folder next lands it."""
        self._within = within
        while self._in_journal:
            self._in_journal.pop().reschedule(asyncio.get_running_loop().time() + within)
