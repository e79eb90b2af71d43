"""Writing what exists nowhere else: again and again for as long as this process lives, whatever the database says."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import TypeVar

from evergrant.broker.runtime.broker import Broker
from evergrant.errors import EvergrantError, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSE = (0.1, 2.0)
"""Seconds between two tries that the database answers with an error: at first, and at most."""


async def until_stored(broker: Broker, store: Callable[[int], Awaitable[T]]) -> T:
    """Make a write until it is done, and return what it returned.

    `store` is told how often the database was there and refused what it was given.

    Raises:
        EvergrantError: as `store`, but for Unavailable; that is not tried again.
    """
    landing, pause, refusals = object(), PAUSE[0], 0
    try:
        while True:
            try:
                async with _no_longer_than_an_outage(broker):
                    stored = await store(refusals)
                broker.database_health.note_up()
                return stored
            except TimeoutError:
                wait = 0.0  # it hung on a connection that an outage, which is over, has killed
            except Unavailable as error:
                broker.database_health.note_away(error)
                wait = pause - await _seconds_until_up(broker)
            except EvergrantError:
                raise
            except Exception as error:  # a column or a right is away, a value is odd: nothing that lasts for ever
                if not refusals:
                    log.warning("the database refuses a provider's answer, which will be tried again", exc_info=error)
                refusals += 1
                wait = pause
            broker.landings.add(landing)
            broker.metrics.landings_retried.inc()
            await asyncio.sleep(max(0.0, wait))
            pause = min(pause * 2, PAUSE[1])
    finally:
        broker.landings.discard(landing)


def _no_longer_than_an_outage(broker: Broker) -> AbstractAsyncContextManager[None]:
    """Break off a write that hangs when an outage ends, with TimeoutError; one that waits for a lock keeps its place.

    SQLite has no connections that can die.
    """
    return nullcontext() if broker.database.is_sqlite else broker.database_health.until_it_is_back()


async def _seconds_until_up(broker: Broker) -> float:
    """Wait until the database answers, but look for oneself now and then; return for how long."""
    began = asyncio.get_running_loop().time()
    with suppress(TimeoutError):
        await asyncio.wait_for(broker.database_health.wait_until_up(), broker.pace.beat)
    return asyncio.get_running_loop().time() - began
