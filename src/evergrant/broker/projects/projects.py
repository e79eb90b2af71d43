"""Projects: making, finding and listing them, and changing where their browsers may return to."""

import re
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.record import record
from evergrant.broker.projects.redirects import origin_of
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.opaque import new_id
from evergrant.db import Project
from evergrant.db.project import MAX_PROJECT_ID
from evergrant.errors import InvalidValue, NotFound

MAX_NAME = 200


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
        InvalidValue: the id or an origin cannot be used, or the id is that of a deleted project.
    """
    check_project_id(project_id)
    if (earlier := await session.get(Project, project_id)) is not None and earlier.closed_at is not None:
        raise InvalidValue.of(("projectId", "a project with this id was deleted, and its id is not given again"))
    project = Project(
        id=project_id,
        name=name,
        redirect_origins=[origin_of(value, field="redirectOrigins") for value in redirect_origins],
        created_at=now,
    )
    session.add(project)
    await session.flush()
    await broker.vault.create_key(session, project_id, now=now)
    data = {"name": name, "redirectOrigins": project.redirect_origins}
    await record(session, project_id, "project.created", data=data)
    return project


async def load_project(session: AsyncSession, project_id: str) -> Project:
    """Return a project that is in use.

    Raises:
        NotFound: there is none with this id, or it is closed.
    """
    project = await load_any_project(session, project_id)
    if project.closed_at is not None:
        raise NotFound(f"Project '{project_id}' was deleted.")
    return project


async def load_any_project(session: AsyncSession, project_id: str) -> Project:
    """Return a project, or what is left of one that was deleted.

    Raises:
        NotFound: there is none with this id.
    """
    project = await session.get(Project, project_id)
    if project is None:
        raise NotFound(f"There is no project '{project_id}'.")
    return project


_IN_POLICY = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d+)?")
"""An origin that stands in a content security policy as itself: `*`, `;` and `,` would say something else there."""


async def list_projects(broker: Broker, *, closed: bool = False) -> list[Project]:
    """Return every project of this installation, oldest first; `closed`: also what is left of deleted ones."""
    query = select(Project).order_by(Project.created_at, Project.id)
    async with broker.database.read() as session:
        return list(await session.scalars(query if closed else query.where(Project.closed_at.is_(None))))


def closed_projects() -> Select[str]:
    """Return the query for the ids of closed projects: nothing is done for them any more but deleting."""
    return select(Project.id).where(Project.closed_at.is_not(None))


async def update_project(
    broker: Broker,
    project_id: str,
    *,
    name: str | None = None,
    redirect_origins: Sequence[str] | None = None,
    embed_origins: Sequence[str] | None = None,
) -> Project:
    """Change a project's name, where its connect trips may return to, and which pages may show its frames.

    What is None stays as it is. Origins are effective everywhere within 5 seconds.

    Raises:
        InvalidValue: the name is empty or too long, or one is not an origin; nothing is changed.
        NotFound: there is no such project.
    """
    problems = _name_problems(name) if name is not None else []
    redirects, more = _origins_of(redirect_origins, field="redirectOrigins")
    embeds, others = _origins_of(embed_origins, field="embedOrigins")
    others += [
        ("embedOrigins", f"'{origin[:100]}': use the host's own name in ASCII (xn--...), without wildcards")
        for origin in embeds or ()
        if not _IN_POLICY.fullmatch(origin)
    ]
    if problems := [*problems, *more, *others]:
        raise InvalidValue.of(*problems)
    async with broker.database.write() as session:
        project = await load_project(session, project_id)
        if name is not None and name != project.name:
            data = {"name": name, "before": project.name}
            project.name = name
            await record(session, project_id, "project.renamed", data=data)
        if redirects is not None and redirects != project.redirect_origins:
            project.redirect_origins = redirects
            changed = {"redirectOrigins": redirects}
            await record(session, project_id, "project.redirect_origins_changed", data=changed)
        if embeds is not None and embeds != project.embed_origins:
            project.embed_origins = embeds
            await record(session, project_id, "project.embed_origins_changed", data={"embedOrigins": embeds})
    broker.redirect_origins.clear()
    return project


def _name_problems(name: str) -> list[tuple[str, str]]:
    if not name:
        return [("name", "give it a name: users read it on every page")]
    return [("name", f"use at most {MAX_NAME} characters")] if len(name) > MAX_NAME else []


def _origins_of(urls: Sequence[str] | None, *, field: str) -> tuple[list[str] | None, list[tuple[str, str]]]:
    """Return the origins of URLs in their order, each once, and what is wrong with those that have none."""
    if urls is None:
        return None, []
    origins, problems = set(), []
    for url in urls:
        try:
            origins.add(origin_of(url, field=field))
        except InvalidValue as error:
            problems += [(entry["field"], f"'{url[:100]}': {entry['problem']}") for entry in error.details["fields"]]
    return sorted(origins), problems
