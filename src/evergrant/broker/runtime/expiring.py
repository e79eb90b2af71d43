"""A small memory for what is asked for again and again, and may be some seconds old."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

from evergrant.broker.runtime.single_flight import SingleFlight

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Expiring(Generic[K, V]):
    """Remembers a value for some seconds, and at most so many values. Each process has its own."""

    def __init__(self, *, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._entries: dict[K, tuple[V, float]] = {}
        """Each value with the monotonic second at which it is forgotten."""
        self._readings: SingleFlight[K, V] = SingleFlight()
        """Another one after something was forgotten: what was read before may be what has changed."""

    def __len__(self) -> int:
        """Return how many values take up memory, those that have expired among them."""
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return what is remembered for `key`, or None."""
        entry = self._entries.get(key)
        return entry[0] if entry is not None and entry[1] > time.monotonic() else None

    async def get_or_read(self, key: K, read: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Return what is remembered for `key`, or else what `read` returns, which is then remembered unless it is None.

        All who ask meanwhile share one reading: whatever many ask for again and again, they miss it all at once.

        Raises:
            Exception: what `read` raises, to each of them. It is not remembered.
        """
        known = self.get(key)
        if known is None:
            known = await asyncio.shield(self._readings.start(key, partial(self._read, key, read)))
        return known

    async def _read(self, key: K, read: Callable[[], Coroutine[Any, Any, V]]) -> V:
        readings, asked_at = self._readings, time.monotonic()
        value = await read()
        if value is not None and readings is self._readings:
            self.put(key, value, as_of=asked_at)
        return value

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
        self._readings = SingleFlight()

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._readings = SingleFlight()
