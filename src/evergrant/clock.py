"""The only reader of the wall clock.

Everywhere else time is an argument. Tests replace `utcnow` here and nowhere else, so callers go through the
module: `clock.utcnow()`.
"""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return the current instant, timezone-aware, in UTC."""
    return datetime.now(UTC)
