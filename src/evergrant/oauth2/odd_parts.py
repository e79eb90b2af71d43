"""Works out what stands beside tokens in an answer, so that nothing odd there can cost the tokens themselves."""

import logging
from collections.abc import Callable
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


def part_or(fallback: T, part: str, work: Callable[[], T]) -> T:
    """Return what `work` makes of a part of an answer, or `fallback` where that fails, in whatever way.

    A rotated token exists nowhere else, and this is the one place where an error of our own, too, must be swallowed.
    The log names the part and the kind of error, and not its text, which may repeat what was sent.
    """
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - see above
        extra = {"part": part, "error": type(error).__name__}
        log.error("a part of a provider's answer was left out", extra=extra)
        return fallback
