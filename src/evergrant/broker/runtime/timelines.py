"""What one process has to write into connections' timelines: how often tokens were fetched, and what grows too long.

A fetch only counts in memory here. A crash loses no more than the minute that was not written down.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

HOUR = 3600
MOST_COUNTS = 100_000
"""How many counts wait at most; from then on, what is new is not counted until they are written down."""


class FetchesBy(NamedTuple):
    """Whose fetches are summed, connection by connection."""

    project_id: str
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


class Fetches(NamedTuple):
    """How often somebody fetched a connection's token within an hour, as far as it is not written down."""

    by: FetchesBy
    grant_id: str
    n: int


class Timelines:
    """Counts that wait, and the connections whose oldest events may go."""

    def __init__(self) -> None:
        self._fetches: dict[FetchesBy, dict[str, int]] = {}
        """Most come from a few keys, which fetch very many connections: so these are all that there is many of."""
        self._count = 0
        self._long: set[tuple[str, str]] = set()

    def note_fetch(self, project_id: str, grant_id: str, who: str, *, refused: str = "", at: datetime) -> None:
        """Count a fetch that was answered, or refused."""
        by = FetchesBy(project_id, who, refused, int(at.timestamp()) // HOUR)
        counts = self._fetches.get(by)
        if counts is None or grant_id not in counts:
            if self._count >= MOST_COUNTS:
                return
            self._count += 1
            counts = self._fetches.setdefault(by, {})
        counts[grant_id] = counts.get(grant_id, 0) + 1

    def take_fetches(self) -> Iterator[Fetches]:
        """Begin anew, and return what was counted until now."""
        taken, self._fetches, self._count = self._fetches, {}, 0
        return (Fetches(by, grant_id, n) for by, counts in taken.items() for grant_id, n in counts.items())

    def put_back(self, fetches: Iterable[Fetches]) -> None:
        """Let counts wait on that could not be written down."""
        for by, grant_id, n in fetches:
            counts = self._fetches.setdefault(by, {})
            self._count += grant_id not in counts
            counts[grant_id] = counts.get(grant_id, 0) + n

    def note_long(self, keys: Iterable[tuple[str, str]]) -> None:
        """Note that the timelines of these grants, by project and id, may have become too long."""
        self._long.update(keys)

    def take_long(self) -> list[tuple[str, str]]:
        """Return those and begin anew."""
        taken, self._long = self._long, set()
        return sorted(taken)
