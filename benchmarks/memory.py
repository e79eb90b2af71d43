"""How much memory processes have, as Linux tells it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KIB = 1024


@dataclass(frozen=True)
class Memory:
    """Of one process, in megabytes (of 1,000,000 bytes); 0 where the system does not tell through /proc."""

    own: float
    """What is its alone: what the machine gets back when it ends."""
    share: float
    """The same, and its part of what it shares with others (its "proportional set size")."""
    resident: float
    """Everything, also what other processes share, such as the code of libraries."""


def memory_of(pid: int) -> Memory:
    """Return how much memory a process has now."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return Memory(0, 0, 0)
    kib = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    own = kib["Private_Clean"] + kib["Private_Dirty"]
    return Memory(*(value * KIB / 1e6 for value in (own, kib["Pss"], kib["Rss"])))


def workers_of(pid: int) -> list[int]:
    """Return the processes that a server has started to answer with, or itself where it answers alone."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    # A process that serves has threads and hundreds of modules; the one that watches over shared memory is small.
    large = [int(child) for child in children if memory_of(int(child)).own > SMALL_MB]
    return large or [pid]


SMALL_MB = 20
LOOK_SECONDS = 0.2


def wait_for_workers(pid: int, count: int, *, seconds: float = 60.0) -> list[int]:
    """Wait until a server has so many processes that answer.

    Raises:
        RuntimeError: it has not.
    """
    deadline = time.monotonic() + seconds
    while len(found := workers_of(pid)) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(found)} of {count} processes have started")
        time.sleep(LOOK_SECONDS)
    return found


def largest(memories: Sequence[Memory]) -> Memory:
    """Return the largest of several processes."""
    return max(memories, key=lambda one: one.own)
