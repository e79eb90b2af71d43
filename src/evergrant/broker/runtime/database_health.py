"""Whether the database is there, as this process sees it: noted once for each outage, whoever finds out first.

Whoever waits for the database waits here, and not with tries of its own: when it is back, all learn it at once.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from evergrant.errors import Busy, KeyServiceUnavailable, Unavailable

log = logging.getLogger(__name__)

LAST_SECONDS = 1.0
"""What began before the database was back has so much time to end well."""


class DatabaseHealth:
    """One process's knowledge of its database."""

    def __init__(self) -> None:
        self._up = asyncio.Event()
        self._up.set()
        self._back = asyncio.Event()
        """Set when the outage ends that is the present one or the next; then another takes its place."""
        self._away = asyncio.Event()
        self._since = time.monotonic()
        self._under_way: set[asyncio.Timeout] = set()

    @property
    def is_up(self) -> bool:
        """Whether it answered when it was last asked."""
        return self._up.is_set()

    @property
    def seconds(self) -> float:
        """For how long it has been as it is: up without a gap, or away."""
        return time.monotonic() - self._since

    def note_away(self, error: Unavailable) -> None:
        """Note that it does not answer, unless it is only busy, or another is. The log says so once for each outage."""
        if self.is_up and not isinstance(error, Busy | KeyServiceUnavailable):
            self._up.clear()
            self._away.set()
            self._since = time.monotonic()
            log.warning("the database is away", exc_info=error)

    def note_up(self) -> None:
        """Note that it answers."""
        if not self.is_up:
            log.warning("the database is back", extra={"awayForSeconds": round(self.seconds)})
            self._since = time.monotonic()
            self._away.clear()
            self._up.set()
            while self._under_way:
                self._under_way.pop().reschedule(asyncio.get_running_loop().time() + LAST_SECONDS)
            self._back.set()
            self._back = asyncio.Event()

    async def wait_until_up(self) -> None:
        """Return as soon as it answers."""
        await self._up.wait()

    async def wait_until_back(self) -> None:
        """Return when an outage ends, the present one or the next."""
        await self._back.wait()

    @asynccontextmanager
    async def until_it_is_back(self) -> AsyncIterator[None]:
        """Break off what is under way in the block a second after an outage: its connection may lead nowhere.

        Raises:
            TimeoutError: that has happened.
        """
        async with asyncio.timeout(None) as limit:
            self._under_way.add(limit)
            try:
                yield
            finally:
                self._under_way.discard(limit)

    async def wait_until_away(self) -> None:
        """Return as soon as somebody has found that it does not answer."""
        await self._away.wait()
