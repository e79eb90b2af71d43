"""Time in which this process listened: deadlines that a process which stood still does not hold against a provider.

A process stands still when its machine is paused, migrated or swaps, or when somebody stops it. When it goes on, every
timer is over at once, before the loop has read what lies in its sockets. An answer with a new refresh token may be
among that.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

TICK_SECONDS = 0.1
"""How often time is counted: a limit is exact to some ticks."""
MOST_AT_ONCE = 1.0
"""Of two ticks that are further apart, so many seconds count: for the rest nobody listened."""
LOOKS = 3
"""Ticks that must find a limit over before it counts: between two ticks the loop reads what has arrived."""


class _Limit:
    """How long something may take: until a moment of `Listening.now`."""

    def __init__(self, scope: asyncio.Timeout, ends: float) -> None:
        self._scope = scope
        self._ends = ends
        self._found_over = 0

    def look(self, now: float) -> None:
        """Cancel what is under way, if it is over and has been for some looks."""
        self._found_over = self._found_over + 1 if now >= self._ends else 0
        if self._found_over >= LOOKS and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())


class Listening:
    """Counts the time of one loop, as long as somebody has a limit."""

    def __init__(self) -> None:
        self._limits: set[_Limit] = set()
        self._counted = 0.0
        self._ticked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def now(self) -> float:
        """Seconds that this process has listened; they count from some moment, and only while there is a limit."""
        if self._timer is None:
            return self._counted
        since = asyncio.get_running_loop().time() - self._ticked_at
        return self._counted + min(since, MOST_AT_ONCE)

    @asynccontextmanager
    async def at_most(self, seconds: float) -> AsyncIterator[None]:
        """Let what is inside take so many seconds of listening.

        Raises:
            TimeoutError: it took longer, and was cancelled.
        """
        async with asyncio.timeout(None) as scope:
            if self._timer is None:
                self._ticked_at = asyncio.get_running_loop().time()
                self._next_tick()
            limit = _Limit(scope, self.now + seconds)
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    def _next_tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._counted = self.now
        self._ticked_at = asyncio.get_running_loop().time()
        for limit in tuple(self._limits):
            limit.look(self._counted)
        if self._limits:
            self._next_tick()
        else:
            self._timer = None
