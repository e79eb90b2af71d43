"""Path globs: `*` stands for one segment, or a part of one, and `**` for any number of segments, none among them."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
"""What may be called at all."""
MAX_GLOB = 500
_GLOB = re.compile(r"/[!-~]*")
_ODD = re.compile(r"[?#%;\\]")
T = TypeVar("T")


def glob_problem(glob: str) -> str:
    """Return what is wrong with a glob, and what to do; empty where nothing is."""
    if len(glob) > MAX_GLOB:
        return f"use at most {MAX_GLOB} characters for each"
    if not _GLOB.fullmatch(glob):
        return "begin each with '/', and use no blanks: /v1/users/*, /v1/**"
    if _ODD.search(glob):
        return "write a path alone, decoded, and * for what holds one of ? # % ; and \\"
    segments = glob.split("/")[1:]
    if any("**" in segment and segment != "**" for segment in segments):
        return "let ** be a whole segment: /v1/**"
    if any(segment in (".", "..") for segment in segments) or "" in segments[:-1]:
        return "write no segment that is empty, '.' or '..'"
    return ""


def method_problem(method: str) -> str:
    """Return what is wrong with the name of a method, and what to do; empty where nothing is."""
    return "" if method in METHODS else f"use {', '.join(METHODS)}"


def covers(glob: str, path: str) -> bool:
    """Tell whether a glob stands for a path, as it is written: in the same case, and with the same slashes."""
    return _runs(_segments(glob), path.split("/"), "**", _is_segment)


def covers_alike(glob: str, path: str) -> bool:
    """Tell whether a server may take a path for one that a glob stands for.

    Many look away from case, from slashes that are one too many, and from what stands behind a `;` in a segment.
    """
    folded = _folded(glob)
    whole = [segment for segment in path.casefold().split("/") if segment]
    bare = [name for segment in whole if (name := segment.partition(";")[0])]
    return _runs(folded, whole, "**", _is_segment) or _runs(folded, bare, "**", _is_segment)


@lru_cache(maxsize=4096)
def _segments(glob: str) -> tuple[str, ...]:
    return tuple(glob.split("/"))


@lru_cache(maxsize=4096)
def _folded(glob: str) -> tuple[str, ...]:
    return tuple(segment for segment in glob.casefold().split("/") if segment)


def _is_segment(pattern: str, segment: str) -> bool:
    if pattern == "*":
        return bool(segment)
    return pattern == segment if "*" not in pattern else _runs(pattern, segment, "*", str.__eq__)


def _runs(pattern: Sequence[T], items: Sequence[T], many: T, matches: Callable[[T, T], bool]) -> bool:
    """Match items with a pattern in which `many` stands for any number. Takes at most their product in steps.

    Whatever an earlier `many` takes, only the last one met has ever to take more.
    """
    at = here = 0
    after, taken = -1, 0
    while here < len(items):
        if at < len(pattern) and pattern[at] == many:
            after, taken = at + 1, here
            at += 1
        elif at < len(pattern) and matches(pattern[at], items[here]):
            at, here = at + 1, here + 1
        elif after >= 0:
            taken += 1
            at, here = after, taken
        else:
            return False
    return all(one == many for one in pattern[at:])
