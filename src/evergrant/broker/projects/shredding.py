"""Deleting a project: nobody gets in, nobody can read its secrets any more, and then what is left of it goes.

Its data keys go first, in the short transaction that closes it: from then on all that they sealed is noise, in the
database, in journals and in memory. The rows follow in small batches, for which nobody waits. What stays is the
project's own row, so that its id is never given again, and its audit log, which says what was destroyed.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.record import record
from evergrant.broker.projects.projects import load_any_project
from evergrant.broker.runtime.authority import Authority, require_no_more
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import ALL_PERMISSIONS, Principal
from evergrant.db import (
    AccessPolicy,
    AgentSession,
    Approval,
    AuthorizationRequest,
    Base,
    Branding,
    BrowserLogin,
    CallRecord,
    ConsoleCode,
    ConsoleSession,
    DataKeyRow,
    Grant,
    GrantCount,
    GrantEvent,
    ManagementKey,
    OutboundApp,
    PortalSession,
    Project,
    Revocation,
    TrustedIssuer,
    Webhook,
    WebhookDelivery,
)
from evergrant.errors import InvalidValue, NotFound

OF_A_PROJECT: tuple[type[Base], ...] = (
    Grant,  # and with them their uses, and their places in the directory
    GrantEvent,
    AuthorizationRequest,
    Revocation,
    WebhookDelivery,
    Webhook,
    AccessPolicy,
    AgentSession,
    Approval,
    BrowserLogin,
    CallRecord,
    OutboundApp,
    ManagementKey,
    TrustedIssuer,
    DataKeyRow,
)
"""All that goes, in this order: nothing takes many rows of another table with it."""
BATCH = 500
MOST_COUNTED = 10_000
LONGEST_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class DestroyedKey:
    """A data key that is gone. Whoever has a copy of its row can tell by the digest that it was this one."""

    id: str
    sha256: str
    """Of the wrapped bytes, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """How far a deletion that somebody has asked for is."""

    destroyed: list[DestroyedKey]
    shred_at: datetime | None
    """When the data keys go at the latest; None: they are gone."""


@dataclass(frozen=True, slots=True)
class Stock:
    """How much a project has, counted up to `MOST_COUNTED` of each."""

    apps: int
    connections: int


async def delete_project(
    broker: Broker, principal: Principal, project_id: str, *, revoke_within: timedelta | None, now: datetime
) -> Deletion:
    """Delete the project of whoever asks: at once, or with `revoke_within` after its providers were told.

    Raises:
        PermissionDenied: they may not do everything in it.
        InvalidValue: `project_id`, which they typed as a confirmation, is another one; nothing is deleted.
        NotFound: it is being deleted already.
    """
    require_no_more(principal, Authority(permissions=ALL_PERMISSIONS), what="the deletion of its project")
    if project_id != principal.project_id:
        raise InvalidValue.of(("projectId", "is not the id of this project: nothing is deleted"))
    if revoke_within is None:
        return Deletion(await shred_project(broker, project_id, now=now), None)
    project = await close_project(broker, project_id, shred_at=now + revoke_within, now=now)
    return Deletion([], project.shred_at)


async def stock_of(broker: Broker, project_id: str) -> Stock:
    """Return how much a project has; a million connections are not counted one by one."""
    some = [
        select(table.id).where(table.project_id == project_id).limit(MOST_COUNTED + 1).subquery()
        for table in (OutboundApp, Grant)
    ]
    query = select(*(select(func.count()).select_from(table).scalar_subquery() for table in some))
    async with broker.database.read() as session:
        apps, connections = (await session.execute(query)).one()
    return Stock(apps, connections)


async def close_project(broker: Broker, project_id: str, *, shred_at: datetime, now: datetime) -> Project:
    """Close a project, so that nobody gets in; its connections are revoked, and at `shred_at` its data keys go.

    Raises:
        NotFound: there is no such project, or it is closed already.
    """
    async with broker.database.write() as session:
        project = await _lock_project(session, project_id)
        if project.closed_at is not None:
            raise NotFound(f"Project '{project_id}' was deleted.")
        project.closed_at, project.shred_at = now, shred_at
        await shut_out(session, project_id)
        data = {"shredAt": shred_at.isoformat(timespec="seconds")}
        await record(session, project_id, "project.closed", data=data)
    _forget_principals(broker)
    return project


async def shred_project(broker: Broker, project_id: str, *, now: datetime) -> list[DestroyedKey]:
    """Destroy a project's data keys and close it, and return which they were. `remove_rows` does the rest.

    Other processes forget the keys within a minute.

    Raises:
        NotFound: there is no such project, or it was shredded before.
    """
    left = await count_rows(broker, project_id)
    async with broker.database.write() as session:
        project = await _lock_project(session, project_id)
        if project.shredded_at is not None:
            raise NotFound(f"Project '{project_id}' was deleted.")
        project.closed_at, project.shredded_at = project.closed_at or now, now
        await shut_out(session, project_id)
        destroyed = await destroy_data_keys(session, project_id)
        data = {
            "dataKeys": [{"id": key.id, "sha256": key.sha256} for key in destroyed],
            "apps": left["outbound_apps"],
            "connections": left["grants"],
            "revocations": left["revocations"],
        }
        await record(session, project_id, "project.shredded", data=data)
    broker.vault.forget(project_id)
    _forget_principals(broker)
    await broker.database.empty_log()
    return destroyed


