"""Projects: making, finding and listing them, and changing where their browsers may return to."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.record import record
from evergrant.broker.projects.redirects import origin_of
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.opaque import new_id
from evergrant.db import Project
from evergrant.db.project import MAX_PROJECT_ID
from evergrant.errors import InvalidValue, NotFound


def new_project_id() -> str:
    """Return an id in the form that SDKs take: `P` and letters and digits, shorter than 32 characters."""
    return "P" + new_id(26)


def check_project_id(project_id: str) -> None:
    """Check an id that the operator chose.

    Raises:
        InvalidValue: it cannot be used.
    """
    usable = project_id.isascii() and project_id.replace("-", "").replace("_", "").isalnum()
    if not usable or len(project_id) > MAX_PROJECT_ID:
        raise InvalidValue.of(
            (
                "projectId",
                f"use letters, digits, '-' and '_', at most {MAX_PROJECT_ID}: SDKs misread longer ones",
            )
        )


async def create_project(
    broker: Broker,
    session: AsyncSession,
    *,
    project_id: str,
    name: str,
    redirect_origins: Sequence[str],
    now: datetime,
) -> Project:
    """Create a project with its first data key.

    Raises:
        InvalidValue: the id or an origin cannot be used.
    """
    check_project_id(project_id)
    project = Project(
        id=project_id,
        name=name,
        redirect_origins=[origin_of(value, field="redirectOrigins") for value in redirect_origins],
        created_at=now,
    )
    session.add(project)
    await session.flush()
    await broker.vault.create_key(session, project_id, now=now)
    return project


async def load_project(session: AsyncSession, project_id: str) -> Project:
    """Return a project.

    Raises:
        NotFound: there is none with this id.
    """
    project = await session.get(Project, project_id)
    if project is None:
        raise NotFound(f"There is no project '{project_id}'.")
    return project


async def list_projects(broker: Broker) -> list[Project]:
    """Return every project of this installation, oldest first."""
    async with broker.database.read() as session:
        return list(await session.scalars(select(Project).order_by(Project.created_at, Project.id)))


async def set_redirect_origins(broker: Broker, project_id: str, origins: Sequence[str]) -> list[str]:
    """Replace the origins that a project's connect trips may return to, and return them as stored.

    Raises:
        InvalidValue: one is not an origin; nothing is changed.
        NotFound: there is no such project.
    """
    normalised = sorted({origin_of(value, field="redirectOrigins") for value in origins})
    async with broker.database.write() as session:
        project = await load_project(session, project_id)
        project.redirect_origins = normalised
        await record(session, project_id, "project.redirect_origins_changed", data={"redirectOrigins": normalised})
    return normalised
