"""What `/metrics` tells about endpoints: those that are in trouble, and no others."""

from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from evergrant.broker.runtime.endpoints import Endpoints
from evergrant.metrics import OTHERS

MOST_SERIES = 200
"""So many endpoints are told by name; what is more, together."""


class EndpointGauges(Collector):
    """Looks at a process's endpoints at each scrape, so that what is well again, or forgotten, is not told."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges. Safe in any thread."""
        is_open: Counter[str] = Counter()
        limited: Counter[str] = Counter()
        rates: dict[str, float] = {}
        for endpoint in self._endpoints:
            allowances = [client.allowance for client in list(endpoint.clients.values())]
            known = [allowance.rate for allowance in allowances if allowance.is_limited]
            if not endpoint.is_open and not known:
                continue
            name = _name(endpoint.url)
            if name not in is_open and len(is_open) >= MOST_SERIES:
                name = OTHERS
            is_open[name] += endpoint.is_open
            limited[name] += len(known)
            rates[name] = rates.get(name, 0.0) + sum(known)
        yield _gauge(
            "evergrant_endpoint_breaker_open",
            "In how many processes of this server a token endpoint is left alone, because it fails again and again.",
            is_open,
        )
        yield _gauge(
            "evergrant_endpoint_limited_clients",
            "How many clients a token endpoint has told that they ask too much, in all processes of this server.",
            limited,
        )
        yield _gauge(
            "evergrant_endpoint_limit_per_second",
            "How many calls per second they make at most, together.",
            {name: rate for name, rate in rates.items() if limited[name]},
        )


def _gauge(name: str, text: str, values: dict[str, int] | dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("endpoint",))
    for endpoint, value in values.items():
        if value:
            family.add_metric((endpoint,), value)
    return family


def _name(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] + parts.path
