"""The background refresher: keeps the fetch call from ever waiting for a provider.

Any number of these run at once, inside `evergrant serve` or alone; leases on the rows keep them apart.
"""

import asyncio
import contextlib
import logging
import signal
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from evergrant import clock
from evergrant.broker.connect.callback import clear_finished_requests
from evergrant.broker.connections.revocation import revoke_due
from evergrant.broker.refresh.landing import GIVE_UP_SECONDS, replay_journal
from evergrant.broker.refresh.refresh import ClaimedGrant
from evergrant.broker.refresh.sweep import OVERDUE, ClaimQuota, claim_due_grants, due_apps, due_at, refresh_claimed
from evergrant.broker.runtime.backoff import jittered
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.endpoints import Endpoint
from evergrant.broker.webhooks.delivery import deliver_until
from evergrant.broker.webhooks.log import clear_old_deliveries
from evergrant.db import OutboundApp
from evergrant.errors import EvergrantError
from evergrant.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
PAUSE_AFTER_FAILURE_SECONDS = 5.0
CHORES_SECONDS = 60.0
RAMP_SECONDS = 60.0
"""After a start, long overdue work begins with one call at a time for each endpoint and reaches its full share then."""
OVERDUE_SHARE = 0.5
"""Of an endpoint's slots, as many may work off what is long overdue."""


@dataclass(eq=False)
class _Queue:
    """What one app has waiting, as far as it is known."""

    app: OutboundApp
    due: bool
    overdue: bool

    def learn(self, asked: ClaimQuota, got: list[ClaimedGrant], *, now: datetime) -> None:
        """Take note of a part that has come to its end: it gave fewer than it was asked for."""
        late = sum(due_at(claim.leased) <= now - OVERDUE for claim in got)
        self.due = self.due and (asked.due == 0 or len(got) - late >= asked.due)
        self.overdue = self.overdue and (asked.overdue == 0 or late >= asked.overdue)


class Refresher:
    """One refresher's work in flight, by endpoint."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._total = broker.settings.refresh_concurrency
        self._per_endpoint = broker.settings.refresh_concurrency_per_endpoint
        self._started = asyncio.get_running_loop().time()
        self._running: set[asyncio.Task[None]] = set()
        self._at: Counter[Endpoint] = Counter()
        self._overdue_at: Counter[Endpoint] = Counter()
        self._some_ended = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Take up due grants until `stop` is set, then let those in flight finish."""
        while not stop.is_set():
            pause = jittered(POLL_SECONDS)  # replicas must not march in step
            try:
                now = clock.utcnow()
                due = await due_apps(self._broker, now=now)
                queues = [_Queue(one.app, True, one.since <= now - OVERDUE) for one in due]
                if await self._work_off(queues, stop):
                    continue
            except EvergrantError:
                log.exception("the sweep failed and will try again")
                pause = PAUSE_AFTER_FAILURE_SECONDS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
        if self._running:
            log.info("finishing refreshes in flight", extra={"inFlight": len(self._running)})
            await asyncio.wait(self._running)

    async def _work_off(self, queues: list[_Queue], stop: asyncio.Event) -> bool:
        """Claim and begin as slots come free, for about as long as the list can be believed; tell if more waits."""
        loop = asyncio.get_running_loop()
        until = loop.time() + POLL_SECONDS
        while queues and not stop.is_set() and loop.time() < until:
            self._some_ended.clear()
            now = clock.utcnow()
            wanted = self._wanted(queues)
            if wanted:
                claims = await claim_due_grants(self._broker, list(wanted.values()), now=now)
                for claim in claims:
                    self._begin(claim, now=now)
                for queue, asked in wanted.items():
                    queue.learn(asked, [claim for claim in claims if claim.app is queue.app], now=now)
                queues = [queue for queue in queues if queue.due or queue.overdue]
            if queues:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._some_ended.wait(), max(0.0, until - loop.time()))
        return bool(queues)

    def _wanted(self, queues: list[_Queue]) -> dict[_Queue, ClaimQuota]:
        """Share the free slots out among the apps, those that wait longest first."""
        free = self._total - len(self._running)
        taken: Counter[Endpoint] = Counter()
        wanted = {}
        for queue in queues:
            endpoint = self._broker.endpoints.of(queue.app)
            at = self._at[endpoint] + taken[endpoint]
            room = min(self._per_endpoint - at, free, endpoint.room)
            # By the half, so that a busy endpoint's grants are claimed several at a time.
            if room <= 0 or (at and (endpoint.is_open or room < self._per_endpoint // 2)):
                continue
            late = min(room, self._room_for_overdue() - self._overdue_at[endpoint]) if queue.overdue else 0
            if queue.due:
                late = max(0, min(late, 1, room - 1))  # one beside the others, so that they come to an end some day
            due = room - late if queue.due else 0
            if due > 0 or late > 0:
                wanted[queue] = ClaimQuota(queue.app, due, max(0, late))
                taken[endpoint] += due + late
                free -= due + late
        return wanted

    def _room_for_overdue(self) -> int:
        """Return how many long overdue grants an endpoint gets at once: few after a start, so that nobody stampedes."""
        grown = min(1.0, (asyncio.get_running_loop().time() - self._started) / RAMP_SECONDS)
        return max(1, round(self._per_endpoint * OVERDUE_SHARE * grown))

    def _begin(self, claim: ClaimedGrant, *, now: datetime) -> None:
        endpoint = self._broker.endpoints.of(claim.app)
        overdue = due_at(claim.leased) <= now - OVERDUE
        self._at[endpoint] += 1
        self._overdue_at[endpoint] += overdue
        task = asyncio.create_task(refresh_claimed(self._broker, claim, now=now))
        self._running.add(task)

        def ended(_: asyncio.Task[None]) -> None:
            self._running.discard(task)
            self._at[endpoint] -= 1
            self._overdue_at[endpoint] -= overdue
            self._some_ended.set()

        task.add_done_callback(ended)


async def refresh_until(broker: Broker, stop: asyncio.Event) -> None:
    """Refresh in the background and do the chores until `stop` is set; what is in flight finishes first."""
    await asyncio.gather(Refresher(broker).run(stop), _do_chores(broker, stop))


async def _do_chores(broker: Broker, stop: asyncio.Event) -> None:
    """Do what nobody waits for, beside the sweep: a provider that is slow to revoke must not hold refreshes up."""
    while not stop.is_set():
        try:
            await replay_journal(
                broker, older_than_seconds=GIVE_UP_SECONDS
            )  # what a landing in this very process gave up
            await clear_finished_requests(broker, now=clock.utcnow())
            await clear_old_deliveries(broker, now=clock.utcnow())
            while not stop.is_set() and await revoke_due(broker, now=clock.utcnow()):
                pass
        except EvergrantError:
            log.exception("the chores failed and will be tried again")
        except Exception:
            log.exception("the chores broke")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), CHORES_SECONDS)


async def run(settings: Settings) -> None:
    """Run a refresher alone, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_broker(settings) as broker:
        log.info("refreshing in the background")
        await asyncio.gather(refresh_until(broker, stop), deliver_until(broker, stop))
