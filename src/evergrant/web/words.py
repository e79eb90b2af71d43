"""How times and numbers read on pages: pure functions, and the filters of every template."""

import re
from datetime import datetime

from markupsafe import Markup

from evergrant import clock

MINUTE, HOUR, DAY = 60, 3600, 86400


def span(seconds: float) -> str:
    """Return a length of time in its largest fitting unit: `40 s`, `12 min`, `3 h`, `4 days`."""
    seconds = abs(round(seconds))
    if seconds < MINUTE:
        return f"{seconds} s"
    if seconds < 90 * MINUTE:
        return f"{seconds // MINUTE} min"
    if seconds < 2 * DAY:
        return f"{seconds // HOUR} h"
    return f"{seconds // DAY} days"


def ago(at: datetime) -> str:
    """Return a moment as seen from now: `in 42 min`, `3 days ago`, `now`."""
    seconds = (at - clock.now()).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"in {span(seconds)}" if seconds > 0 else f"{span(seconds)} ago"


def exact(at: datetime) -> str:
    """Return a moment as nobody can misread it: `3 November 2026, 14:22:05 UTC`."""
    return f"{day(at)}, {at:%H:%M:%S} UTC"


def day(at: datetime) -> str:
    """Return a date: `3 November 2026`."""
    return f"{at.day} {at:%B %Y}"


def time(at: datetime | None, *, words: str = "", never: str = "\N{EN DASH}") -> Markup:
    """Return a moment as an element: how long ago, and on pointing at it when exactly.

    `words` stand in the place of how long ago, `never` in that of no moment.
    """
    if at is None:
        return Markup('<span class="soft">{}</span>').format(never)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), exact(at), words or ago(at)
    )


def grouped(number: int) -> str:
    """Return a number with its thousands set apart: `48,212`."""
    return f"{number:,}"


def counted(number: int, one: str, many: str = "") -> str:
    """Return how many there are of something: `1 connection`, `1,204 connections`."""
    return f"{grouped(number)} {one if number == 1 else many or one + 's'}"


def breakable(text: str) -> Markup:
    """Let a long address break where its parts do, and not in the middle of a word."""
    parts = re.split(r"(?<=[/._:])", text)
    return Markup("<wbr>").join(parts)


def coded(text: str) -> Markup:
    """Set apart what stands in backticks, as the API's descriptions write names."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


FILTERS = {
    "ago": ago,
    "exact": exact,
    "day": day,
    "time": time,
    "grouped": grouped,
    "counted": counted,
    "breakable": breakable,
    "coded": coded,
    "span": span,
}
