"""How this installation is, as the process that is asked sees it: what can be told without asking anybody outside."""

import asyncio
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy import func, select

from evergrant import __version__, clock
from evergrant.broker.runtime.broker import Broker
from evergrant.db import DataKeyRow

MOST_KEYS = 100


@dataclass(frozen=True, slots=True)
class EndpointInTrouble:
    """A token endpoint that this process leaves alone for a while."""

    host: str
    failures: int
    """Calls in a row without a usable answer."""
    again_in: float
    """Seconds until one call may try it."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """How an installation is."""

    version: str
    python: str
    database: str
    public_url: str
    clock_ahead: timedelta
    """By how much this machine's clock is ahead of the database's; 0 within a second."""
    journal_waiting: int
    """Answers of providers that are not in the database yet, in this process's data folder."""
    journal_oldest: datetime | None
    journal_broken: int
    """Files of the journal that could not be read, or never land, and were put aside."""
    endpoints: Sequence[EndpointInTrouble]
    master_keys: Mapping[str, int]
    """How many data keys each master key wraps, by its id."""


async def read_health(broker: Broker) -> HealthReport:
    """Return how the installation is. One statement; no key service and no provider is asked.

    Raises:
        Unavailable: the database is away.
    """
    query = select(DataKeyRow.master_key_id, func.count().label("n")).group_by(DataKeyRow.master_key_id)
    async with broker.database.read() as session:
        rows = (await session.execute(query.order_by(DataKeyRow.master_key_id).limit(MOST_KEYS))).all()
    census = await asyncio.to_thread(broker.journal.census)
    now = time.monotonic()
    oldest = clock.now() - timedelta(seconds=time.time() - census.oldest) if census.oldest is not None else None
    return HealthReport(
        version=__version__,
        python=platform.python_version(),
        database=broker.database.kind,
        public_url=broker.settings.public_url,
        clock_ahead=clock.wrong_by(),
        journal_waiting=census.waiting,
        journal_oldest=oldest,
        journal_broken=census.broken,
        endpoints=[
            EndpointInTrouble(urlsplit(one.url).netloc, one.breaker.failures, one.breaker.wait(now))
            for one in broker.endpoints
            if one.is_open
        ],
        master_keys={row.master_key_id: row.n for row in rows},
    )
