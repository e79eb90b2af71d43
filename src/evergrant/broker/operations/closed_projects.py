"""Closed projects: the background revokes their connections where that was asked for, shreds them, and clears them up.

How far each one is stands in its row, so that whoever looks next goes on from there.
"""

import logging
from datetime import datetime

from sqlalchemy import select

from evergrant import clock
from evergrant.broker.projects.projects import list_projects
from evergrant.broker.projects.shredding import has_rows, remove_rows, shred_project
from evergrant.broker.revocations.deleting import delete_grants
from evergrant.broker.revocations.revocation import RevocationReason
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, Project, Revocation
from evergrant.errors import NotFound, Unavailable

log = logging.getLogger(__name__)

AT_ONCE = 2_000
"""Of so many connections the revoking begins before it is looked whether the time is up."""


async def finish_closed_projects(broker: Broker) -> None:
    """Go on with every project whose deletion is under way; one that cannot be gone on with holds up no other.

    Raises:
        Unavailable: the database is away.
    """
    for project in await list_projects(broker, closed=True):
        if project.closed_at is None:
            continue
        try:
            await _go_on(broker, project)
        except Unavailable:
            raise
        except Exception:
            log.exception("a project's deletion will be gone on with", extra={"project": project.id})


async def _go_on(broker: Broker, project: Project) -> None:
    if project.shredded_at is None:
        if await _is_to_be_told(broker, project, until=project.shred_at):
            return
        try:
            await shred_project(broker, project.id, now=clock.now())
        except NotFound:
            pass  # somebody else was faster
        else:
            log.warning("a closed project's data keys are destroyed", extra={"project": project.id})
    if await has_rows(broker, project.id):
        async for _ in remove_rows(broker, project.id):
            pass


async def _is_to_be_told(broker: Broker, project: Project, *, until: datetime | None) -> bool:
    """Delete a project's connections and have them revoked; False when every provider was told, or the time is up."""
    while until is not None and (now := clock.now()) < until:
        of_project = Grant.project_id == project.id
        async with broker.database.read() as session:
            ids = list(await session.scalars(select(Grant.id).where(of_project).order_by(Grant.id).limit(AT_ONCE)))
            under_way = select(Revocation.id).where(Revocation.project_id == project.id).limit(1)
            if not ids:
                return (await session.execute(under_way)).first() is not None
        await delete_grants(broker, project.id, Grant.id.in_(ids), reason=RevocationReason.CLOSED, now=now)
    return False
