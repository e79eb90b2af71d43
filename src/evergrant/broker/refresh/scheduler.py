"""The scheduler: shares one refresher's slots out among the apps that have something due.

Each token endpoint gets no more than its share of the slots, so that one that is slow leaves the others theirs. What is
due goes first. What is long overdue is worked off beside it, with few calls at first: after a stop or an outage of
hours, all refreshers begin together.
"""

import asyncio
from collections import Counter, defaultdict
from datetime import datetime

from evergrant.broker.refresh.claimed import refresh_claimed
from evergrant.broker.refresh.claims import AppKey, ClaimQuota, claim_due_grants, due_at
from evergrant.broker.refresh.due_apps import MANY, is_overdue
from evergrant.broker.refresh.queues import Line, Queue, Queues
from evergrant.broker.refresh.refresh import ClaimedGrant
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.worker_pool import WorkerPool

RAMP_SECONDS = 60.0
"""After a start, long overdue work begins with one call at a time for each endpoint and reaches its full share then."""
OVERDUE_SHARE = 0.5
"""Of an endpoint's slots, as many may work off what is long overdue."""


class Scheduler:
    """One refresher's slots, and what runs in them."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._per_endpoint = broker.settings.refresh_concurrency_per_endpoint
        self._started = asyncio.get_running_loop().time()
        self._overdue_at: Counter[str] = Counter()
        self.pool: WorkerPool[str] = WorkerPool(
            most=broker.settings.refresh_concurrency, most_per_key=self._per_endpoint
        )
        """The refreshes under way, by token URL."""
        self.begun = 0
        """How many it has begun since its start."""

    async def fill_slots(self, queues: Queues, *, now: datetime) -> bool:
        """Begin due refreshes in free slots, and strike them off the queues; False where no queue could have any.

        Raises:
            Unavailable: the database is away.
        """
        quotas = self.quotas(queues)
        asked = {quota.app: quota for line in quotas.values() for quota in line.values()}
        if not asked:
            return False
        urls = {queue.app: url for (url, _), line in quotas.items() for queue in line}
        got: Counter[tuple[AppKey, bool]] = Counter()
        for claim in await claim_due_grants(self._broker, list(asked.values()), now=now):
            overdue = is_overdue(due_at(claim.leased), now=now)
            app = claim.app.project_id, claim.app.id
            got[app, overdue] += 1
            self._begin(claim, urls[app], overdue=overdue, now=now)
        for line in quotas.values():
            for queue, quota in line.items():
                queue.learn(quota, due=got[queue.app, False], overdue=got[queue.app, True])
        queues.put_behind(quotas)
        return True

    def quotas(self, queues: Queues) -> dict[Line, dict[Queue, ClaimQuota]]:
        """Share the free slots out among queues, looking at no more of them than it takes."""
        free = self.pool.room
        taken: Counter[str] = Counter()
        late_taken: Counter[str] = Counter()
        quotas: dict[Line, dict[Queue, ClaimQuota]] = defaultdict(dict)
        for line, waiting in queues:
            if free <= 0:
                break
            url, client_id = line
            endpoint = self._broker.endpoints.at(url)
            running = self.pool.by_key.get(url, 0) + taken[url]
            room = min(self._per_endpoint - running, free, endpoint.room_for(client_id))
            # By the half, so that a busy endpoint's grants are claimed several at a time.
            half = min(self._per_endpoint, endpoint.most_for(client_id)) // 2
            if room <= 0 or (running and (endpoint.is_open or room < half)):
                continue
            for queue in waiting:
                late_room = self._room_for_overdue() - self._overdue_at[url] - late_taken[url]
                quota = self._quota(queue, room=room, late_room=late_room)
                if not quota.due + quota.overdue:
                    continue
                quotas[line][queue] = quota
                late_taken[url] += quota.overdue
                taken[url] += quota.due + quota.overdue
                free -= quota.due + quota.overdue
                room -= quota.due + quota.overdue
                if room <= 0:
                    break
        return quotas

    def _quota(self, queue: Queue, *, room: int, late_room: int) -> ClaimQuota:
        late = min(room, late_room, _at_most(queue.overdue, room))
        if queue.due:
            late = min(late, 1, room - 1)  # one beside the others, so that they come to an end some day
        late = max(0, late)
        return ClaimQuota(queue.app, due=min(room - late, _at_most(queue.due, room)), overdue=late)

    def _room_for_overdue(self) -> int:
        """Return how many long overdue grants an endpoint gets at once: few after a start, so that nobody stampedes."""
        grown = min(1.0, (asyncio.get_running_loop().time() - self._started) / RAMP_SECONDS)
        return max(1, round(self._per_endpoint * OVERDUE_SHARE * grown))

    def _begin(self, claim: ClaimedGrant, url: str, *, overdue: bool, now: datetime) -> None:
        async def refresh() -> None:
            try:
                await refresh_claimed(self._broker, claim, now=now)
            finally:
                self._overdue_at[url] -= overdue
                if not self._overdue_at[url]:
                    del self._overdue_at[url]

        self._overdue_at[url] += overdue
        self.begun += 1
        self.pool.start(url, refresh())


def _at_most(known: int, room: int) -> int:
    """Return how many to ask a part of a queue for: what it is known to have, or as many as there is room for."""
    return room if known >= MANY else known
