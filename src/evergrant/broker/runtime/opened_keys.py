"""The data keys that this process has unwrapped: kept while their rows are there, which it looks at every minute.

One query looks after all of them, and no key service is asked. So deleting rows of `data_keys` is all that it takes to
make what they sealed worthless everywhere.
"""

import asyncio
import logging
import time
from dataclasses import dataclass

from sqlalchemy import select

from evergrant.broker.runtime.single_flight import SingleFlight
from evergrant.crypto.keyring import DataKey
from evergrant.db import DataKeyRow
from evergrant.db.engine import Database
from evergrant.errors import Unavailable

log = logging.getLogger(__name__)

KeyOfProject = tuple[str, str]
"""A project's id and a data key's."""
LOOK_SECONDS = 60.0
"""So long an opened key is used without a look whether its row is still there."""
LOOK_AHEAD_SECONDS = 30.0
"""So early the background looks, so that nobody who fetches has to wait for it."""
QUERY_SECONDS = 5.0
"""How long a look may take. A database that hangs must not hold up what can be answered."""
PAUSE_SECONDS = 5.0
"""How long nobody looks again after a look that failed."""
IDS_PER_QUERY = 1000


@dataclass(slots=True)
class _Opened:
    key: DataKey
    good_until: float
    """The monotonic second from which on it is not used without another look."""


class OpenedKeys:
    """Data keys by project and id, each with when its row was seen last."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: dict[KeyOfProject, _Opened] = {}
        self._looks: SingleFlight[None, None] = SingleFlight()
        self._look_not_before = 0.0

    def __len__(self) -> int:
        """Return how many keys are in memory."""
        return len(self._keys)

    def get(self, which: KeyOfProject, *, however_old: bool = False) -> DataKey | None:
        """Return a key whose row was there within the last minute; `however_old`, for who has just seen the row."""
        opened = self._keys.get(which)
        if opened is None or not (however_old or time.monotonic() < opened.good_until):
            return None
        return opened.key

    def put(self, which: KeyOfProject, key: DataKey, *, as_of: float) -> None:
        """Keep a key whose row was read at this monotonic second or after."""
        self._keys[which] = _Opened(key, as_of + LOOK_SECONDS)

    def forget(self, project_id: str) -> None:
        """Forget a project's keys."""
        self._keys = {which: opened for which, opened in self._keys.items() if which[0] != project_id}

    @property
    def should_look(self) -> bool:
        """Whether a key was not looked after for a while."""
        soon = time.monotonic() + LOOK_SECONDS - LOOK_AHEAD_SECONDS
        return any(opened.good_until <= soon for opened in self._keys.values())

    async def look(self) -> None:
        """Forget every key whose row is gone. All who ask at the same time share one look.

        While the database cannot be asked the keys stay, and are good for some seconds more: who opens something has
        read it there just now, and nobody can have deleted a key where nobody reaches it.
        """
        if time.monotonic() >= self._look_not_before:
            await asyncio.shield(self._looks.start(None, self._look))

    async def _look(self) -> None:
        looked = time.monotonic()
        held = list(self._keys)
        there: set[tuple[str, str]] = set()
        try:
            async with asyncio.timeout(QUERY_SECONDS), self._database.read() as session:
                for first in range(0, len(held), IDS_PER_QUERY):
                    ids = [key_id for _, key_id in held[first : first + IDS_PER_QUERY]]
                    query = select(DataKeyRow.project_id, DataKeyRow.id).where(DataKeyRow.id.in_(ids))
                    there.update((row.project_id, row.id) for row in await session.execute(query))
        except (Unavailable, TimeoutError) as error:
            self._look_not_before = time.monotonic() + PAUSE_SECONDS
            log.warning("it cannot be seen which data keys are still there", extra={"why": type(error).__name__})
            return
        for which in held:
            opened = self._keys.get(which)
            if opened is None:
                continue
            if which in there:
                opened.good_until = max(opened.good_until, looked + LOOK_SECONDS)
            elif opened.good_until < looked + LOOK_SECONDS:  # else it was read again meanwhile
                del self._keys[which]
                log.warning("a data key is gone, and with it what it sealed", extra={"project": which[0]})
