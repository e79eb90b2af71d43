"""The ledger of a soak run: what happened, and whether anything was lost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.soak_load import Load

JOURNAL_SECONDS = 2.0
"""A process needs less, on a busy machine, from the provider's last byte until the answer is in its journal."""


@dataclass(frozen=True)
class Kill:
    """The end of a replica."""

    at: float
    """Epoch seconds."""
    ports: frozenset[int]
    """Its ends of its connections to the provider."""

    def may_have_lost(self, call: Mapping[str, Any]) -> bool:
        """Tell whether the answer to a call of the provider's can have died with the replica."""
        return call["port"] in self.ports and call["began"] <= self.at <= call["ended"] + JOURNAL_SECONDS


@dataclass
class Ledger:
    """Filled as the run goes; `problems` at the end says what must not be."""

    grants: int
    minutes: float
    kills: list[Kill] = field(default_factory=list)
    happened: list[tuple[str, float]] = field(default_factory=list)
    """What else happened, and for how many seconds."""
    refresher_ended: int = 0
    """How often the refresher ended by itself."""
    load: Load | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)
    """Every refresh that the provider saw: family, fault, began, ended."""
    played: dict[str, int] = field(default_factory=dict)
    cruel: frozenset[str] = frozenset()
    revoked: dict[str, str] = field(default_factory=dict)
    """Why, by family."""
    refreshes: int = 0
    """Answers that were stored, by the database's account."""
    dead: dict[str, str] = field(default_factory=dict)
    """Grants that need the user, with the reason, by family."""
    failed: dict[str, str] = field(default_factory=dict)
    """Grants whose last fetch brought no token that works, by family."""

    @property
    def in_doubt(self) -> set[str]:
        """Families of which nobody can know whether a refresh reached us."""
        return {
            call["family"]
            for call in self.calls
            if call["fault"] in self.cruel or any(kill.may_have_lost(call) for kill in self.kills)
        }

    @property
    def reused(self) -> set[str]:
        return {family for family, why in self.revoked.items() if "reuse" in why}

    @property
    def lost(self) -> set[str]:
        """Grants that are neither fresh nor known to be dead."""
        return {family for family in self.failed if family not in self.dead}

    def problems(self) -> list[str]:
        """Say what must not be, one line each."""
        assert self.load is not None
        known = self.in_doubt
        found = []
        if reused := self.reused - known:
            found.append(f"{len(reused)} grants sent a spent refresh token and were not in doubt")
        if revoked := set(self.revoked) - self.reused - known:
            found.append(f"{len(revoked)} families were revoked otherwise")
        if self.lost:
            found.append(
                f"{len(self.lost)} grants were lost: {', '.join({self.failed[family] for family in self.lost})}"
            )
        if dead := set(self.dead) - known:
            found.append(f"{len(dead)} grants need the user and were not in doubt")
        if wrong := {family: what for family, what in self.load.wrong.items() if family not in known}:
            found.append(f"{len(wrong)} tokens did not work: {', '.join(sorted(set(wrong.values())))}")
        if self.load.counts["other"]:
            found.append(
                f"{self.load.counts['other']} answers were neither a token nor 'later': {dict(self.load.others)}"
            )
        if self.refresher_ended:
            found.append(f"the refresher ended by itself {self.refresher_ended} times")
        return found

    def text(self) -> str:
        """Write it as a table."""
        assert self.load is not None
        counts, known = self.load.counts, self.in_doubt
        reasons = Counter(self.dead.values())
        rows: Sequence[tuple[str, object]] = [
            ("minutes", f"{self.minutes:g}"),
            ("grants", self.grants),
            ("replicas killed", len(self.kills)),
            *((what, f"{seconds:.0f} s") for what, seconds in self.happened),
            ("fetches: a token", counts["ok"]),
            ("fetches: 503, the database is away", counts["database away"]),
            ("fetches: 503, the provider does not answer", counts["provider away"]),
            ("fetches: no answer from a killed replica", counts["no answer"]),
            ("fetches: the user must connect again", counts["dead"]),
            ("fetches: anything else", counts["other"]),
            ("longest wait for a token", f"{self.load.longest_ok:.1f} s"),
            ("longest wait for any answer", f"{self.load.longest:.1f} s"),
            ("refresh calls at the provider", len(self.calls)),
            ("of them made to fail or to be odd", sum(self.played.values())),
            *((f"- {name}", count) for name, count in sorted(self.played.items())),
            ("refreshes stored", self.refreshes),
            ("tokens shown to the provider", self.load.tried),
            ("of them refused", len(self.load.wrong)),
            ("**reuse detections**", len(self.reused)),
            ("**revoked families**", len(self.revoked)),
            ("**in doubt**", len(known)),
            ("- of them fresh at the end", len(known - set(self.failed) - set(self.dead))),
            ("**reauthorization required**", len(self.dead)),
            *((f"- {reason or 'no reason'}", count) for reason, count in reasons.most_common()),
            ("**lost**", len(self.lost)),
            ("**fresh at the end**", self.grants - len(self.failed)),
        ]
        return "\n".join(["| | |", "|---|---:|", *(f"| {name} | {_number(value)} |" for name, value in rows)])


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
