"""This process as a holder of leases: under which names, what it holds, and whether it may take over from others."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from evergrant.broker.runtime.holder_files import HeldLease, HolderFiles
from evergrant.db.holder import HOLDER_ID_LENGTH
from evergrant.pace import Pace

OWNER_LENGTH = 32
LATE_SECONDS = 2.0
"""A busy machine's beats may be late by so much."""


def longest_silence(pace: Pace) -> float:
    """Return how many seconds may lie between two beats of a process that is well and can reach the database."""
    return 2 * pace.beat + LATE_SECONDS


@dataclass(slots=True)
class _Held:
    lease: HeldLease
    since: float = field(default_factory=time.monotonic)
    answered: bool = False


class LeaseHolder:
    """What one process holds. It is a row in the database from the first lease on."""

    def __init__(self, folder: Path, pace: Pace) -> None:
        self.id = secrets.token_hex(HOLDER_ID_LENGTH // 2)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.shown = asyncio.Event()
        """Set when it has, or wants, a lease: from then on it has to be seen in the database."""
        self.to_give_back: dict[HeldLease, Mapping[str, object]] = {}
        """Leases whose giving back did not work, with the columns that are to be written with it."""
        self._held: dict[tuple[str, str], _Held] = {}
        self._files = HolderFiles(folder, self.id)
        self._pace = pace
        self._steady_since: datetime | None = None
        self._last_beat: datetime | None = None
        self._back_at: float | None = None
        """The monotonic second at which an outage ended; None where there was none, or it has not ended."""
        self._is_away = False

    def new_owner(self) -> str:
        """Return a name for a lease that is about to be taken."""
        self.shown.set()
        return self.id + secrets.token_hex((OWNER_LENGTH - HOLDER_ID_LENGTH) // 2)

    def took(self, *leases: HeldLease) -> None:
        """Note leases that were taken. Each is in use until it is put down."""
        self._held |= {lease[:2]: _Held(lease) for lease in leases}
        self._files.add(leases)

    def uses(self, project_id: str, grant_id: str) -> bool:
        """Tell whether something in this process uses a grant's lease."""
        return (project_id, grant_id) in self._held

    def note_answer(self, lease: HeldLease) -> None:
        """Note that the provider has given tokens: the lease is not let go any more before they have landed."""
        if (held := self._held.get(lease[:2])) is not None and held.lease == lease:
            held.answered = True

    def has_answer(self, lease: HeldLease) -> bool:
        """Tell whether the provider has given tokens under this lease."""
        held = self._held.get(lease[:2])
        return held is not None and held.lease == lease and held.answered

    def put_down(self, lease: HeldLease) -> None:
        """Note that a lease was given back, or lost."""
        self.to_give_back.pop(lease, None)
        if (held := self._held.get(lease[:2])) is not None and held.lease == lease:
            del self._held[lease[:2]]
        self._files.remove(lease)

    def leave(self, lease: HeldLease) -> None:
        """Note that nothing here uses a lease any more, which stays ours: others would send what is spent."""
        if self.is_in_use(lease):
            del self._held[lease[:2]]

    def is_in_use(self, lease: HeldLease) -> bool:
        """Tell whether a lease has not been put down."""
        held = self._held.get(lease[:2])
        return held is not None and held.lease == lease

    def give_back_later(self, lease: HeldLease, values: Mapping[str, object]) -> None:
        """Have a lease given back, with these columns changed, as soon as the database takes it."""
        self.to_give_back[lease] = values

    @property
    def owners_in_use(self) -> list[str]:
        """The names of leases that have been in use for so long that they may be over by now: seldom any."""
        long_ago = time.monotonic() - self._pace.lease / 2
        return [held.lease.owner for held in self._held.values() if held.since < long_ago]

    @property
    def is_steady(self) -> bool:
        """Whether this process and the database have been there for long enough to tell who is not."""
        if self._steady_since is None or self._last_beat is None:
            return False
        return self._last_beat - self._steady_since >= timedelta(seconds=self._pace.settle)

    def note_beat(self, at: datetime) -> None:
        """Note that the database answered, at this moment of its clock."""
        longest = timedelta(seconds=longest_silence(self._pace))
        if self._steady_since is None or self._last_beat is None or at - self._last_beat > longest:
            self._steady_since = at  # the database was away, or this process stood still
        self._last_beat = at
        if self._is_away:
            self._is_away, self._back_at = False, time.monotonic()

    def note_gap(self) -> None:
        """Note that the database did not answer."""
        self._steady_since = None
        self._is_away = True

    async def wait_for_owners(self) -> None:
        """Return at once, but for a few seconds after an outage: then those who have answers to land come first.

        The database may have come back without its last commits, and have forgotten who holds what.
        """
        if self._back_at is not None:
            await asyncio.sleep(self._back_at + self._pace.beat - time.monotonic())

    def close(self) -> bool:
        """Let the files go, and tell whether nothing is held any more."""
        self._files.close()
        return not self._held and not self.to_give_back
