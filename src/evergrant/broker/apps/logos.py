"""Logos of apps that operators have uploaded."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import and_, select

from evergrant.broker.audit.record import record
from evergrant.broker.projects.pictures import Picture, check_picture
from evergrant.broker.runtime.broker import Broker
from evergrant.db import AppLogo, OutboundApp
from evergrant.errors import AppNotFound, NotFound


async def logo_versions(broker: Broker, project_id: str, app_ids: Collection[str]) -> Mapping[str, str]:
    """Return the version of the uploaded logo of each of these apps that has one."""
    if not app_ids:
        return {}
    query = select(AppLogo.app_id, AppLogo.version).where(AppLogo.project_id == project_id, AppLogo.app_id.in_(app_ids))
    async with broker.database.read() as session:
        return {row.app_id: row.version for row in await session.execute(query)}


async def list_apps_with_logos(
    broker: Broker, project_id: str, *, only: Sequence[str] = ()
) -> tuple[list[OutboundApp], Mapping[str, str]]:
    """Return what `list_apps` and `logo_versions` do, with one statement: lists of connections show both."""
    has_logo = and_(AppLogo.project_id == OutboundApp.project_id, AppLogo.app_id == OutboundApp.id)
    query = select(OutboundApp, AppLogo.version).outerjoin(AppLogo, has_logo)
    query = query.where(OutboundApp.project_id == project_id)
    if only:
        query = query.where(OutboundApp.id.in_(only))
    async with broker.database.read() as session:
        rows = (await session.execute(query.order_by(OutboundApp.name))).all()
    return [app for app, _ in rows], {app.id: version for app, version in rows if version}


async def load_app_logo(broker: Broker, project_id: str, app_id: str) -> tuple[Picture, str]:
    """Return an app's uploaded logo and its version.

    Raises:
        NotFound: it has none.
    """
    async with broker.database.read() as session:
        row = await session.get(AppLogo, (project_id, app_id))
    if row is None:
        raise NotFound
    return Picture(row.content, row.media_type), row.version


async def set_app_logo(broker: Broker, project_id: str, app_id: str, content: bytes, *, now: datetime) -> str:
    """Store an app's logo in the place of the one that it has, and return its version.

    Raises:
        InvalidValue: it is no picture that may be stored.
        AppNotFound: there is no such app.
    """
    picture = check_picture(content, field="logo")
    digest = hashlib.sha256(content).hexdigest()
    async with broker.database.write() as session:
        if await session.get(OutboundApp, (project_id, app_id), with_for_update={"key_share": True}) is None:
            raise AppNotFound
        row = await session.get(AppLogo, (project_id, app_id)) or AppLogo(project_id=project_id, app_id=app_id)
        row.content, row.media_type, row.version, row.updated_at = picture.content, picture.media_type, digest[:12], now
        session.add(row)
        await record(session, project_id, "app.logo_changed", app_id=app_id, data={"sha256": digest})
    return row.version


async def remove_app_logo(broker: Broker, project_id: str, app_id: str) -> None:
    """Remove an app's uploaded logo, if it has one: the catalogue's stands in its place, or two letters.

    Raises:
        AppNotFound: there is no such app.
    """
    async with broker.database.write() as session:
        if await session.get(OutboundApp, (project_id, app_id)) is None:
            raise AppNotFound
        if (row := await session.get(AppLogo, (project_id, app_id))) is not None:
            await session.delete(row)
            await record(session, project_id, "app.logo_removed", app_id=app_id)