async def shut_out(session: AsyncSession, project_id: str) -> None:
    """Take a project's ways in and out, and its face.

    These are its management keys, its trusted issuers, links and sessions of its operators, visits of its users, its
    webhooks and its branding; and the counts that its pages showed.
    """
    await session.execute(delete(ManagementKey).where(ManagementKey.project_id == project_id))
    await session.execute(delete(TrustedIssuer).where(TrustedIssuer.project_id == project_id))
    await session.execute(update(Webhook).where(Webhook.project_id == project_id).values(enabled=False))
    for table in (ConsoleCode, ConsoleSession, PortalSession, Branding, GrantCount):
        await session.execute(delete(table).where(table.project_id == project_id))


async def destroy_data_keys(session: AsyncSession, project_id: str) -> list[DestroyedKey]:
    """Delete a project's data keys, on SQLite by overwriting them, and return which they were.

    One that somebody is just making is seen when that is done; so it is looked until there is none.
    """
    query = select(DataKeyRow).where(DataKeyRow.project_id == project_id).order_by(DataKeyRow.id).with_for_update()
    destroyed: list[DestroyedKey] = []
    async with _overwriting(session):
        while rows := list(await session.scalars(query)):
            destroyed += [DestroyedKey(row.id, hashlib.sha256(row.wrapped).hexdigest()) for row in rows]
            session.expunge_all()
            ids = [row.id for row in rows]
            await session.execute(
                delete(DataKeyRow)
                .where(DataKeyRow.project_id == project_id, DataKeyRow.id.in_(ids))
                .execution_options(synchronize_session=False)
            )
    return destroyed


@asynccontextmanager
async def _overwriting(session: AsyncSession) -> AsyncIterator[None]:
    """Let SQLite overwrite what the block deletes; some builds of it always do."""
    if session.get_bind().dialect.name != "sqlite":
        yield
        return
    before = (await session.execute(text("PRAGMA secure_delete"))).scalar_one()
    await session.execute(text("PRAGMA secure_delete = ON"))
    try:
        yield
    finally:
        await session.execute(text(f"PRAGMA secure_delete = {int(before)}"))


async def remove_rows(broker: Broker, project_id: str) -> AsyncIterator[int]:
    """Remove what is left of a shredded project, batch by batch, and yield how many rows each batch took.

    It can be broken off and begun again at any time, and done by several at once. Between two batches it rests for as
    long as the last one took, so that other writers get in.
    """
    await broker.journal.forget_project(project_id)
    for table in OF_A_PROJECT:
        last, passed = "", 0
        while True:
            began = time.monotonic()
            ids = await _remove_batch(broker, table, project_id, after=last)
            if ids:
                last, passed = max(ids), passed + len(ids)
                yield len(ids)
                await asyncio.sleep(min(LONGEST_PAUSE_SECONDS, time.monotonic() - began))
            elif passed == 0:
                break
            else:
                last, passed = "", 0  # once more from the beginning: some were in others' hands, or came meanwhile


async def _remove_batch(broker: Broker, table: type[Base], project_id: str, *, after: str) -> list[str]:
    columns = table.__table__.c
    key = columns.grant_id if table is GrantEvent else columns.id  # whole timelines go: their index begins so
    some = (
        select(columns.project_id, key)
        .where(columns.project_id == project_id, key > after)
        .order_by(key)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        .cte("some")
    )
    statement = (
        delete(table)
        .where(tuple_(columns.project_id, key).in_(select(some)))
        .returning(key)
        .execution_options(synchronize_session=False)
    )
    async with broker.database.write() as session:
        return list(await session.scalars(statement))


async def count_rows(broker: Broker, project_id: str) -> dict[str, int]:
    """Return how many rows of each table a project has, by the table's name; its audit log does not count."""
    async with broker.database.read() as session:
        return {
            table.__tablename__: (
                await session.execute(
                    select(func.count()).select_from(table).where(table.__table__.c.project_id == project_id)
                )
            ).scalar_one()
            for table in OF_A_PROJECT
        }


async def has_rows(broker: Broker, project_id: str) -> bool:
    """Tell whether anything is left of a project beside its audit log."""
    async with broker.database.read() as session:
        for table in OF_A_PROJECT:
            columns = table.__table__.c
            if (await session.execute(select(columns.id).where(columns.project_id == project_id).limit(1))).first():
                return True
    return False


async def _lock_project(session: AsyncSession, project_id: str) -> Project:
    query = select(Project).where(Project.id == project_id).with_for_update(key_share=True)
    project = (await session.execute(query)).scalar_one_or_none()
    return project or await load_any_project(session, project_id)


def _forget_principals(broker: Broker) -> None:
    """Let nothing that this process remembers let anybody in."""
    broker.forget_credentials()
    broker.redirect_origins.clear()
