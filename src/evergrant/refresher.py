"""The background refresher: keeps the fetch call from ever waiting for a provider.

Any number of these run at once, inside `evergrant serve` or alone; leases on the rows keep them apart.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Sequence

from evergrant import clock
from evergrant.broker.connect.confirmation import clear_finished_requests
from evergrant.broker.connections.revocation import revoke_due
from evergrant.broker.refresh.replay import replay_until
from evergrant.broker.refresh.scheduler import Queue, Scheduler
from evergrant.broker.refresh.sweep import due_apps
from evergrant.broker.runtime.backoff import jittered
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.webhooks.delivery import deliver_until
from evergrant.broker.webhooks.log import clear_old_deliveries
from evergrant.errors import EvergrantError
from evergrant.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
PAUSE_AFTER_FAILURE_SECONDS = 5.0
CHORES_SECONDS = 60.0


async def refresh_until(broker: Broker, stop: asyncio.Event) -> None:
    """Refresh in the background and do the chores until `stop` is set; what is in flight finishes first."""
    await asyncio.gather(_sweep_until(broker, stop), _do_chores(broker, stop))


async def _sweep_until(broker: Broker, stop: asyncio.Event) -> None:
    """Take up due grants until `stop` is set, then let those in flight finish."""
    scheduler = Scheduler(broker)
    while not stop.is_set():
        pause = jittered(POLL_SECONDS)  # replicas must not march in step
        try:
            now = clock.now()
            queues = [Queue.of(one, now=now) for one in await due_apps(broker, now=now)]
            if await _work_off(scheduler, queues, stop):
                continue
        except EvergrantError:
            log.exception("the sweep failed and will try again")
            pause = PAUSE_AFTER_FAILURE_SECONDS
        await _sleep(pause, stop)
    if scheduler.pool:
        log.info("finishing refreshes in flight", extra={"inFlight": len(scheduler.pool)})
        await scheduler.pool.drain()


async def _work_off(scheduler: Scheduler, queues: Sequence[Queue], stop: asyncio.Event) -> bool:
    """Begin refreshes as slots come free, for about as long as the list can be believed; tell whether more waits."""
    loop = asyncio.get_running_loop()
    until = loop.time() + POLL_SECONDS
    while queues and not stop.is_set() and loop.time() < until:
        queues = await scheduler.fill_slots(queues, now=clock.now())
        if queues:
            await scheduler.pool.wait_for_slot(stop, seconds=max(0.0, until - loop.time()))
    return bool(queues)


async def _do_chores(broker: Broker, stop: asyncio.Event) -> None:
    """Do what nobody waits for, beside the sweep: a provider that is slow to revoke must not hold refreshes up."""
    while not stop.is_set():
        try:
            await clear_finished_requests(broker, now=clock.now())
            await clear_old_deliveries(broker, now=clock.now())
            while not stop.is_set() and await revoke_due(broker, now=clock.now()):
                pass
        except EvergrantError:
            log.exception("the chores failed and will be tried again")
        except Exception:
            log.exception("the chores broke")
        await _sleep(CHORES_SECONDS, stop)


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


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
        await asyncio.gather(*(work(broker, stop) for work in (replay_until, refresh_until, deliver_until)))
