"""One client at one endpoint: what the provider allows it, and the queue of those who wait for a turn."""

import asyncio
import time

from evergrant.broker.runtime.allowance import Allowance


class EndpointClient:
    """A client id, as one process uses it at one address."""

    __slots__ = ("allowance", "queue", "used_at", "waiting")

    def __init__(self) -> None:
        self.allowance = Allowance()
        self.queue = asyncio.Lock()
        self.waiting = 0
        self.used_at = 0.0

    def wait(self, now: float) -> float:
        """Return the seconds that another call would wait for its turn."""
        return self.allowance.wait(now) + self.waiting / self.allowance.rate

    def is_idle(self, since: float) -> bool:
        """Tell whether nobody has used it since then."""
        return self.used_at < since and not self.waiting

    async def turn(self) -> None:
        """Wait for the turn of one call, after those who asked earlier."""
        self.waiting += 1
        try:
            async with self.queue:
                while (seconds := self.allowance.wait(time.monotonic())) > 0:  # noqa: ASYNC110 - it waits for a moment
                    await asyncio.sleep(seconds)
                self.allowance.take(time.monotonic())
        finally:
            self.waiting -= 1
