"""What is asked for again and again of grants: kept for a second at most, and for no write to grants.

Fetches keep the row, sealed as it is; calls of APIs the opened credential. A connection that another process ends is so
over within a second here, and one that this process ends at once. Only what there is gets in: that there is none is
looked up each time. Who may have it is decided each time, too.
"""

import asyncio
import time
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from evergrant.db.engine import Database

SECONDS = 0.9
SLOWEST_READ_SECONDS = 0.1
"""What took longer to read is not kept: with `SECONDS`, nothing is older than one."""
MOST = 2_000
"""How many are kept at most. Some hold a credential in the clear, so all go as soon as their time is over."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Mark(NamedTuple):
    """A moment, from before something was read."""

    writes: int
    at: float


class HotSet(Generic[K, V]):
    """Values that stand as long as nothing is written to the grants, and for a second at most."""

    def __init__(self, database: Database, *, is_on: bool = True) -> None:
        """`is_on` is the setting: nothing is kept where it is not."""
        self._database = database
        self._is_on = is_on
        self._entries: dict[K, V] = {}
        self._writes = 0
        self._until = 0.0
        self._over: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._entries)

    def mark(self) -> Mark:
        """Return the moment, to be given to `put` with what is read from now on."""
        return Mark(self._database.grant_writes, time.monotonic())

    def get(self, key: K) -> V | None:
        """Return what is kept for `key`, or None."""
        # The timer alone would not do: who was held up, or stopped, by its machine may come here before it.
        if self._writes != self._database.grant_writes or time.monotonic() > self._until:
            self.clear()
        return self._entries.get(key)

    def put(self, key: K, value: V, *, read_since: Mark) -> None:
        """Keep a value that was read since a moment, unless it may be an old one already."""
        is_new = self._is_on and read_since.writes == self._database.grant_writes
        if not is_new or time.monotonic() - read_since.at > SLOWEST_READ_SECONDS or len(self._entries) >= MOST:
            return
        if self._writes != read_since.writes:
            self.clear()
        if self._over is None:
            self._until = time.monotonic() + SECONDS
            self._over = asyncio.get_running_loop().call_later(SECONDS, self.clear)
        self._entries[key] = value

    def clear(self) -> None:
        """Keep nothing."""
        self._entries.clear()
        self._writes = self._database.grant_writes
        if self._over is not None:
            self._over.cancel()
            self._over = None
