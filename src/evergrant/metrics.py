"""What Prometheus reads: the numbers of one process. Labels are ids of projects and apps, never of users."""

from prometheus_client import CollectorRegistry, Counter


class Metrics:
    """The numbers of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refreshes = Counter(
            "evergrant_refreshes",
            "Calls to token endpoints to refresh a grant, by what came of them.",
            ("project", "app", "outcome"),
            registry=self.registry,
        )
        self.lease_conflicts = Counter(
            "evergrant_lease_conflicts",
            "Refreshes that found another process at work on the same grant, and waited for its result.",
            registry=self.registry,
        )
