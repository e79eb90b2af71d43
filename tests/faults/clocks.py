"""Clocks that are wrong, each in its own way, and move when a test says so."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path


class Clocks:
    """The clocks of servers, and the right one, which is the provider's, in the test's own process.

    A server looks at a file for how wrong it is: see `patched_server.py`.
    """

    def __init__(self, folder: Path, *, count: int) -> None:
        self.files = [folder / f"clock-{number}" for number in range(count)]
        self._passed = timedelta(0)
        self.set([0.0] * count)

    def set(self, wrong_by: Sequence[float], *, passed: float = 0.0) -> None:
        """Make it so many seconds later than it is, and each clock wrong by so many."""
        self._passed = timedelta(seconds=passed)
        for file, wrong in zip(self.files, wrong_by, strict=True):
            draft = file.with_suffix(".draft")
            draft.write_text(str(passed + wrong))
            draft.replace(file)  # at once, because the server may be reading it

    def utcnow(self) -> datetime:
        """The right time."""
        return datetime.now(UTC) + self._passed
