"""Projects and the origins that their connect trips may return to."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.record import record
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.opaque import new_id
from evergrant.db import Project
from evergrant.db.project import MAX_PROJECT_ID
from evergrant.errors import InvalidValue, NotFound
from evergrant.networks import is_loopback_host


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


async def origins_by_project(broker: Broker) -> Mapping[str, frozenset[str]]:
    """Return every project's redirect origins, from memory for a few seconds: browsers ask before each call."""
    origins = broker.redirect_origins.get(None)
    if origins is None:
        origins = {project.id: frozenset(project.redirect_origins) for project in await list_projects(broker)}
        broker.redirect_origins.put(None, origins)
    return origins


def origin_of(url: str, *, field: str) -> str:
    """Return scheme, host and port of a URL that a browser may be sent to.

    Raises:
        InvalidValue: naming `field`: it is not https (or http on loopback), or hides another host.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    # Browsers read "\" as "/" and drop control characters, so what is checked here must not contain any.
    if (
        not host
        or "\\" in url
        or any(c <= " " for c in url)
        or parts.username is not None
        or parts.password is not None
    ):
        raise InvalidValue.of((field, "use an absolute URL like https://app.example.com/done, without user and spaces"))
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback_host(host)):
        raise InvalidValue.of((field, "use https; plain http is for loopback addresses only"))
    shown_host = f"[{host}]" if ":" in host else host
    default = {"https": 443, "http": 80}[parts.scheme]
    return f"{parts.scheme}://{shown_host}" + (f":{port}" if port not in (None, default) else "")


def check_redirect_url(broker: Broker, project: Project, url: str, *, field: str) -> None:
    """Check a URL that the browser shall be sent to after the trip, against the project's allow-list.

    Raises:
        InvalidValue: naming `field`: its origin is not on the list. evergrant's own origin always is.
    """
    origin = origin_of(url, field=field)
    if origin not in (*project.redirect_origins, broker.settings.public_url.lower()):
        raise InvalidValue.of(
            (
                field,
                (
                    "its origin is not one of the project's redirect origins; the operator adds it with "
                    f"'evergrant projects allow-redirect {project.id} ORIGIN'"
                ),
            )
        )
