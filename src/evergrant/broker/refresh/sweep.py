"""The sweep: refreshes grants that will soon need it before anybody has to wait.

Each app is a queue of its own. Its queue has two parts: what is due, and what has been overdue for long, after a stop
or an outage. What is due goes first, because a fetch may want it any moment and still finds a valid token; the overdue
is worked off beside it. `due_apps` finds the queues, `scheduler` decides how much each may have, `claims` takes it.
"""

import asyncio
import contextlib
import time

from evergrant import clock
from evergrant.broker.refresh.due_apps import PAGE, DueApp, due_apps
from evergrant.broker.refresh.queues import Queues
from evergrant.broker.refresh.scheduler import Scheduler
from evergrant.broker.runtime.backoff import jittered
from evergrant.broker.runtime.broker import Broker
from evergrant.tracing import record_span

POLL_SECONDS = (1.0, 5.0)
"""How long a sweep lasts: at least, and at most."""
LOOKING_SHARE = 0.05
"""A sweep is so long that looking takes no more of it than this: nobody shall pay for a great number of apps."""
GATHER_SECONDS = 0.02
"""Slots that come free within so long are filled together, unless half of an endpoint's are free before."""


class Sweep:
    """One look at which apps have something due, and what one refresher begins until the next."""

    def __init__(self, broker: Broker, scheduler: Scheduler, stop: asyncio.Event) -> None:
        self._broker = broker
        self._scheduler = scheduler
        self._stop = stop
        self._began = time.monotonic()
        self._jitter = jittered(1.0)  # replicas must not march in step
        self._looked_for = 0.0
        """How many seconds its looks have taken."""
        self._last: DueApp | None = None
        """The last app of the last look, if there may be more."""
        self._queues = Queues()

    async def run(self) -> None:
        """Begin what is due until the sweep is over.

        Raises:
            Unavailable: the database is away.
        """
        before = self._scheduler.begun
        try:
            await self._look()
            await self._begin_until_over()
        finally:
            if begun := self._scheduler.begun - before:  # most sweeps find nothing
                record_span("sweep", {"evergrant.begun": begun}, seconds=time.monotonic() - self._began)

    async def _begin_until_over(self) -> None:
        while not self._stop.is_set() and self._left > 0:
            if self._landings_go_first:
                await asyncio.sleep(GATHER_SECONDS)
                continue
            if await self._scheduler.fill_slots(self._queues, now=clock.now()) and self._scheduler.pool.room > 0:
                continue  # somebody else had taken some of them
            if self._last is not None and self._scheduler.pool.room > 0:
                await self._look()  # for others: those that are left wait for their endpoints
            elif self._last is not None or self._queues:
                await self._scheduler.pool.wait_for_slot(self._stop, seconds=self._left)
                await self._scheduler.pool.wait_for_half(self._stop, seconds=min(GATHER_SECONDS, self._left))
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), self._left)

    @property
    def _landings_go_first(self) -> bool:
        """Whether answers still wait for the database that was away until just now: nothing is begun beside them.

        For a while only: an answer that cannot land must not hold up all refreshes.
        """
        broker = self._broker
        return len(broker.landings) > 0 and broker.database_health.seconds < broker.pace.settle

    @property
    def _left(self) -> float:
        shortest, longest = POLL_SECONDS
        whole = min(longest, max(shortest, self._looked_for / LOOKING_SHARE))
        return max(0.0, self._began + whole * self._jitter - time.monotonic())

    async def _look(self) -> None:
        began = time.monotonic()
        page = await due_apps(self._broker, now=clock.now(), after=self._last, beside=self._queues.lines)
        self._broker.database_health.note_up()
        self._looked_for += time.monotonic() - began
        self._last = page[-1] if len(page) == PAGE else None
        self._queues.add(page)
