"""The background refresher: keeps the fetch call from ever waiting for a provider.

Any number of these run at once, inside `evergrant serve` or alone; leases on the rows keep them apart.
"""

import asyncio
import logging
import signal
from typing import Any

from evergrant.broker.refresh.scheduler import Scheduler
from evergrant.broker.refresh.sweep import Sweep
from evergrant.broker.revocations.revoking import revoke_until
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.webhooks.delivery import deliver_until
from evergrant.chores import OF_A_PROCESS, OF_A_REFRESHER, WRITE_ACTIVITY, do_a_last_time, do_until
from evergrant.errors import EvergrantError, Unavailable
from evergrant.settings import Settings
from evergrant.tracing import stop_tracing

log = logging.getLogger(__name__)

PAUSE_AFTER_FAILURE_SECONDS = 5.0


async def refresh_until(broker: Broker, stop: asyncio.Event) -> None:
    """Refresh in the background and do the chores until `stop` is set; refreshes in flight finish first."""
    await asyncio.gather(_sweep_until(broker, stop), revoke_until(broker, stop), do_until(broker, OF_A_REFRESHER, stop))


async def _sweep_until(broker: Broker, stop: asyncio.Event) -> None:
    """Take up due grants until `stop` is set, then let those in flight finish."""
    scheduler = Scheduler(broker)
    while not stop.is_set():
        try:
            await Sweep(broker, scheduler, stop).run()
        except Unavailable as error:
            broker.database_health.note_away(error)
            await _pause(broker, stop)
        except EvergrantError:
            log.exception("the sweep failed and will try again")
            await _pause(broker, stop)
    if scheduler.pool:
        log.info("finishing refreshes in flight", extra={"inFlight": len(scheduler.pool)})
        await scheduler.pool.drain()


async def _pause(broker: Broker, stop: asyncio.Event) -> None:
    """Wait a while, but not longer than the database is away."""
    waits: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
    if not broker.database_health.is_up:
        waits.append(asyncio.create_task(broker.database_health.wait_until_up()))
    try:
        await asyncio.wait(waits, timeout=PAUSE_AFTER_FAILURE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def run(settings: Settings) -> None:
    """Run a refresher alone, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    async with open_broker(settings) as broker:

        def stop_soon() -> None:
            stop.set()
            broker.stop_waiting()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop_soon)
        log.info("refreshing in the background")
        await asyncio.gather(
            do_until(broker, OF_A_PROCESS, stop), refresh_until(broker, stop), deliver_until(broker, stop)
        )
        await do_a_last_time(broker, [WRITE_ACTIVITY])
    await stop_tracing()
