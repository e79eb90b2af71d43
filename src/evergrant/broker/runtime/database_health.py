"""Whether the database is there, as this process sees it: noted once for each outage, whoever finds out first.

Whoever waits for the database waits here, and not with tries of its own: when it is back, all learn it at once.
"""

import asyncio
import logging
import time

from evergrant.errors import Busy, Unavailable

log = logging.getLogger(__name__)


class DatabaseHealth:
    """One process's knowledge of its database."""

    def __init__(self) -> None:
        self._up = asyncio.Event()
        self._up.set()
        self._since = time.monotonic()

    @property
    def is_up(self) -> bool:
        """Whether it answered when it was last asked."""
        return self._up.is_set()

    @property
    def seconds(self) -> float:
        """For how long it has been as it is: up without a gap, or away."""
        return time.monotonic() - self._since

    def note_away(self, error: Unavailable) -> None:
        """Note that it does not answer, unless it is only busy. The log says so once for each outage."""
        if self.is_up and not isinstance(error, Busy):
            self._up.clear()
            self._since = time.monotonic()
            log.warning("the database is away", exc_info=error)

    def note_up(self) -> None:
        """Note that it answers."""
        if not self.is_up:
            log.warning("the database is back", extra={"awayForSeconds": round(self.seconds)})
            self._since = time.monotonic()
            self._up.set()

    async def wait_until_up(self) -> None:
        """Return as soon as it answers."""
        await self._up.wait()
