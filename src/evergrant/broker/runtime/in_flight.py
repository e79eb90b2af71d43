"""Calls in flight: so many in one process, and of one owner's, so that nobody's slow API is everybody's."""

from collections import Counter
from collections.abc import Hashable

from evergrant.errors import RateLimited

WAIT_SECONDS = 1


class InFlight:
    """Counts what is under way in this process; 0 for no limit."""

    def __init__(self, *, most: int, most_of_an_owner: int) -> None:
        self._most = most
        self._most_of_an_owner = most_of_an_owner
        self._by_owner: Counter[Hashable] = Counter()
        self._all = 0

    def __len__(self) -> int:
        """Return how many are under way."""
        return self._all

    def begin(self, owner: Hashable) -> None:
        """Have one more under way, until `end` is called with the same owner.

        Raises:
            RateLimited: there are as many as may be, of this owner's or in all.
        """
        if self._most_of_an_owner and self._by_owner[owner] >= self._most_of_an_owner:
            raise RateLimited(limit=self._most_of_an_owner, wait_seconds=WAIT_SECONDS)
        if self._most and self._all >= self._most:
            raise RateLimited(limit=self._most, wait_seconds=WAIT_SECONDS)
        self._by_owner[owner] += 1
        self._all += 1

    def end(self, owner: Hashable) -> None:
        """Have one less."""
        self._all -= 1
        self._by_owner[owner] -= 1
        if not self._by_owner[owner]:
            del self._by_owner[owner]
