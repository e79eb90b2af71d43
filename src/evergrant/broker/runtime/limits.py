"""Limits on how fast one caller may ask: token buckets, kept by each process for itself."""

import time
from collections.abc import Hashable

from evergrant.errors import RateLimited

BURST_SECONDS = 10
"""Unused requests are saved up for so many seconds, and may then be made at once."""
MAX_REMEMBERED = 10_000


class RateLimit:
    """A limit on each caller's requests per second; 0 for no limit."""

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._most = float(per_second * BURST_SECONDS)
        self._buckets: dict[Hashable, tuple[float, float]] = {}
        """What a caller has left, and when that was so; a caller that is not here has everything."""

    def require(self, caller: Hashable) -> None:
        """Check that a caller has something left, taking nothing.

        Raises:
            RateLimited: it has not; with the seconds until it will.
        """
        if self.per_second and (left := self._left(caller, time.monotonic())) < 1.0:
            raise RateLimited(limit=self.per_second, wait_seconds=(1.0 - left) / self.per_second)

    def take(self, caller: Hashable) -> None:
        """Count one request.

        Raises:
            RateLimited: the caller has nothing left.
        """
        if not self.per_second:
            return
        now = time.monotonic()
        left = self._left(caller, now)
        if left < 1.0:
            raise RateLimited(limit=self.per_second, wait_seconds=(1.0 - left) / self.per_second)
        if len(self._buckets) >= MAX_REMEMBERED:
            self._forget(now)
        self._buckets[caller] = (left - 1.0, now)

    def _left(self, caller: Hashable, now: float) -> float:
        bucket = self._buckets.get(caller)
        return self._most if bucket is None else min(self._most, bucket[0] + (now - bucket[1]) * self.per_second)

    def _forget(self, now: float) -> None:
        """Forget callers whose bucket is full again, or all callers if there is none: memory is bounded."""
        kept = {caller: bucket for caller, bucket in self._buckets.items() if self._left(caller, now) < self._most}
        self._buckets = kept if len(kept) < MAX_REMEMBERED else {}


class Limits:
    """The limits of one process."""

    def __init__(self, *, per_key: int, per_address: int) -> None:
        self.keys = RateLimit(per_key)
        """Requests of a management key, or of a user."""
        self.addresses = RateLimit(per_address)
        """Refused credentials and pages for browsers, by address: requests of callers who are not identified."""
