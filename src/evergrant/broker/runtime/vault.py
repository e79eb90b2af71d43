"""The vault: the only code that opens secrets.

A project's data keys are unwrapped once, and kept while their rows are there: within a minute of a row's end nothing
opens here that it sealed. Sealing may have to reserve room under a key or make a new one, which writes, and asks the
service that holds the master key; so callers seal first and open their own transaction after. Who has to be able to
seal whatever happens to the database, because somebody else's answer is on its way, reserves before.
"""

import asyncio
import time
from datetime import datetime, timedelta
from functools import partial

from pydantic import SecretStr
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.broker.runtime.opened_keys import KeyOfProject, OpenedKeys
from evergrant.broker.runtime.single_flight import SingleFlight
from evergrant.crypto.keyring import DataKey, Keyring, WrappedDataKey, data_key_id
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.db import DataKeyRow, Project
from evergrant.db.engine import Database
from evergrant.errors import CannotOpenSealed, Unavailable

MAX_SEALS_PER_KEY = 2**31
"""Half of what random nonces allow one AES-GCM key (NIST SP 800-38D section 8.3)."""
MAX_KEY_AGE = timedelta(days=90)
SEALS_PER_RESERVATION = 2**12
"""A process sets this many seals aside with one write, so that counting costs next to nothing."""
RESERVATION_SECONDS = 60.0
"""After this long a process looks again which key is the newest, so that a rotation reaches all of them."""
RENEWAL_SECONDS = 5.0
"""So long that look may take where seals are left: a database that hangs must not hold up who could seal already."""


class _SealingKey:
    """A project's current data key and what this process may still seal with it."""

    def __init__(self, key: DataKey) -> None:
        self.key = key
        self.seals_left = SEALS_PER_RESERVATION
        self._expires = time.monotonic() + RESERVATION_SECONDS

    def has(self, seals: int) -> bool:
        return self.seals_left >= seals

    @property
    def is_old(self) -> bool:
        return time.monotonic() > self._expires


class Sealer:
    """A few seals that were reserved: it needs neither the database nor time, and so cannot fail for them."""

    def __init__(self, key: DataKey, project_id: str, seals: int) -> None:
        self._key = key
        self._project_id = project_id
        self._left = seals

    def seal(self, slot: Slot, secret: SecretStr) -> Sealed:
        """Encrypt `secret` for its place, which is one of the project that this was reserved for."""
        assert slot.project_id == self._project_id, "a sealer is for one project"  # noqa: S101 - a mistake of ours
        assert self._left > 0, "more is sealed than was reserved"  # noqa: S101 - a mistake of ours
        self._left -= 1
        return self._key.seal(slot, secret.get_secret_value())


