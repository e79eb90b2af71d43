"""A small memory for what is asked for again and again, and may be some seconds old."""

import time
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Expiring(Generic[K, V]):
    """Remembers a value for some seconds, and at most so many values. Each process has its own."""

    def __init__(self, *, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._entries: dict[K, tuple[V, float]] = {}
        """Each value with the monotonic second at which it is forgotten."""

    def __len__(self) -> int:
        """Return how many values take up memory, those that have expired among them."""
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return what is remembered for `key`, or None."""
        entry = self._entries.get(key)
        return entry[0] if entry is not None and entry[1] > time.monotonic() else None

    def put(self, key: K, value: V, *, as_of: float | None = None) -> None:
        """Remember a value for `key`.

        Args:
            key: what it is found by.
            value: what is remembered. One that is None would not be found.
            as_of: the monotonic second at which it was true, where that is not now: a query can take its time.
        """
        if len(self._entries) >= self._most and key not in self._entries:
            self._entries.clear()  # memory is bounded, whatever comes; what is still needed is looked up again
        self._entries[key] = value, (time.monotonic() if as_of is None else as_of) + self._seconds

    def forget(self, key: K) -> None:
        """Forget what is remembered for `key`, if anything is."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
