"""Uses of keys and grants, noted in memory and written down about once a minute, so that a fetch writes nothing.

A crash loses no more than that minute.
"""

import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from evergrant.errors import Unavailable

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

GrantKey = tuple[str, str]
"""A grant, by its project and id."""

MAX_KNOWN_ADDRESSES = 10_000
MAX_KNOWN_GRANTS = 100_000
PRECISION = timedelta(days=1)
"""How often a grant's last fetch is written down at most: idleness is a matter of weeks."""


class Unwritten(Generic[K]):
    """Moments by key that are not written down yet."""

    def __init__(self) -> None:
        self._moments: dict[K, datetime] = {}

    def __len__(self) -> int:
        """Return how many moments wait."""
        return len(self._moments)

    def get(self, key: K) -> datetime | None:
        """Return the moment that waits for a key, if one does."""
        return self._moments.get(key)

    def note_latest(self, key: K, at: datetime) -> None:
        """Note a moment in the place of an earlier one."""
        self._moments[key] = at

    def note_first(self, key: K, at: datetime) -> None:
        """Note a moment, unless there is an earlier one."""
        self._moments.setdefault(key, at)

    async def drain(self, write: Callable[[Sequence[tuple[K, datetime]]], Awaitable[None]], *, at_once: int) -> None:
        """Give what waits to `write`, at most `at_once` moments in each call, and forget what it has written.

        What cannot be written is tried by itself, logged and dropped: it holds nothing else up.

        Raises:
            Unavailable: the database is away. What was given to `write` waits on; so does a key for which a later
                moment is noted meanwhile.
        """
        waiting = list(self._moments.items())
        for start in range(0, len(waiting), at_once):
            await self._write(waiting[start : start + at_once], write)

    async def _write(
        self, part: Sequence[tuple[K, datetime]], write: Callable[[Sequence[tuple[K, datetime]]], Awaitable[None]]
    ) -> None:
        try:
            await write(part)
        except Unavailable:
            raise
        except Exception:
            if len(part) > 1:
                for one in part:
                    await self._write([one], write)
                return
            log.exception("a use cannot be written down and is dropped", extra={"of": part[0][0]})
        for key, at in part:
            if self._moments.get(key) == at:
                del self._moments[key]


class UnwrittenUses:
    """What one process has to write down."""

    def __init__(self) -> None:
        self.keys: Unwritten[tuple[str, str]] = Unwritten()
        """The latest use of a management key, by (project, key)."""
        self.addresses: Unwritten[tuple[str, str, str]] = Unwritten()
        """The first use of a management key from an address, by (project, key, address)."""
        self.key_addresses: dict[tuple[str, str], str] = {}
        """Where a management key was used from last, by (project, key)."""
        self.console: Unwritten[str] = Unwritten()
        """The latest use of a session at the console, by its id."""
        self.visits: Unwritten[str] = Unwritten()
        """The latest use of a visit of connected accounts, by its id."""
        self.grants: Unwritten[GrantKey] = Unwritten()
        """When a token was last handed out."""
        self._known_grants: dict[GrantKey, datetime] = {}
        """The last use of a grant that was noted, whether it is written down yet or not."""
        self._known_addresses: set[tuple[str, str, str]] = set()

    def note_key(self, project_id: str, key_id: str, address: str, *, at: datetime) -> None:
        """Note that a management key was used from an address."""
        self.keys.note_latest((project_id, key_id), at)
        self.key_addresses[project_id, key_id] = address
        if (use := (project_id, key_id, address)) not in self._known_addresses:
            self.addresses.note_first(use, at)

    def note_grant(self, key: GrantKey, *, at: datetime) -> None:
        """Note that a grant's token was handed out, if that was not noted within the last day."""
        known = self._known_grants.get(key)
        if known is not None and at - known < PRECISION:
            return
        if len(self._known_grants) >= MAX_KNOWN_GRANTS:
            self._known_grants.clear()  # who writes them down finds out which need not be written
        self._known_grants[key] = at
        self.grants.note_latest(key, at)

    def has_grant_of(self, project_id: str) -> bool:
        """Tell whether this process has handed a token of a project out lately."""
        return any(key[0] == project_id for key in self._known_grants)

    def forget_grant(self, key: GrantKey) -> None:
        """Let the next use of a grant be noted, however soon it comes."""
        self._known_grants.pop(key, None)

    def know_address(self, project_id: str, key_id: str, address: str) -> None:
        """Remember that a key's use from an address is written down, so that it is not noted again."""
        if len(self._known_addresses) >= MAX_KNOWN_ADDRESSES:
            self._known_addresses.clear()  # the audit log is asked again then
        self._known_addresses.add((project_id, key_id, address))
