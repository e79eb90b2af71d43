"""Backups of SQLite, and coming back from one, or from a backup of PostgreSQL that its own tools have restored.

A restored database knows less than happened: refresh tokens in it may be spent, projects in it may have been deleted
since. So nothing is served from one before it was marked (see `refresh.restored`), and what was shredded is shredded
again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from sqlite3 import Connection, DatabaseError

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.broker.audit.record import record
from evergrant.broker.projects.shredding import destroy_data_keys, shut_out
from evergrant.broker.refresh.restored import mark_restored
from evergrant.broker.runtime.broker import Broker, own_database_url
from evergrant.broker.runtime.holder import longest_silence
from evergrant.broker.runtime.holder_files import HOLDERS_FOLDER, is_in_use
from evergrant.catalog.loader import load_catalogue
from evergrant.catalog.template import Template
from evergrant.db import AgentSession, Approval, AuditEvent, Holder, Project
from evergrant.db.engine import Database, database_url
from evergrant.db.schema import is_newer, upgrade_database
from evergrant.db.sqlite_file import copy_database, copy_of_backup, nobody_else, put_in_place
from evergrant.db.types import database_now
from evergrant.errors import InvalidRequest
from evergrant.settings import Settings

STOP_ALL = "stop every 'evergrant serve' and 'evergrant refresher' first"


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore has come to."""

    taken_at: datetime | None
    """When the backup was taken; of PostgreSQL, when the last thing in it happened."""
    in_doubt: int
    """Connections whose refresh token may be spent."""
    shredded: Sequence[str]
    """Projects that were shredded again."""
    replaced: Path | None = None
    """Where the database is that was replaced."""
    knows_deleted: bool = False
    """Whether that one could be read, and so told which projects were deleted since."""


@dataclass(frozen=True, slots=True)
class _Closed:
    """A project that was closed after the backup was taken."""

    id: str
    name: str
    created_at: datetime
    closed_at: datetime
    shred_at: datetime | None
    shredded_at: datetime | None


async def back_up(settings: Settings, file: Path) -> None:
    """Copy the SQLite database to a file, while others use it. Master keys are not in it.

    Raises:
        InvalidRequest: the database is not SQLite, or the file is there already, or cannot be written.
    """
    database = _sqlite_file(settings, "pg_dump")
    await asyncio.to_thread(copy_database, database, file, taken_at=clock.now())


async def restore(settings: Settings, file: Path, *, shredded: Sequence[str] = ()) -> Restored:
    """Put a backup in the place of the SQLite database, marked as what it is; the replaced one is kept beside it.

    `shredded` are projects to shred beside those that the replaced database says were deleted.

    Raises:
        InvalidRequest: the database is not SQLite, or in use, or the file is no backup; nothing is changed.
    """
    database, now = _sqlite_file(settings, "pg_restore"), clock.now()
    if is_in_use(settings.data_dir / HOLDERS_FOLDER):
        raise InvalidRequest(f"a process uses {settings.data_dir}: {STOP_ALL}")
    catalogue = load_catalogue(settings.catalog_dir)
    database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft, kept_as = _beside(database, "restoring"), _beside(database, f"replaced-{now:%Y%m%dT%H%M%SZ}")
    if kept_as.exists():
        raise InvalidRequest(f"{kept_as} is there already: try again in a second")
    with nobody_else(database) as old:
        closed = _closed_since(old)
        try:
            taken_at = copy_of_backup(file, draft)
            done = await _make_ready(draft, catalogue, closed or [], taken_at=taken_at, shredded=shredded, now=now)
            put_in_place(draft, database, kept_as=kept_as)
        finally:
            draft.unlink(missing_ok=True)
    return Restored(taken_at, *done, kept_as if kept_as.exists() else None, knows_deleted=closed is not None)


async def mark_restored_database(broker: Broker, *, shredded: Sequence[str] = ()) -> Restored:
    """Mark a database that other tools have restored, and shred these projects in it again.

    Raises:
        InvalidRequest: a process uses the database, or one of the projects is not there; nothing is changed.
    """
    beats = select(Holder.id).where(Holder.beat_at > database_now(-longest_silence(broker.pace)))
    async with broker.database.read() as session:
        if (await session.execute(beats.limit(1))).first() is not None:
            raise InvalidRequest(f"a process uses this database: {STOP_ALL}")
        taken_at = (await session.execute(select(func.max(AuditEvent.occurred_at)))).scalar_one()
    async with broker.database.write() as session:
        now = clock.now()
        done = await _mark(session, broker.catalogue, [], taken_at=taken_at, shredded=shredded, now=now)
    return Restored(taken_at, *done)