class Vault:
    """Seals and opens, for every project."""

    def __init__(self, keyring: Keyring, database: Database) -> None:
        self._keyring = keyring
        self._opened = OpenedKeys(database)
        self._database = database
        self._sealing: dict[str, _SealingKey] = {}
        self._reservations: SingleFlight[str, _SealingKey] = SingleFlight()
        self._unwraps: SingleFlight[KeyOfProject, DataKey] = SingleFlight()

    async def seal(self, slot: Slot, secret: SecretStr) -> Sealed:
        """Encrypt `secret` for its place. Not inside a transaction of the caller's: this may write."""
        return (await self.reserve(slot.project_id, seals=1)).seal(slot, secret)

    async def reserve(self, project_id: str, *, seals: int) -> Sealer:
        """Return what can seal so often for a project. Not inside a transaction of the caller's: this may write.

        Raises:
            Unavailable: the database or the key service is away, and there is no earlier reservation with as many
                seals left.
            CannotOpenSealed: the project has no data key, or its master key is not configured.
            MasterKeyRefused: the key service refuses.
        """
        assert seals <= SEALS_PER_RESERVATION, "nobody seals so often at once"  # noqa: S101 - a mistake of ours
        current = self._sealing.get(project_id)
        while current is None or current.is_old or not current.has(seals):
            # Everybody who finds the key used up shares one reservation.
            flight = self._reservations.start(project_id, partial(self._reserve, project_id))
            enough = current is not None and current.has(seals)
            try:
                async with asyncio.timeout(RENEWAL_SECONDS if enough else None):
                    current = await asyncio.shield(flight)
            except (Unavailable, TimeoutError) as error:
                # What was reserved before and is left may still be used: only whether there is a newer key is unknown.
                if isinstance(error, Unavailable) and not (current is not None and current.has(seals)):
                    raise
            if current is not None and current.has(seals):  # else those who shared it were more than it was made for
                break
        current.seals_left -= seals
        return Sealer(current.key, project_id, seals)

    async def open(self, slot: Slot, sealed: Sealed) -> SecretStr:
        """Decrypt what was sealed for this place.

        Raises:
            CannotOpenSealed: the value was altered or moved, its data key is gone, or its master key is not configured.
            Unavailable, MasterKeyRefused: its data key was not used here yet, and cannot be read or unwrapped now.
        """
        which = (slot.project_id, data_key_id(sealed))
        key = self._opened.get(which)
        if key is None:
            key = await self._still_there(which)
        return SecretStr(key.open(slot, sealed))

    @staticmethod
    def key_of(sealed: Sealed) -> str:
        """Return the id of the data key that a value is sealed under, without opening it."""
        return data_key_id(sealed)

    def forget(self, project_id: str) -> None:
        """Forget a project's data keys, here and at once. Every other process does when it finds their rows gone."""
        self._opened.forget(project_id)
        self._sealing.pop(project_id, None)

    @property
    def keys_in_memory(self) -> int:
        """How many data keys this process has opened and keeps."""
        return len(self._opened)

    async def look_after_keys(self) -> None:
        """Forget the data keys whose rows are gone, if the last look is some time ago. To be done every few seconds."""
        if self._opened.should_look:
            await self._look()

    async def create_key(self, session: AsyncSession, project_id: str, *, now: datetime) -> str:
        """Give a project its first data key, and return the key's id. Raises as `Keyring.new_data_key`."""
        row = _row(await self._keyring.new_data_key(project_id), now=now)
        session.add(row)
        self._sealing.pop(project_id, None)
        return row.id

    async def renew_keys(self, *, now: datetime) -> list[str]:
        """Give each project that has a data key a new one, and return the projects. Raises as `Keyring.new_data_key`.

        Every process seals with it within `RESERVATION_SECONDS`. A project without any has none to seal with again.
        """
        wrapped = [await self._keyring.new_data_key(project_id) for project_id in await self.newest_keys()]
        async with self._database.write() as session:
            # Who shreds a project waits, or has done it: a key that comes after that would outlive it.
            await session.execute(select(Project.id).order_by(Project.id).with_for_update(read=True))
            there = set(await session.scalars(select(DataKeyRow.project_id).distinct()))
            rows = [_row(key, now=now) for key in wrapped if key.project_id in there]
            session.add_all(rows)
        for row in rows:
            self._sealing.pop(row.project_id, None)
        return [row.project_id for row in rows]

    async def rewrap(self) -> int:
        """Wrap every data key by the first master key, also what it has wrapped before, and return how many there are.

        A key service has versions of a key: what is wrapped again is under the newest.

        Raises:
            CannotOpenSealed: a data key's master key is not configured; nothing is changed then.
            KeyServiceUnavailable, MasterKeyRefused: as `MasterKey.wrap`; nothing is changed either.
        """
        async with self._database.read() as session:
            rows = list(await session.scalars(select(DataKeyRow)))
        # Key services are asked while no transaction is open.
        again = [(row, await self._keyring.rewrap(_wrapped(row))) for row in rows]
        async with self._database.write() as session:
            for row, new in again:
                await session.execute(
                    update(DataKeyRow)
                    .where(DataKeyRow.project_id == row.project_id, DataKeyRow.id == row.id)
                    .values(master_key_id=new.master_key_id, wrapped=new.wrapped)
                    .execution_options(synchronize_session=False)
                )
        return len(rows)

    async def newest_keys(self) -> dict[str, str]:
        """Return the id of the data key that seals now, by project."""
        async with self._database.read() as session:
            columns = DataKeyRow.project_id, DataKeyRow.id
            rows = await session.execute(select(*columns).order_by(DataKeyRow.binds_owner, DataKeyRow.created_at))
            return {row.project_id: row.id for row in rows}

    async def _reserve(self, project_id: str) -> _SealingKey:
        looked = time.monotonic()
        try:
            wrapped = await self._newest_with_room(project_id)
        except CannotOpenSealed:
            self.forget(project_id)
            raise
        which = (project_id, wrapped.id)
        known = self._opened.get(which, however_old=True)  # its row was there just now
        key = known or await self._unwraps.start(which, partial(self._unwrap, wrapped))
        self._opened.put(which, key, as_of=looked)
        reserved = _SealingKey(key)
        self._sealing[project_id] = reserved
        return reserved

    async def _newest_with_room(self, project_id: str) -> WrappedDataKey:
        """Set seals aside under a project's newest data key, which is a new one if that is worn out, and return it."""
        fresh: WrappedDataKey | None = None
        while True:
            now = clock.now()
            async with self._database.write() as session:
                newest = (
                    select(DataKeyRow)
                    .where(DataKeyRow.project_id == project_id)
                    # One that binds no owner never comes before one that does, whenever its row says that it was made.
                    .order_by(DataKeyRow.binds_owner.desc(), DataKeyRow.created_at.desc())
                    .limit(1)
                    .with_for_update()
                )
                row = (await session.execute(newest)).scalar_one_or_none()
                if row is None:
                    raise CannotOpenSealed("this project has no data key: it was deleted, and with it all secrets")
                worn_out = row.seals_reserved + SEALS_PER_RESERVATION > MAX_SEALS_PER_KEY
                is_old = worn_out or now - row.created_at > MAX_KEY_AGE
                if is_old and fresh is not None:
                    row = _row(fresh, now=now)
                    session.add(row)
                    await session.flush()
                if not is_old or fresh is not None:
                    await session.execute(
                        update(DataKeyRow)
                        .where(DataKeyRow.project_id == project_id, DataKeyRow.id == row.id)
                        .values(seals_reserved=DataKeyRow.seals_reserved + SEALS_PER_RESERVATION)
                        .execution_options(synchronize_session=False)
                    )
                    return _wrapped(row)
            # Made while no transaction is open: a key service may take seconds.
            fresh = await self._keyring.new_data_key(project_id)

    async def _still_there(self, which: KeyOfProject) -> DataKey:
        """Return a data key that was not used here yet, or not looked after for too long."""
        if self._opened.get(which, however_old=True) is not None:
            await self._look()
            key = self._opened.get(which, however_old=True)
            if key is not None:
                return key
        return await asyncio.shield(self._unwraps.start(which, partial(self._load, which)))

    async def _look(self) -> None:
        await self._opened.look()
        for project_id, current in list(self._sealing.items()):
            if self._opened.get((project_id, current.key.id), however_old=True) is None:
                del self._sealing[project_id]

    async def _load(self, which: KeyOfProject) -> DataKey:
        looked = time.monotonic()
        async with self._database.read() as session:
            row = await session.get(DataKeyRow, which)
        if row is None:
            raise CannotOpenSealed
        key = await self._unwrap(_wrapped(row))
        self._opened.put(which, key, as_of=looked)
        return key

    async def _unwrap(self, wrapped: WrappedDataKey) -> DataKey:
        return await self._keyring.unwrap(wrapped)


def _row(wrapped: WrappedDataKey, *, now: datetime) -> DataKeyRow:
    return DataKeyRow(
        project_id=wrapped.project_id,
        id=wrapped.id,
        master_key_id=wrapped.master_key_id,
        wrapped=wrapped.wrapped,
        binds_owner=wrapped.binds_owner,
        seals_reserved=0,
        created_at=now,
    )


def _wrapped(row: DataKeyRow) -> WrappedDataKey:
    return WrappedDataKey(row.id, row.project_id, row.master_key_id, row.wrapped, row.binds_owner)


async def unwrapped(keyring: Keyring, row: DataKeyRow) -> DataKey:
    """Unwrap a stored data key, for checks. Raises as `Keyring.unwrap`."""
    return await keyring.unwrap(_wrapped(row))
