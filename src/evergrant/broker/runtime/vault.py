"""The vault: the only code that opens secrets.

A project's data keys are unwrapped once and kept. Sealing may have to reserve room under a key or make a new one, which
writes; so callers seal first and open their own transaction after. Who has to be able to seal whatever happens to the
database, because somebody else's answer is on its way, reserves before.
"""

import asyncio
import time
from datetime import datetime, timedelta
from functools import partial

from pydantic import SecretStr
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.broker.runtime.single_flight import SingleFlight
from evergrant.crypto.keyring import DataKey, Keyring, WrappedDataKey, data_key_id
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.db import DataKeyRow
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
        self._database = database
        self._opening: dict[tuple[str, str], DataKey] = {}
        self._sealing: dict[str, _SealingKey] = {}
        self._reservations: SingleFlight[str, _SealingKey] = SingleFlight()

    async def seal(self, slot: Slot, secret: SecretStr) -> Sealed:
        """Encrypt `secret` for its place. Not inside a transaction of the caller's: this may write."""
        return (await self.reserve(slot.project_id, seals=1)).seal(slot, secret)

    async def reserve(self, project_id: str, *, seals: int) -> Sealer:
        """Return what can seal so often for a project. Not inside a transaction of the caller's: this may write.

        Raises:
            Unavailable: the database is away, and there is no earlier reservation with as many seals left.
            CannotOpenSealed: the project has no data key, or its master key is not configured.
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
            CannotOpenSealed: the value was altered or moved, or its master key is not configured.
        """
        key = self._opening.get((slot.project_id, data_key_id(sealed)))
        if key is None:
            key = await self._load(slot.project_id, data_key_id(sealed))
        return SecretStr(key.open(slot, sealed))

    @staticmethod
    def key_of(sealed: Sealed) -> str:
        """Return the id of the data key that a value is sealed under, without opening it."""
        return data_key_id(sealed)

    async def create_key(self, session: AsyncSession, project_id: str, *, now: datetime) -> str:
        """Give a project a new data key, its first or the next one, and return the key's id.

        Every process seals with it within `RESERVATION_SECONDS`.
        """
        row = _row(self._keyring.new_data_key(project_id), now=now)
        session.add(row)
        self._sealing.pop(project_id, None)
        return row.id

    async def rewrap(self, session: AsyncSession) -> int:
        """Wrap every data key by the first master key, and return how many were under another.

        Raises:
            CannotOpenSealed: a data key's master key is not configured; nothing is changed then.
        """
        stale = DataKeyRow.master_key_id != self._keyring.first_id
        rows = list(await session.scalars(select(DataKeyRow).where(stale).with_for_update()))
        for row in rows:
            again = self._keyring.rewrap(_wrapped(row))
            row.master_key_id, row.wrapped = again.master_key_id, again.wrapped
        return len(rows)

    async def newest_keys(self) -> dict[str, str]:
        """Return the id of the data key that seals now, by project."""
        async with self._database.read() as session:
            rows = await session.execute(select(DataKeyRow.project_id, DataKeyRow.id).order_by(DataKeyRow.created_at))
            return {row.project_id: row.id for row in rows}

    async def _reserve(self, project_id: str) -> _SealingKey:
        now = clock.now()
        async with self._database.write() as session:
            newest = (
                select(DataKeyRow)
                .where(DataKeyRow.project_id == project_id)
                .order_by(DataKeyRow.created_at.desc())
                .limit(1)
                .with_for_update()
            )
            row = (await session.execute(newest)).scalar_one_or_none()
            if row is None:
                raise CannotOpenSealed("this project has no data key: it was deleted, and with it all secrets")
            worn_out = row.seals_reserved + SEALS_PER_RESERVATION > MAX_SEALS_PER_KEY
            if worn_out or now - row.created_at > MAX_KEY_AGE:
                row = _row(self._keyring.new_data_key(project_id), now=now)
                session.add(row)
                await session.flush()
            await session.execute(
                update(DataKeyRow)
                .where(DataKeyRow.project_id == project_id, DataKeyRow.id == row.id)
                .values(seals_reserved=DataKeyRow.seals_reserved + SEALS_PER_RESERVATION)
                .execution_options(synchronize_session=False)
            )
            wrapped = _wrapped(row)
        reserved = _SealingKey(self._unwrap(wrapped))
        self._sealing[project_id] = reserved
        return reserved

    async def _load(self, project_id: str, key_id: str) -> DataKey:
        async with self._database.read() as session:
            row = await session.get(DataKeyRow, (project_id, key_id))
        if row is None:
            raise CannotOpenSealed
        return self._unwrap(_wrapped(row))

    def _unwrap(self, wrapped: WrappedDataKey) -> DataKey:
        key = self._opening.get((wrapped.project_id, wrapped.id)) or self._keyring.unwrap(wrapped)
        self._opening[wrapped.project_id, wrapped.id] = key
        return key


def _row(wrapped: WrappedDataKey, *, now: datetime) -> DataKeyRow:
    return DataKeyRow(
        project_id=wrapped.project_id,
        id=wrapped.id,
        master_key_id=wrapped.master_key_id,
        wrapped=wrapped.wrapped,
        seals_reserved=0,
        created_at=now,
    )


def _wrapped(row: DataKeyRow) -> WrappedDataKey:
    return WrappedDataKey(id=row.id, project_id=row.project_id, master_key_id=row.master_key_id, wrapped=row.wrapped)


def unwrapped(keyring: Keyring, row: DataKeyRow) -> DataKey:
    """Unwrap a stored data key, for checks.

    Raises:
        CannotOpenSealed: its master key is not configured, or the row was altered.
    """
    return keyring.unwrap(_wrapped(row))
