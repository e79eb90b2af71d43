"""Rotating keys while serving: re-wrap the data keys, give every project a new one, seal everything again under it.

Re-wrapping alone lets an old master key go. Sealing again also makes worthless whatever somebody could unwrap with it,
and binds to their owners what earlier versions sealed. It can be interrupted and resumed at any time: what is already
under the newest key is passed over.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from evergrant.broker.audit.record import record
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.places import BOUND, slot_in
from evergrant.broker.runtime.vault import Sealer
from evergrant.crypto.sealed import Sealed
from evergrant.db import (
    Approval,
    AuthorizationRequest,
    Base,
    BrowserLogin,
    Grant,
    OutboundApp,
    Project,
    Revocation,
    TrustedIssuer,
    Webhook,
)
from evergrant.errors import CannotOpenSealed

log = logging.getLogger(__name__)

BATCH = 500
"""So many rows are written in one transaction, which takes some milliseconds."""

RowKey = tuple[str, str]
"""A row's project and id."""


@dataclass(frozen=True, slots=True)
class RotationProgress:
    """How many values a rotation has sealed again, and how many are left."""

    done: int
    total: int
    resealed: int
    """Values that were under an earlier data key."""
    unopened: int = 0
    """Values that do not open: they were tampered with, or moved. They stay as they are."""


@dataclass(frozen=True, slots=True)
class SealedColumns:
    """A table and its sealed columns."""

    table: type[Base]
    columns: Sequence[str]

    @property
    def name(self) -> str:
        """What the table is called."""
        name: str = self.table.__tablename__
        return name

    @property
    def key(self) -> tuple[InstrumentedAttribute[Any], InstrumentedAttribute[Any]]:
        """The primary key."""
        return self.column("project_id"), self.column("id")

    def column(self, name: str) -> InstrumentedAttribute[Any]:
        """Return one column."""
        column: InstrumentedAttribute[Any] = getattr(self.table, name)
        return column

    def read(self) -> Select[Any]:
        """Return the query for everything that sealing again depends on, in the order of the primary key."""
        names = ("project_id", "id", *self.columns, *BOUND.get(self.name, ()))
        return select(*(self.column(name) for name in names)).order_by(*self.key)


# Every sealed column of the schema; a test compares this with the tables.
EVERYTHING_SEALED = (
    SealedColumns(OutboundApp, ("client_secret", "signing_key")),
    SealedColumns(Grant, ("access_token", "refresh_token", "id_token")),
    SealedColumns(AuthorizationRequest, ("code_verifier", "state", "outcome")),
    SealedColumns(Revocation, ("client_secret", "token")),
    SealedColumns(Webhook, ("secret", "previous_secret")),
    SealedColumns(Approval, ("ticket", "target", "body")),
    SealedColumns(BrowserLogin, ("return_path",)),
    SealedColumns(TrustedIssuer, ("login_client_secret",)),
)


async def rewrap_data_keys(broker: Broker) -> int:
    """Wrap every data key by the first master key. After this no other master key is needed.

    Raises:
        CannotOpenSealed: the master key of a data key is not configured; nothing is changed.
        KeyServiceUnavailable, MasterKeyRefused: a key service is away, or refuses; nothing is changed.
    """
    count = await broker.vault.rewrap()
    async with broker.database.write() as session:
        for project_id in await _project_ids(session):
            await record(session, project_id, "keyring.rewrapped")
    return count


async def start_new_data_keys(broker: Broker, *, now: datetime) -> int:
    """Give every project that has a data key a new one. Returns how many projects that are.

    Raises:
        KeyServiceUnavailable, MasterKeyRefused: the key service is away, or refuses; nothing is changed.
    """
    renewed = await broker.vault.renew_keys(now=now)
    async with broker.database.write() as session:
        for project_id in await _project_ids(session):
            if project_id in renewed:
                await record(session, project_id, "keyring.rotated")
    return len(renewed)


async def _project_ids(session: AsyncSession) -> list[str]:
    """Return every project, always in the same order: two who record something in several cannot block each other."""
    return list(await session.scalars(select(Project.id).order_by(Project.id)))


