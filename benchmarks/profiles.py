"""Where does the processor time of a process go? Its own time by what the code belongs to, from two cProfiles."""

import pstats
from collections import defaultdict
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

# The first that occurs in a function's file or, for what is written in C, in its name.
PARTS = (
    ("waiting", ("select.epoll", "'poll' of 'select")),
    ("SQLAlchemy", ("/sqlalchemy/", "greenlet")),
    ("database driver", ("/asyncpg/", "asyncpg.", "/aiosqlite/", "sqlite3")),
    ("HTTP client", ("/httpcore2/", "/anyio/", "/h11/", "/sniffio/", "oauth2/transport", "oauth2/egress")),
    ("seal and open", ("/crypto/", "runtime/vault", "/cryptography/", "AESGCM")),
    ("journal", ("runtime/journal", "runtime/batches", "posix.fsync", "posix.rename", "posix.unlink")),
    ("token request and answer", ("/authlib/", "/oauth2/", "/urllib/")),
    ("evergrant", ("/evergrant/",)),
    ("event loop", ("/asyncio/", "_asyncio.", "_contextvars", "socket", "selectors", "/concurrent/", "/threading")),
)
REST = "the rest"
SMALLEST = 0.005

Function = tuple[str, int, str]
"""File, line and name."""
Measured = tuple[int, int, float, float, dict[Function, tuple[int, int, float, float]]]
"""Calls, primitive calls, own and cumulated seconds; and the same by caller."""
_NEVER_CALLED: Measured = (0, 0, 0.0, 0.0, {})


@dataclass(frozen=True)
class Share:
    """A part's share of the whole time that is not waiting."""

    what: str
    part: float


def where_it_goes(profile: Path, *, less: Path) -> list[Share]:
    """Sum a profile up, the largest part first, without what `less` has as well: what a start costs, for example.

    The profiler sees the event loop's thread alone, and makes Python look dearer than C.
    """
    working, idle = _functions(profile), _functions(less)
    times: dict[str, float] = defaultdict(float)
    for function, (calls, _, own, _, callers) in working.items():
        calls_less, _, own_less, _, callers_less = idle.get(function, _NEVER_CALLED)
        if calls <= calls_less:
            continue  # the same work twice: what differs is chance
        part = _part(function)
        if part != REST or not callers:
            times[part] += own - own_less
            continue
        for caller, (_, _, here, _) in callers.items():  # isinstance() and kin: on whose behalf?
            times[_part(caller)] += here - (callers_less[caller][2] if caller in callers_less else 0.0)
    times.pop("waiting", None)
    whole = sum(times.values())
    shares = [Share(part, time / whole) for part, time in sorted(times.items(), key=itemgetter(1), reverse=True)]
    return [share for share in shares if share.part >= SMALLEST]


def _functions(profile: Path) -> dict[Function, Measured]:
    functions: dict[Function, Measured] = pstats.Stats(str(profile)).stats  # type: ignore[attr-defined]  # not in stubs
    return functions


def _part(function: Function) -> str:
    file, _line, name = function
    for part, signs in PARTS:
        if any(sign in file or (file == "~" and sign in name) for sign in signs):
            return part
    return REST
