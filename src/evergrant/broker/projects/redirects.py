"""Redirects: which URLs a browser may be sent to after a connect trip, and which origins may call from a page."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from sqlalchemy import select

from evergrant.broker.runtime.broker import Broker
from evergrant.db import Project
from evergrant.errors import InvalidValue
from evergrant.networks import is_loopback_host


async def origins_by_project(broker: Broker) -> Mapping[str, frozenset[str]]:
    """Return every project's redirect origins, from memory for a few seconds: browsers ask before each call."""

    async def read() -> Mapping[str, frozenset[str]]:
        async with broker.database.read() as session:
            open_ones = select(Project.id, Project.redirect_origins).where(Project.closed_at.is_(None))
            rows = (await session.execute(open_ones)).all()
        return {project_id: frozenset(listed) for project_id, listed in rows}

    return await broker.redirect_origins.get_or_read(None, read)


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
