"""Limits on how fast one caller may ask: token buckets, kept by each process for itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from heapq import nsmallest
from math import ceil
from typing import NamedTuple

from evergrant.broker.runtime.principal import Principal
from evergrant.errors import RateLimited

SAVED = 10
"""So much of a limit is saved up while it is not used, and may then be used at once."""
MAX_REMEMBERED = 10_000
"""How many callers are remembered; then half of them are forgotten, those that have most left."""
AT_ONCE = 4
"""How many callers whose address is at its limit are looked up at once: they may be good ones, so each gets its turn,
and the rest of the database's connections is for others."""
TRIP_REQUESTS = 30
"""How often in a minute the pages of one connect trip may be asked for."""


class Left(NamedTuple):
    """What a caller has left of a limit, as the answer's `x-ratelimit-*` headers say it."""

    limit: int
    remaining: int
    """Requests that may be made now, as far as one period of the limit goes."""
    reset: int
    """Seconds until there is one; 0 if there is."""


class RateLimit:
    """A limit on what each caller does in a period, of a second if nothing else is said; 0 for no limit."""

    def __init__(self, limit: int, *, seconds: float = 1.0, saved: int = SAVED) -> None:
        self.limit = limit
        self._rate = limit / seconds
        self._most = float(limit * saved)
        self._buckets: dict[Hashable, tuple[float, float]] = {}
        """What a caller has left, and when that was so; a caller that is not here has everything."""

    def __len__(self) -> int:
        """Return how many callers are remembered."""
        return len(self._buckets)

    def has(self, caller: Hashable) -> bool:
        """Tell whether a caller has something left."""
        return not self.limit or self._left(caller, time.monotonic()) >= 1.0

    def left(self, caller: Hashable) -> Left:
        """Return what a caller has left."""
        left = self._left(caller, time.monotonic())
        return Left(self.limit, min(self.limit, int(left)), 0 if left >= 1.0 else self._wait(left))

    def take(self, caller: Hashable) -> None:
        """Count one request.

        Raises:
            RateLimited: the caller has nothing left.
        """
        if not self.limit:
            return
        now = time.monotonic()
        left = self._left(caller, now)
        if left < 1.0:
            raise RateLimited(limit=self.limit, wait_seconds=self._wait(left))
        if len(self._buckets) >= MAX_REMEMBERED and caller not in self._buckets:
            self._forget(now)
        self._buckets[caller] = (left - 1.0, now)

    def allows(self, caller: Hashable) -> bool:
        """Count one request if the caller has something left, and tell whether it had."""
        try:
            self.take(caller)
        except RateLimited:
            return False
        return True

    def _left(self, caller: Hashable, now: float) -> float:
        bucket = self._buckets.get(caller)
        return self._most if bucket is None else min(self._most, bucket[0] + (now - bucket[1]) * self._rate)

    def _wait(self, left: float) -> int:
        return max(1, ceil((1.0 - left) / self._rate))

    def _forget(self, now: float) -> None:
        """Forget the half that has most left. Whoever is at a limit stays: no number of others makes it forgotten."""
        emptiest = nsmallest(MAX_REMEMBERED // 2, self._buckets, key=lambda caller: self._left(caller, now))
        self._buckets = {caller: self._buckets[caller] for caller in emptiest}


class AddressLimit(RateLimit):
    """A limit on what is refused to callers from one address. Only failures count, so it locks no good caller out."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._narrow = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Let a caller be looked up: at once, or one after another where its address is at the limit."""
        if self.has(address):
            yield
            return
        async with self._narrow:
            yield


class Limits:
    """The limits of one process."""

    def __init__(
        self, *, per_key: int, per_user: int, per_owner: int, connects_per_user: int, per_address: int
    ) -> None:
        self.keys = RateLimit(per_key)
        """Requests of a management key, or of a tenant's machine."""
        self.users = RateLimit(per_user)
        """Requests of a user with a JWT, or of one agent session: apart, so that no flood is anybody else's."""
        self.owners = RateLimit(per_owner)
        """Calls of APIs with one owner's connections, whoever makes them."""
        self.connects = RateLimit(connects_per_user, seconds=60.0, saved=1)
        """Connect trips that a user begins with a JWT."""
        self.credentials = AddressLimit(per_address)
        """Refused credentials, by address."""
        self.pages = AddressLimit(per_address)
        """Pages for browsers that ask for nothing that there is, by address."""
        self.trips = RateLimit(TRIP_REQUESTS if per_address else 0, seconds=60.0, saved=2)
        """Pages of one connect trip, by its request."""
        self.denials = RateLimit(1, seconds=60.0, saved=1)
        """Records of what was refused, by who and what: the audit log keeps one a minute."""

    def of(self, principal: Principal) -> RateLimit:
        """Return the limit on somebody's requests."""
        return self.users if principal.user_id or principal.session is not None else self.keys
