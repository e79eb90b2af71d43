"""Random pauses: what failed together, or was made together, must not come back together."""

import random
from datetime import timedelta
from typing import TypeVar

Span = TypeVar("Span", float, timedelta)
"""Seconds, or a `timedelta`."""

MAX_DOUBLINGS = 16
CHANCE = random.Random()  # noqa: S311 - a moment to come back at is no secret
"""A generator of our own: the process's common one belongs to whoever has seeded it, a test for example."""


def jittered(span: Span, share: tuple[float, float] = (0.75, 1.25)) -> Span:
    """Return a random part of a span of time, between these two shares of it."""
    return span * CHANCE.uniform(*share)


def doubling(first: Span, most: Span, *, failures: int) -> Span:
    """Return how long to wait after so many failures in a row: `first` after one, twice as long after each, jittered.

    Before the jitter it is at most `most`.
    """
    return jittered(min(most, first * 2.0 ** min(failures - 1, MAX_DOUBLINGS)))
