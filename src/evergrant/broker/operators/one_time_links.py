"""One-time links to the console, which whoever may run commands on the server makes."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select

from evergrant.broker.audit.record import actor, record
from evergrant.broker.operators.roles import ADMIN
from evergrant.broker.operators.sessions import begin_session
from evergrant.broker.projects.projects import list_projects, load_project
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.opaque import digest, new_opaque
from evergrant.db import ConsoleCode
from evergrant.errors import LinkIsOver

ENTER_PATH = "/console/enter"
MINUTES = 5


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a one-time link lets somebody do."""

    project_id: str | None
    project_name: str
    role: str
    expires_at: datetime


async def make_link(
    broker: Broker, *, project_id: str | None = None, role: str = ADMIN, minutes: int = MINUTES, now: datetime
) -> str:
    """Return a link that signs one browser in, once. Only its digest is stored.

    Raises:
        NotFound: there is no such project.
    """
    code = new_opaque()
    row = ConsoleCode(
        digest=digest(code),
        project_id=project_id,
        role=role,
        made_by=actor.get().name,
        created_at=now,
        expires_at=now + timedelta(minutes=minutes),
    )
    told = [project_id] if project_id is not None else [project.id for project in await list_projects(broker)]
    async with broker.database.write() as session:
        if project_id is not None:
            await load_project(session, project_id)
        await session.execute(delete(ConsoleCode).where(ConsoleCode.expires_at <= now))
        session.add(row)
        await session.flush()
        for one in told:
            await record(session, one, "console.link_made", data={"role": role, "minutes": minutes})
    return f"{broker.settings.public_url}{ENTER_PATH}/{code}"


async def look_at_link(broker: Broker, code: str, *, now: datetime) -> Invitation:
    """Return what a link is for, and use nothing up: previews and second looks spoil nothing.

    Raises:
        LinkIsOver: it was used, or its time is over, or there never was one.
    """
    query = select(ConsoleCode).where(ConsoleCode.digest == digest(code), ConsoleCode.expires_at > now)
    async with broker.database.read() as session:
        row = (await session.execute(query)).scalar_one_or_none()
    if row is None:
        raise LinkIsOver
    projects = [project for project in await list_projects(broker) if row.project_id in (None, project.id)]
    name = projects[0].name if len(projects) == 1 else ""
    return Invitation(row.project_id, name, row.role, row.expires_at)


async def use_link(broker: Broker, code: str, *, now: datetime) -> str:
    """Use a link up, and return the cookie's value of the session that it begins.

    Raises:
        LinkIsOver: as `look_at_link`.
    """
    query = (
        delete(ConsoleCode)
        .where(ConsoleCode.digest == digest(code), ConsoleCode.expires_at > now)
        .returning(ConsoleCode.project_id, ConsoleCode.role)
    )
    async with broker.database.write() as session:
        used = (await session.execute(query)).one_or_none()
    if used is None:
        raise LinkIsOver
    return await begin_session(
        broker, operator="one-time link", way="link", role=used.role, project_id=used.project_id, now=now
    )