async def reseal(broker: Broker) -> AsyncIterator[RotationProgress]:
    """Seal everything again that is not under its project's newest data key, batch by batch."""
    total = 0
    async with broker.database.read() as session:
        for sealed in EVERYTHING_SEALED:
            total += (await session.execute(select(func.count()).select_from(sealed.table))).scalar_one()
    newest = await broker.vault.newest_keys()
    done = resealed = unopened = 0
    yield RotationProgress(done, total, resealed)
    for sealed in EVERYTHING_SEALED:
        last = ("", "")
        while rows := await _batch(broker, sealed, after=last):
            again, failed = await _sealed_again(broker, sealed, rows, newest=newest)
            await _write(broker, sealed, rows, again)
            resealed += sum(map(len, again.values()))
            unopened += failed
            last = _key(rows[-1])
            done += len(rows)
            yield RotationProgress(done, total, resealed, unopened)


async def _batch(broker: Broker, sealed: SealedColumns, *, after: RowKey) -> Sequence[Row[Any]]:
    query = sealed.read().where(tuple_(*sealed.key) > after).limit(BATCH)
    async with broker.database.read() as session:
        return list(await session.execute(query))


async def _sealed_again(
    broker: Broker, sealed: SealedColumns, rows: Sequence[Row[Any]], *, newest: Mapping[str, str]
) -> tuple[dict[RowKey, dict[str, Sealed]], int]:
    """Return the new values by row, and how many do not open. No transaction is open."""
    stale = [
        (row, name, current)
        for row in rows
        for name in sealed.columns
        if (current := getattr(row, name)) is not None and _is_stale(broker, current, newest.get(row.project_id))
    ]
    sealers: dict[str, Sealer] = {}
    for project_id, seals in Counter(row.project_id for row, _, _ in stale).items():
        with suppress(CannotOpenSealed):  # its data keys were deleted just now
            sealers[project_id] = await broker.vault.reserve(project_id, seals=seals)
    again: dict[RowKey, dict[str, Sealed]] = {}
    unopened = 0
    for row, name, current in stale:
        if row.project_id not in sealers:
            continue
        slot = slot_in(sealed.name, row, name)
        try:
            secret = await broker.vault.open(slot, current)
        except CannotOpenSealed:
            log.warning("a value does not open and stays", extra={"table": sealed.name, "column": name, "row": row.id})
            unopened += 1
        else:
            again.setdefault(_key(row), {})[name] = sealers[row.project_id].seal(slot, secret)
    return again, unopened


def _is_stale(broker: Broker, value: Sealed, newest: str | None) -> bool:
    """Tell whether a value is to be sealed again; not where its project has no data key any more."""
    try:
        return newest is not None and broker.vault.key_of(value) != newest
    except CannotOpenSealed:
        return True  # it will not open, and is counted


async def _write(
    broker: Broker, sealed: SealedColumns, rows: Sequence[Row[Any]], again: Mapping[RowKey, Mapping[str, Sealed]]
) -> None:
    """Write new values onto the rows that are as they were read; all at once, but for those that somebody has locked.

    Those come after, one by one: who holds one lock while waiting for another can block somebody who does too.
    """
    as_read = {_key(row): row for row in rows if _key(row) in again}
    seen = await _write_some(broker, sealed, as_read, again, wait=False)
    for key in as_read.keys() - seen:
        await _write_some(broker, sealed, {key: as_read[key]}, again, wait=True)


async def _write_some(
    broker: Broker,
    sealed: SealedColumns,
    as_read: Mapping[RowKey, Row[Any]],
    again: Mapping[RowKey, Mapping[str, Sealed]],
    *,
    wait: bool,
) -> Collection[RowKey]:
    """Write what can be written, and return the rows that nobody else had locked.

    A row that changed since it was read holds newer secrets, sealed by whoever changed it: it is left alone.
    """
    if not as_read:
        return ()
    query = sealed.read().where(tuple_(*sealed.key).in_(list(as_read))).with_for_update(skip_locked=not wait)
    async with broker.database.write() as session:
        locked = (await session.execute(query)).all()
        unchanged = [key for row in locked if tuple(row) == tuple(as_read[key := _key(row)])]
        if unchanged:
            changes = [{"project_id": key[0], "id": key[1], **again[key]} for key in unchanged]
            await session.execute(update(sealed.table), changes)
    return [_key(row) for row in locked]


def _key(row: Row[Any]) -> RowKey:
    return row.project_id, row.id
