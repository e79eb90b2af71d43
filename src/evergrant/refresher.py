"""The background refresher: keeps the fetch call from ever waiting for a provider.

Any number of these run at once, inside `evergrant serve` or alone; leases on the rows keep them apart.
"""

import asyncio
import contextlib
import logging
import random
import signal

from evergrant import clock
from evergrant.broker.completion import clear_finished
from evergrant.broker.landing import GIVE_UP_SECONDS, replay
from evergrant.broker.revocation import revoke_due
from evergrant.broker.runtime import Broker, open_broker
from evergrant.broker.sweep import claim_due, refresh_claimed
from evergrant.errors import EvergrantError
from evergrant.settings import Settings

log = logging.getLogger(__name__)

CONCURRENCY = 32
"""How many refreshes one refresher has in flight."""
POLL_SECONDS = 1.0
PAUSE_AFTER_FAILURE_SECONDS = 5.0
CHORES_SECONDS = 60.0


async def refresh_until(broker: Broker, stop: asyncio.Event) -> None:
    """Take up due grants until `stop` is set, then let those in flight finish.

    A slow provider holds its own slots only: new work is claimed as soon as a quarter of the slots is free.
    """
    running: set[asyncio.Task[None]] = set()
    chores: asyncio.Task[None] | None = None
    next_chores = 0.0
    while not stop.is_set():
        claimed = 0
        pause = POLL_SECONDS * random.uniform(0.75, 1.25)  # noqa: S311 - replicas must not march in step
        free = CONCURRENCY - len(running)
        try:
            if free >= CONCURRENCY // 4:
                claims = await claim_due(broker, limit=free, now=clock.utcnow())
                claimed = len(claims)
                for claim in claims:
                    task = asyncio.create_task(refresh_claimed(broker, claim))
                    running.add(task)
                    task.add_done_callback(running.discard)
            if asyncio.get_running_loop().time() >= next_chores and (chores is None or chores.done()):
                chores = asyncio.create_task(_chores(broker, stop))
                next_chores = asyncio.get_running_loop().time() + CHORES_SECONDS
        except EvergrantError:
            log.exception("the sweep failed and will try again")
            pause = PAUSE_AFTER_FAILURE_SECONDS
        if claimed == 0 or claimed == free:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.05 if claimed else pause)
    if running:
        log.info("finishing refreshes in flight", extra={"inFlight": len(running)})
        await asyncio.wait(running)
    if chores is not None:
        await chores


async def _chores(broker: Broker, stop: asyncio.Event) -> None:
    """Do what nobody waits for, beside the sweep: a provider that is slow to revoke must not hold refreshes up."""
    try:
        await replay(broker, older_than_seconds=GIVE_UP_SECONDS)  # what a landing in this very process gave up
        await clear_finished(broker, now=clock.utcnow())
        while not stop.is_set() and await revoke_due(broker, now=clock.utcnow()):
            pass
    except EvergrantError:
        log.exception("the chores failed and will be tried again")
    except Exception:
        log.exception("the chores broke")


async def run(settings: Settings) -> None:
    """Run a refresher alone, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_broker(settings) as broker:
        log.info("refreshing in the background")
        await refresh_until(broker, stop)
