"""What this process has done, counted in memory and written down about once a minute: nothing waits for a count.

A crash loses no more than that minute. The counters, each of an app where it belongs to one:

| counter | counts |
|---|---|
| `connect:started`, `connect:finished`, `connect:cancelled`, `connect:failed:ERR` | connect trips |
| `fetch:answered:KEY`, `fetch:refused:KEY`, `fetch:failed:KEY` | fetches by a key's id; `user` for users |
| `refresh:ok`, `refresh:retried`, `refresh:ended` | refreshes that went well, are tried again, found the end |
| `refresh:refused`, `refresh:app_refused`, `refresh:broken` | refused one connection, or the app; and our own faults |
| `call:MS` | calls to token endpoints that took so long at most, to refresh; `call:more` |
| `webhook:ID:ok`, `webhook:ID:failed` | attempts to deliver to a webhook |
| `issuer:ID:accepted`, `issuer:ID:refused` | tokens of a trusted issuer that were looked at |
| `refresher` | looks of refreshers at the clock; the longest of its times is when in the hour the last one was |
"""

from dataclasses import dataclass
from datetime import datetime

from evergrant import clock

MOST = 20_000
"""How many counts wait at most. What is over is not counted: memory is bounded, whatever comes."""
CALL_STEPS = (100, 250, 500, 1_000, 2_500, 5_000, 10_000)
"""Milliseconds by which calls are told apart, so that a page can say within what time most of them ended."""
HOUR = 3_600

CountKey = tuple[str, int, str, str]
"""Project, hour since the epoch, app and counter."""


@dataclass(slots=True)
class Tally:
    """How often, and how long it took in milliseconds: all together, and the longest."""

    n: int = 0
    ms_sum: float = 0.0
    ms_max: float = 0.0


@dataclass(frozen=True, slots=True)
class IssuerSeen:
    """The last token of a trusted issuer that was accepted: which key had signed it, and when that was."""

    kid: str
    at: datetime


class UnwrittenActivity:
    """What one process has to write down."""

    def __init__(self) -> None:
        self._counts: dict[CountKey, Tally] = {}
        self.issuers: dict[tuple[str, str], IssuerSeen] = {}
        """By project and issuer."""

    def __len__(self) -> int:
        """Return how many counts wait."""
        return len(self._counts)

    def note(self, project_id: str, app_id: str, counter: str, ms: float = 0.0) -> None:
        """Count something once. `ms` is how long it took."""
        key = (project_id, int(clock.now().timestamp()) // HOUR, app_id, counter)
        tally = self._counts.get(key)
        if tally is None:
            if len(self._counts) >= MOST:
                return
            tally = self._counts[key] = Tally()
        tally.n += 1
        tally.ms_sum += ms
        if ms > tally.ms_max:
            tally.ms_max = ms

    def note_call(self, project_id: str, app_id: str, ms: float) -> None:
        """Count a call to a token endpoint by how long it took."""
        step = next((str(step) for step in CALL_STEPS if ms <= step), "more")
        self.note(project_id, app_id, f"call:{step}", ms)

    def note_issuer(self, project_id: str, issuer_id: str, kid: str, *, at: datetime) -> None:
        """Count a token of an issuer that was accepted, and remember which key had signed it."""
        self.note(project_id, "", f"issuer:{issuer_id}:accepted")
        if len(self.issuers) < MOST:
            self.issuers[project_id, issuer_id] = IssuerSeen(kid, at)

    def take(self) -> dict[CountKey, Tally]:
        """Return what waits, and begin anew."""
        taken, self._counts = self._counts, {}
        return taken

    def give_back(self, taken: dict[CountKey, Tally]) -> None:
        """Add again what could not be written."""
        for key, tally in taken.items():
            known = self._counts.get(key)
            if known is None and len(self._counts) < MOST:
                self._counts[key] = tally
            elif known is not None:
                known.n += tally.n
                known.ms_sum += tally.ms_sum
                known.ms_max = max(known.ms_max, tally.ms_max)
