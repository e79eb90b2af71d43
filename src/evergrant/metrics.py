"""What Prometheus reads: the instruments of one process. Labels are ids of projects and apps, never of users.

The workers of one server add theirs up in a way of our own: with the library's, which keeps every number in a mapped
file, counting a fetch costs ten times as much.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from evergrant.errors import (
    AuthenticationFailed,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ReauthorizationRequired,
    RequestTooLarge,
    UpstreamRejected,
    UpstreamUnavailable,
)

FETCH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)
"""Seconds: a fresh token takes one or two milliseconds, a waiting caller is sent away after 25."""
MOST_APPS = 1000
"""So many apps have series of their own: what a scrape costs must not grow with every app."""
OTHERS = "others"
"""The name of all others, in the place of project and app."""
_OUTCOMES: tuple[tuple[type[Exception], str], ...] = (
    (ReauthorizationRequired, "reauthorization_required"),
    (NotFound, "not_found"),
    (UpstreamUnavailable, "unavailable"),
    (UpstreamRejected, "rejected"),
    (AuthenticationFailed, "denied"),
    (PermissionDenied, "denied"),
    (InvalidRequest, "invalid"),
    (RequestTooLarge, "invalid"),
    (Exception, "error"),
)
FETCH_OUTCOMES = ("ok", "refreshed", *dict.fromkeys(outcome for _, outcome in _OUTCOMES))


class Metrics:
    """The numbers of one process, in a registry of its own."""

    def __init__(self) -> None:
        # Or every counter would come twice, the second time with the date of its first count.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # as more of the library's functions
        self.registry = CollectorRegistry()
        self.refreshes = PerApp(
            Counter(
                "evergrant_refreshes",
                "Calls to token endpoints to refresh a grant, by what came of them.",
                ("project", "app", "outcome"),
                registry=self.registry,
            )
        )
        self.refreshes_in_flight = Gauge(
            "evergrant_refreshes_in_flight",
            "Refreshes under way: the call to the provider and the storing of its answer.",
            registry=self.registry,
        )
        self.lease_conflicts = Counter(
            "evergrant_lease_conflicts",
            "Refreshes that found another process at work on the same grant, and waited for its result.",
            registry=self.registry,
        )
        self.landings_retried = Counter(
            "evergrant_landings_retried",
            "Tries to store what a provider answered that the database did not take, and that were repeated.",
            registry=self.registry,
        )
        self.journal_failures = Counter(
            "evergrant_journal_failures",
            "Answers that could not be put into the journal, or not be removed from it: its disk is full or read-only.",
            registry=self.registry,
        )
        self.webhook_deliveries = Counter(
            "evergrant_webhook_deliveries",
            "Webhook deliveries, by what came of them.",
            ("outcome",),
            registry=self.registry,
        )
        responses = Counter(
            "evergrant_http_responses",
            "Answers to HTTP requests, by class of status.",
            ("code",),
            registry=self.registry,
        )
        fetches = Histogram(
            "evergrant_fetch_seconds",
            "Time that fetching a token took, by outcome.",
            ("outcome",),
            buckets=FETCH_BUCKETS,
            registry=self.registry,
        )
        # Looked up once, because looking up costs more than counting. With all of them there from the start, a first
        # error is an increase from 0, which alerts can see.
        self._responses = [responses.labels(f"{hundreds}xx") for hundreds in range(1, 6)]
        self._fetches = {outcome: fetches.labels(outcome) for outcome in FETCH_OUTCOMES}

    def responded(self, status: int) -> None:
        """Count an answer by its HTTP status."""
        self._responses[status // 100 - 1].inc()

    def time_fetch(self) -> "FetchTimer":
        """Time a fetch, for a `with` block."""
        return FetchTimer(self._fetches)


class PerApp:
    """A counter by project, app and outcome: the first apps that this process sees by name, all others together."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._apps: set[tuple[str, str]] = set()

    def labels(self, project_id: str, app_id: str, outcome: str) -> Counter:
        """Return what counts this outcome for this app."""
        app = project_id, app_id
        if app not in self._apps:
            if len(self._apps) >= MOST_APPS:
                app = OTHERS, OTHERS
            else:
                self._apps.add(app)
        return self._counter.labels(*app, outcome)


class FetchTimer:
    """Times one fetch from the beginning of a `with` block to its end, whose outcome an exception tells."""

    __slots__ = ("_fetches", "_started", "outcome")

    def __init__(self, fetches: dict[str, Histogram]) -> None:
        self._fetches = fetches
        self.outcome = "ok"

    def __enter__(self) -> "FetchTimer":
        """Begin."""
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Observe how long it took; not for a caller that has gone, which says nothing."""
        if kind is not None:
            self.outcome = next((outcome for of, outcome in _OUTCOMES if issubclass(kind, of)), "")
            if not self.outcome:
                return
        self._fetches[self.outcome].observe(time.perf_counter() - self._started)


class Workers(Collector):
    """The numbers of all workers of one server, added up in a folder that they share.

    Each keeps its own in memory, where counting is cheap, and writes them down every few seconds and at each scrape
    that reaches it. A worker that ended keeps its counts, so that sums never fall; what it had under way is gone.
    """

    def __init__(self, folder: Path, own: Metrics) -> None:
        self._folder = folder
        self._own = own
        self._writing = threading.Lock()

    def write(self) -> None:
        """Write this process's numbers down. Blocks; call it in a thread.

        Raises:
            OSError: the folder cannot be written.
        """
        text = json.dumps(
            [
                (metric.name, metric.documentation, metric.type, [(s.name, s.labels, s.value) for s in metric.samples])
                for metric in self._own.registry.collect()
            ]
        )
        with self._writing:
            draft = self._folder / f"{os.getpid()}.draft"
            draft.write_text(text, encoding="utf-8")
            draft.rename(draft.with_suffix(".json"))

    def collect(self) -> Iterator[Metric]:
        """Yield the sums of what is written down. Blocks."""
        metrics: dict[str, Metric] = {}
        sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for file in sorted(self._folder.glob("*.json")):
            is_alive = _is_alive(int(file.stem))
            for name, documentation, kind, samples in json.loads(file.read_text(encoding="utf-8")):
                metrics.setdefault(name, Metric(name, documentation, kind))
                of_metric = sums.setdefault(name, {})
                for sample, labels, value in samples if is_alive or kind != "gauge" else ():
                    key = sample, tuple(labels.items())
                    of_metric[key] = of_metric.get(key, 0.0) + value
        for name, metric in metrics.items():
            for (sample, labels), value in sums[name].items():
                metric.add_sample(sample, dict(labels), value)
            yield metric


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
