"""The answer to a scrape of `/metrics`: this process's numbers, its journal, and the backlog in the database.

Scrapes must not hurt: the database is read at most every ten seconds, and a scrape waits for it no longer than two.
While it is away, everything else is told all the same.
"""

import asyncio
import contextlib
import logging
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from evergrant import __version__, clock
from evergrant.broker.refresh.backlog import Backlog, read_backlogs
from evergrant.broker.runtime.broker import Broker
from evergrant.errors import Unavailable
from evergrant.metrics import Workers

log = logging.getLogger(__name__)

KEEP_SECONDS = 10.0
"""So long a reading of the database answers further scrapes."""
KEEP_SHARE = 10.0
"""Or so many times as long as it took, if that is longer: counting never takes more than a tenth of the time."""
WAIT_SECONDS = 2.0
"""A scrape goes without the database after so long; the reading goes on, for the next."""
BELIEVE_SECONDS = 60.0
"""While a new reading is under way, the last one is told for so long."""
SHARE_SECONDS = 5.0
"""How often a worker writes its numbers down for the others."""
APP_LABELS = ("project", "app")


@dataclass(frozen=True, slots=True)
class Reading:
    """Backlogs as the database told them, at which moment, and how long it took."""

    backlogs: list[Backlog] | None
    """None where it was away."""
    at: datetime
    ended: float
    took: float

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self.ended

    @property
    def is_recent(self) -> bool:
        """Whether it answers a scrape."""
        return self.age < max(KEEP_SECONDS, self.took * KEEP_SHARE)


class Exposition:
    """Answers the scrapes of one process."""

    def __init__(self, broker: Broker, workers_folder: Path | None = None) -> None:
        """`workers_folder`: where the processes of one server add their numbers up; None for this one alone."""
        self._broker = broker
        self._workers = Workers(workers_folder, broker.metrics) if workers_folder is not None else None
        self._last: Reading | None = None
        self._reading: asyncio.Task[None] | None = None

    async def text(self) -> bytes:
        """Return everything in Prometheus's text format, version 0.0.4."""
        reading = await self._read()
        return await asyncio.to_thread(self._generate, reading)

    async def share_until(self, stop: asyncio.Event) -> None:
        """Tell the other workers this one's numbers now and then, until `stop` is set."""
        while self._workers is not None:
            try:
                await asyncio.to_thread(self._workers.write)
            except OSError:
                log.warning("cannot write this worker's metrics down", exc_info=True)
            if stop.is_set():
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), SHARE_SECONDS)

    async def aclose(self) -> None:
        """Give up a reading that is under way, before the database is closed."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    async def _read(self) -> Reading | None:
        if self._last is not None and self._last.is_recent:
            return self._last
        if self._reading is None:
            self._reading = asyncio.create_task(self._ask())
        await asyncio.wait({self._reading}, timeout=WAIT_SECONDS)
        return self._last if self._last is not None and self._last.age < BELIEVE_SECONDS else None

    async def _ask(self) -> None:
        started, now = time.monotonic(), clock.now()
        backlogs = None
        try:
            backlogs = await read_backlogs(self._broker, now=now)
        except Unavailable as error:
            self._broker.database_health.note_away(error)
        except Exception:
            log.exception("reading the backlog broke")
        finally:
            ended = time.monotonic()
            self._last = Reading(backlogs, now, ended, ended - started)
            self._reading = None

    def _generate(self, reading: Reading | None) -> bytes:
        """Put it all together; in a thread, because a thousand apps take some milliseconds."""
        registry = CollectorRegistry()
        registry.register(self._counted())
        registry.register(_Moment(self._broker, reading))
        return generate_latest(registry)

    def _counted(self) -> Collector:
        if self._workers is None:
            return self._broker.metrics.registry
        try:
            self._workers.write()
        except OSError:
            log.warning("cannot add up the workers' metrics and shows this one's", exc_info=True)
            return self._broker.metrics.registry
        return self._workers


class _Moment(Collector):
    """The backlogs and the journal at the moment of a scrape."""

    def __init__(self, broker: Broker, reading: Reading | None) -> None:
        self._broker = broker
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges that no call site keeps."""
        build = GaugeMetricFamily(
            "evergrant_build_info", "Always 1; the labels say what runs.", labels=("version", "python")
        )
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        yield GaugeMetricFamily(
            "evergrant_clock_offset_seconds",
            "By how much this machine's clock is ahead of the database's; 0 within a second.",
            value=clock.wrong_by().total_seconds(),
        )
        yield from self._journal()
        backlogs = self._reading.backlogs if self._reading is not None else None
        yield GaugeMetricFamily(
            "evergrant_database_up",
            "1 if the database answered when it was last asked for the backlog, 10 seconds ago at most.",
            value=backlogs is not None,
        )
        if self._reading is not None and backlogs is not None:
            yield from _of_apps(backlogs, now=self._reading.at)

    def _journal(self) -> Iterator[Metric]:
        census = self._broker.journal.census()
        yield GaugeMetricFamily(
            "evergrant_journal_entries", "Answers of providers that are not in the database yet.", value=census.waiting
        )
        yield GaugeMetricFamily(
            "evergrant_journal_oldest_seconds",
            "Age of the oldest of them; 0 while there is none.",
            value=max(0.0, time.time() - census.oldest) if census.oldest is not None else 0,
        )
        yield GaugeMetricFamily(
            "evergrant_journal_broken",
            "Journal files that could not be read, or can never land, and were put aside.",
            value=census.broken,
        )


def _of_apps(backlogs: list[Backlog], *, now: datetime) -> Iterator[Metric]:
    due = GaugeMetricFamily(
        "evergrant_grants_due",
        "Connections that are due for a background refresh, those in flight among them; 100001 means more than 100000.",
        labels=APP_LABELS,
    )
    overdue = GaugeMetricFamily(
        "evergrant_grants_overdue_seconds",
        "For how long the first of them has been due; 0 while none is.",
        labels=APP_LABELS,
    )
    unhealthy = GaugeMetricFamily(
        "evergrant_app_unhealthy", "1 while the provider refuses the app's registration.", labels=APP_LABELS
    )
    for backlog in backlogs:
        labels = (backlog.app.project_id, backlog.app.id)
        due.add_metric(labels, backlog.due)
        overdue.add_metric(labels, backlog.age(now=now))
        unhealthy.add_metric(labels, backlog.app.unhealthy_since is not None)
    yield from (due, overdue, unhealthy)
