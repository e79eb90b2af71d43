"""The scheduler: shares one refresher's slots out among the apps that have something due.

Each token endpoint gets no more than its share of the slots, so that one that is slow leaves the others theirs. What is
due goes first. What is long overdue is worked off beside it, with few calls at first: after a stop or an outage of
hours, all refreshers begin together.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from evergrant.broker.refresh.refresh import ClaimedGrant
from evergrant.broker.refresh.sweep import ClaimQuota, DueApp, claim_due_grants, due_at, is_overdue, refresh_claimed
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.endpoints import Endpoint
from evergrant.broker.runtime.worker_pool import WorkerPool
from evergrant.db import OutboundApp

RAMP_SECONDS = 60.0
"""After a start, long overdue work begins with one call at a time for each endpoint and reaches its full share then."""
OVERDUE_SHARE = 0.5
"""Of an endpoint's slots, as many may work off what is long overdue."""


@dataclass(eq=False)
class Queue:
    """What one app has waiting, as far as it is known."""

    app: OutboundApp
    due: bool
    """Whether some fell due lately."""
    overdue: bool
    """Whether some are long overdue."""

    @classmethod
    def of(cls, one: DueApp, *, now: datetime) -> "Queue":
        """Make the queue of an app of which no more is known than when its first grant fell due."""
        return cls(one.app, due=True, overdue=is_overdue(one.since, now=now))

    def learn(self, asked: ClaimQuota, got: Sequence[ClaimedGrant], *, now: datetime) -> None:
        """Take note of a part that has come to its end: it gave fewer than it was asked for."""
        late = sum(is_overdue(due_at(claim.leased), now=now) for claim in got)
        self.due = self.due and (asked.due == 0 or len(got) - late >= asked.due)
        self.overdue = self.overdue and (asked.overdue == 0 or late >= asked.overdue)


class Scheduler:
    """One refresher's slots, and what runs in them."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._per_endpoint = broker.settings.refresh_concurrency_per_endpoint
        self._started = asyncio.get_running_loop().time()
        self._overdue_at: Counter[Endpoint] = Counter()
        self.pool: WorkerPool[Endpoint] = WorkerPool(
            most=broker.settings.refresh_concurrency, most_per_key=self._per_endpoint
        )

    async def fill_slots(self, queues: Sequence[Queue], *, now: datetime) -> list[Queue]:
        """Begin as many due refreshes as there are slots for, and return the queues that may have more.

        Raises:
            Unavailable: the database is away.
        """
        quotas = self.quotas(queues)
        if not quotas:
            return list(queues)
        claims = await claim_due_grants(self._broker, list(quotas.values()), now=now)
        for claim in claims:
            self._begin(claim, now=now)
        for queue, asked in quotas.items():
            queue.learn(asked, [claim for claim in claims if claim.app is queue.app], now=now)
        return [queue for queue in queues if queue.due or queue.overdue]

    def quotas(self, queues: Sequence[Queue]) -> dict[Queue, ClaimQuota]:
        """Share the free slots out among queues, which are in the order of their waiting, the longest first."""
        free = self.pool.room
        taken: Counter[Endpoint] = Counter()
        taken_by: Counter[tuple[Endpoint, str]] = Counter()
        """The same by client: a provider limits each for itself."""
        quotas = {}
        for queue in queues:
            endpoint, client_id = self._broker.endpoints.of(queue.app), queue.app.client_id
            running = self.pool.by_key.get(endpoint, 0) + taken[endpoint]
            allowed = endpoint.room_for(client_id) - taken_by[endpoint, client_id]
            room = min(self._per_endpoint - running, free, allowed)
            # By the half, so that a busy endpoint's grants are claimed several at a time.
            half = min(self._per_endpoint, endpoint.most_for(client_id)) // 2
            if room <= 0 or (running and (endpoint.is_open or room < half)):
                continue
            late = min(room, self._room_for_overdue() - self._overdue_at[endpoint]) if queue.overdue else 0
            if queue.due:
                late = min(late, 1, room - 1)  # one beside the others, so that they come to an end some day
            late = max(0, late)
            due = room - late if queue.due else 0
            if due or late:
                quotas[queue] = ClaimQuota(queue.app, due, late)
                taken[endpoint] += due + late
                taken_by[endpoint, client_id] += due + late
                free -= due + late
        return quotas

    def _room_for_overdue(self) -> int:
        """Return how many long overdue grants an endpoint gets at once: few after a start, so that nobody stampedes."""
        grown = min(1.0, (asyncio.get_running_loop().time() - self._started) / RAMP_SECONDS)
        return max(1, round(self._per_endpoint * OVERDUE_SHARE * grown))

    def _begin(self, claim: ClaimedGrant, *, now: datetime) -> None:
        endpoint = self._broker.endpoints.of(claim.app)
        overdue = is_overdue(due_at(claim.leased), now=now)

        async def refresh() -> None:
            try:
                await refresh_claimed(self._broker, claim, now=now)
            finally:
                self._overdue_at[endpoint] -= overdue

        self._overdue_at[endpoint] += overdue
        self.pool.start(endpoint, refresh())
