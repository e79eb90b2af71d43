"""Token endpoints as this process sees them: how much it asks of each at once, and when it leaves one alone.

One provider that is down or slow must neither starve the others nor be hammered. Failures in a row, of whatever grant,
open an endpoint's breaker; then one call at a time, after growing pauses, tries whether it is back. Each process
learns for itself: there is nothing to keep in step, and nothing to lose.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from evergrant.broker.runtime.backoff import doubling
from evergrant.db import OutboundApp
from evergrant.errors import UpstreamUnavailable

FAILURES_TO_OPEN = 5
"""Failures in a row that open a breaker. One user's 429 says nothing about the others; five failures in a row do."""
PAUSE = (2.0, 60.0)
"""Seconds for which a failing endpoint is left alone: at first, doubling, and at most."""
SLOT_SECONDS = 10.0
"""How long a call waits for a free slot."""
CALLS_AT_ONCE = 100
"""Calls to one endpoint at once: half of all connections, so that a slow endpoint leaves the others some."""


class Endpoint:
    """One token endpoint: a limit on calls, and a breaker (closed, open, or trying)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.failures = 0
        """Calls without a usable answer since the last with one."""
        self._slots = asyncio.Semaphore(CALLS_AT_ONCE)
        self._closed_again_at = 0.0
        self._trying = False

    @property
    def is_open(self) -> bool:
        """Whether it is left alone, but for single tries."""
        return self.failures >= FAILURES_TO_OPEN

    @property
    def may_try(self) -> bool:
        """Whether one call may find out if it is back: it is open, its pause is over, and nobody is at it."""
        return self.is_open and not self._trying and time.monotonic() >= self._closed_again_at

    @property
    def room(self) -> int:
        """How many calls may begin now."""
        if self.is_open:
            return int(self.may_try)
        return CALLS_AT_ONCE

    def require(self, name: str) -> None:
        """Check that a call may begin.

        Raises:
            UpstreamUnavailable: it has failed again and again; with the seconds until the next try.
        """
        if not self.room:
            wait = max(1, round(self._closed_again_at - time.monotonic() + 0.5))
            raise UpstreamUnavailable(
                f"{name} has not given a usable answer {self.failures} times in a row; it is tried again soon.",
                retry_after=wait,
            )

    @asynccontextmanager
    async def call(self, *, name: str) -> AsyncIterator[None]:
        """Make one call, waiting for a free slot.

        What is raised inside counts as a failure if it is `UpstreamUnavailable` or a timeout; every other outcome is an
        answer.

        Raises:
            UpstreamUnavailable: there was no free slot for too long.
        """
        try:
            async with asyncio.timeout(SLOT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise UpstreamUnavailable(
                f"{name} is slow, and too many calls are waiting for it.", retry_after=2
            ) from None
        trying = self.is_open
        self._trying = self._trying or trying
        try:
            yield
        except (UpstreamUnavailable, TimeoutError):
            self._failed()
            raise
        except Exception:
            self.failures = 0
            raise
        else:
            self.failures = 0
        finally:
            self._slots.release()
            if trying:
                self._trying = False

    def forgive(self) -> None:
        """Close the breaker: somebody has reason to believe that it works again."""
        self.failures = 0

    def _failed(self) -> None:
        self.failures += 1
        if self.is_open:
            pause = doubling(*PAUSE, failures=self.failures - FAILURES_TO_OPEN + 1)
            self._closed_again_at = time.monotonic() + pause


class Endpoints:
    """The endpoints that this process has called."""

    def __init__(self) -> None:
        self._by_url: dict[str, Endpoint] = {}

    def of(self, app: OutboundApp) -> Endpoint:
        """Return the endpoint that refreshes an app's grants; apps with the same URL share it."""
        return self.at(app.token_url)

    def at(self, url: str) -> Endpoint:
        """Return the endpoint at a URL. Where each connection has a host of its own, each host has its own breaker."""
        url = url.partition("?")[0]
        found = self._by_url.get(url)
        if found is None:
            found = self._by_url[url] = Endpoint(url)
        return found
