"""Looking together: many who wait for rows to change ask the database in one question, a few times a second."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from typing import Generic, TypeVar

from evergrant.broker.runtime.backoff import jittered

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PAUSE_SECONDS = 0.2
"""Between two looks, more or less."""
AT_MOST = 500
"""How many rows one question asks for."""

Look = Callable[[Collection[K]], Awaitable[Mapping[K, V]]]


class SharedLook(Generic[K, V]):
    """Gathers what is asked for between two looks."""

    def __init__(self) -> None:
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def next(self, key: K, look: Look[K, V]) -> V | None:
        """Return what the next look finds for a key; None where there is nothing.

        All who ask at one time give the same `look`, which returns what is there of a number of keys.

        Raises:
            Exception: what `look` raised.
        """
        found = self._waiting.setdefault(key, asyncio.get_running_loop().create_future())
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(look))
        return await asyncio.shield(found)

    async def _look(self, look: Look[K, V]) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(jittered(PAUSE_SECONDS))
                asked = {key: self._waiting.pop(key) for key in list(self._waiting)[:AT_MOST]}
                try:
                    found = await look(asked.keys())
                except Exception as error:  # noqa: BLE001 - theirs to handle who asked
                    for future in asked.values():
                        future.set_exception(error)
                        future.exception()  # mark it as seen: whoever asked may have gone
                else:
                    for key, future in asked.items():
                        future.set_result(found.get(key))
        finally:
            self._looking = None
