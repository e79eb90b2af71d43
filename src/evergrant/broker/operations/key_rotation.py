"""Rotating keys while serving: re-wrap the data keys, give every project a new one, seal everything again under it.

Re-wrapping alone lets an old master key go. Sealing again also makes worthless whatever somebody could unwrap with it.
It can be interrupted and resumed at any time: what is already under the newest key is passed over.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from evergrant.broker.audit.record import record
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.db import AuthorizationRequest, Base, Grant, OutboundApp, Project, Revocation, Webhook

BATCH = 200


@dataclass(frozen=True, slots=True)
class RotationProgress:
    """How many values a rotation has sealed again, and how many are left."""

    done: int
    total: int
    resealed: int
    """Values that were under an earlier data key."""


@dataclass(frozen=True, slots=True)
class SealedColumns:
    """A table's sealed columns, and the column that tells whether a row changed since it was read."""

    table: type[Base]
    columns: Sequence[str]
    guard: str


# Every sealed column of the schema; a test compares this with the tables.
EVERYTHING_SEALED = (
    SealedColumns(OutboundApp, ("client_secret",), "updated_at"),
    SealedColumns(Grant, ("access_token", "refresh_token", "id_token"), "token_version"),
    SealedColumns(AuthorizationRequest, ("code_verifier", "state", "outcome"), "finished_at"),
    SealedColumns(Revocation, ("client_secret", "token"), "attempts"),
    SealedColumns(Webhook, ("secret", "previous_secret"), "secret_version"),
)


async def rewrap_data_keys(broker: Broker) -> int:
    """Wrap every data key by the first master key. After this no other master key is needed.

    Raises:
        CannotOpenSealed: the master key of a data key is not configured; nothing is changed.
    """
    async with broker.database.write() as session:
        count = await broker.vault.rewrap(session)
        for project_id in await _project_ids(session):
            await record(session, project_id, "keyring.rewrapped")
    return count


async def start_new_data_keys(broker: Broker, *, now: datetime) -> int:
    """Give every project a new data key. Returns how many projects there are."""
    async with broker.database.write() as session:
        ids = await _project_ids(session)
        for project_id in ids:
            await broker.vault.create_key(session, project_id, now=now)
        for project_id in ids:
            await record(session, project_id, "keyring.rotated")
    return len(ids)


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
    done = resealed = 0
    yield RotationProgress(done, total, resealed)
    for sealed in EVERYTHING_SEALED:
        last = ("", "")
        while rows := await _batch(broker, sealed, after=last):
            for row in rows:
                resealed += await _reseal_row(broker, sealed, row, newest=newest)
            last = (rows[-1].project_id, rows[-1].id)
            done += len(rows)
            yield RotationProgress(done, total, resealed)


async def _batch(broker: Broker, sealed: SealedColumns, *, after: tuple[str, str]) -> Sequence[Row[Any]]:
    project_id, row_id = _column(sealed, "project_id"), _column(sealed, "id")
    wanted = [project_id, row_id, _column(sealed, sealed.guard), *(_column(sealed, name) for name in sealed.columns)]
    query = select(*wanted).where(tuple_(project_id, row_id) > after).order_by(project_id, row_id).limit(BATCH)
    async with broker.database.read() as session:
        return (await session.execute(query)).all()


async def _reseal_row(broker: Broker, sealed: SealedColumns, row: Row[Any], *, newest: dict[str, str]) -> int:
    values: dict[str, Sealed] = {}
    for name in sealed.columns:
        current: Sealed | None = getattr(row, name)
        if current is not None and broker.vault.key_of(current) != newest.get(row.project_id):
            slot = Slot(row.project_id, sealed.table.__tablename__, name, row.id)
            values[name] = await broker.vault.seal(slot, await broker.vault.open(slot, current))
    if not values:
        return 0
    async with broker.database.write() as session:
        # A row that changed since it was read holds newer secrets, sealed by whoever changed it: leave it alone.
        unchanged = _column(sealed, sealed.guard).is_not_distinct_from(getattr(row, sealed.guard))
        written = await session.execute(
            update(sealed.table)
            .where(and_(_column(sealed, "project_id") == row.project_id, _column(sealed, "id") == row.id, unchanged))
            .values(**values)
            .returning(_column(sealed, "id"))
            .execution_options(synchronize_session=False)
        )
        return len(values) if written.all() else 0


def _column(sealed: SealedColumns, name: str) -> InstrumentedAttribute[Any] | ColumnElement[Any]:
    column: InstrumentedAttribute[Any] = getattr(sealed.table, name)
    return column
