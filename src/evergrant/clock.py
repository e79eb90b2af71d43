"""The only reader of the wall clock.

Everywhere else time is an argument. Tests that stand still or travel replace `now` here and nowhere else, so callers go
through the module: `clock.now()`.

Machines' clocks can be wrong, and processes that share grants must agree on when tokens end. So what this one reads is
corrected by what the database's clock says, once that is known.
"""

from datetime import UTC, datetime, timedelta

_wrong_by = timedelta(0)


def now() -> datetime:
    """Return the current instant, timezone-aware, in UTC."""
    return utcnow() - _wrong_by


def utcnow() -> datetime:
    """Return what this machine takes for the current instant."""
    return datetime.now(UTC)


def wrong_by() -> timedelta:
    """Return by how much this machine's clock is ahead of the database's, as far as that is known."""
    return _wrong_by


def correct(wrong_by: timedelta) -> None:
    """Correct `now` from here on: this machine's clock is ahead by so much, or behind where it is negative."""
    global _wrong_by  # noqa: PLW0603 - a process has one clock
    _wrong_by = wrong_by
