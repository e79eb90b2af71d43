"""What one process has to write into connections' timelines: how often tokens were fetched, and what grows too long.

A fetch only counts in memory here. A crash loses no more than the minute that was not written down.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

HOUR = 3600
MOST_COUNTS = 100_000
"""How many counts wait at most; from then on, what is new is not counted until they are written down."""


class FetchesOf(NamedTuple):
    """What fetches are summed by."""

    project_id: str
    grant_id: str
    who: str
    """Who fetched, as the audit log writes it."""
    refused: str
    """Why they were refused; empty where they were not."""
    hours: int
    """Hours since 1970."""

    @property
    def hour(self) -> datetime:
        """The beginning of the hour."""
        return datetime.fromtimestamp(self.hours * HOUR, UTC)


class Timelines:
    """Counts that wait, and the connections whose oldest events may go."""

    def __init__(self) -> None:
        self._fetches: dict[FetchesOf, int] = {}
        self._long: set[tuple[str, str]] = set()

    def note_fetch(self, project_id: str, grant_id: str, who: str, *, refused: str = "", at: datetime) -> None:
        """Count a fetch that was answered, or refused."""
        key = FetchesOf(project_id, grant_id, who, refused, int(at.timestamp()) // HOUR)
        if (n := self._fetches.get(key, 0)) or len(self._fetches) < MOST_COUNTS:
            self._fetches[key] = n + 1

    def take_fetches(self) -> dict[FetchesOf, int]:
        """Return the counts and begin anew."""
        taken, self._fetches = self._fetches, {}
        return taken

    def put_back(self, counts: dict[FetchesOf, int]) -> None:
        """Let counts wait on that could not be written down."""
        for key, n in counts.items():
            self._fetches[key] = self._fetches.get(key, 0) + n

    def note_long(self, keys: Iterable[tuple[str, str]]) -> None:
        """Note that the timelines of these grants, by project and id, may have become too long."""
        self._long.update(keys)

    def take_long(self) -> list[tuple[str, str]]:
        """Return those and begin anew."""
        taken, self._long = self._long, set()
        return sorted(taken)