async def _make_ready(
    draft: Path,
    catalogue: Mapping[str, Template],
    closed: Sequence[_Closed],
    *,
    taken_at: datetime,
    shredded: Sequence[str],
    now: datetime,
) -> tuple[int, list[str]]:
    opened = Database.at(database_url(None, draft.parent).set(database=str(draft)))
    try:
        if await is_newer(opened.engine):
            raise InvalidRequest("a newer version of evergrant made this backup: restore it with that version")
        await upgrade_database(opened.patient)
        async with opened.write() as session:
            done = await _mark(session, catalogue, closed, taken_at=taken_at, shredded=shredded, now=now)
        await opened.empty_log()
        return done
    finally:
        await opened.dispose()


async def _mark(
    session: AsyncSession,
    catalogue: Mapping[str, Template],
    closed: Sequence[_Closed],
    *,
    taken_at: datetime | None,
    shredded: Sequence[str],
    now: datetime,
) -> tuple[int, list[str]]:
    in_doubt = await mark_restored(session, catalogue, now=now)
    # What was revoked, refused or used up since the backup would live again: agents begin anew.
    await session.execute(update(AgentSession).where(AgentSession.revoked_at.is_(None)).values(revoked_at=now))
    await session.execute(update(Approval).where(Approval.expires_at > now).values(expires_at=now))
    again = [project for one in closed if (project := await _close_again(session, one)) is not None]
    for project_id in shredded:
        project = await session.get(Project, project_id)
        if project is None:
            raise InvalidRequest(f"there is no project '{project_id}' in the backup")
        if project.shredded_at is None:
            project.closed_at, project.shredded_at = project.closed_at or now, now
            await session.flush()
            await shut_out(session, project.id)
            again.append(project)
    destroyed = []
    for project in again:
        if project.shredded_at is not None:
            destroyed.append(project.id)
            keys = await destroy_data_keys(session, project.id)
            data = {"dataKeys": [{"id": key.id, "sha256": key.sha256} for key in keys], "again": True}
            await record(session, project.id, "project.shredded", data=data)
    taken = taken_at.isoformat(timespec="seconds") if taken_at else ""
    for project_id in await session.scalars(select(Project.id).order_by(Project.id)):
        data = {"takenAt": taken, "connectionsInDoubt": in_doubt.get(project_id, 0)}
        await record(session, project_id, "project.restored", data=data)
    return sum(in_doubt.values()), destroyed


async def _close_again(session: AsyncSession, one: _Closed) -> Project | None:
    """Close a project as the replaced database has it; None where nothing is left of it in the backup either."""
    project = await session.get(Project, one.id)
    if project is None:  # made after the backup; its id is not given again all the same
        project = Project(id=one.id, name=one.name, redirect_origins=[], created_at=one.created_at)
        session.add(project)
    elif project.shredded_at is not None:
        return None
    project.closed_at, project.shred_at, project.shredded_at = one.closed_at, one.shred_at, one.shredded_at
    await session.flush()
    await shut_out(session, one.id)
    return project


def _closed_since(old: Connection | None) -> list[_Closed] | None:
    """Read from the database that is replaced which projects were deleted; None where it cannot be read.

    Earlier versions know of none.
    """
    if old is None:
        return None
    try:
        return _read_closed(old)
    except DatabaseError:
        return None


def _read_closed(old: Connection) -> list[_Closed]:
    columns = {row[1] for row in old.execute("PRAGMA table_info(projects)")}
    if "closed_at" not in columns:
        return []
    rows = old.execute(
        "SELECT id, name, created_at, closed_at, shred_at, shredded_at FROM projects WHERE closed_at IS NOT NULL"
    )
    return [
        _Closed(
            project_id,
            name,
            created_at=_moment(created_at),
            closed_at=_moment(closed_at),
            shred_at=_moment(shred_at) if shred_at else None,
            shredded_at=_moment(shredded_at) if shredded_at else None,
        )
        for project_id, name, created_at, closed_at, shred_at, shredded_at in rows
    ]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


def _beside(database: Path, end: str) -> Path:
    return database.with_name(f"{database.name}.{end}")


def _sqlite_file(settings: Settings, instead: str) -> Path:
    if not settings.uses_sqlite:
        raise InvalidRequest(f"this is for SQLite: of PostgreSQL, use {instead}, as docs/backup.md has it")
    return Path(own_database_url(settings).database or "")
