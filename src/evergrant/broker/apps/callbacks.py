"""Callback addresses of apps that are yet to be made, and what of a new app is taken."""

import hashlib

from sqlalchemy import or_, select

from evergrant.broker.apps.provider_client import CALLBACK_PATH
from evergrant.broker.runtime.broker import Broker
from evergrant.db import OutboundApp
from evergrant.errors import AlreadyExists


def proposed_id(project_id: str, proposal: str) -> str:
    """Return the callback id of the app that will be made from a proposal, which is random text.

    People register the address before there is an app, so that the form which makes it brings the proposal along. An id
    follows from it by a digest over the project: nobody can ask for one that another app has, or had.
    """
    return hashlib.sha256(f"{project_id}\n{proposal}".encode()).hexdigest()[:32]


def proposed_url(broker: Broker, project_id: str, proposal: str) -> str:
    """Return the redirect URI to register for the app that will be made from a proposal."""
    return f"{broker.settings.public_url}{CALLBACK_PATH}/{proposed_id(project_id, proposal)}"


async def taken(broker: Broker, new: OutboundApp) -> AlreadyExists:
    """Return the error for a new app that could not be stored: it names what another app has."""
    alike = or_(
        OutboundApp.callback_id == new.callback_id,
        (OutboundApp.project_id == new.project_id) & ((OutboundApp.id == new.id) | (OutboundApp.name == new.name)),
    )
    query = select(OutboundApp.project_id, OutboundApp.id, OutboundApp.name, OutboundApp.callback_id).where(alike)
    async with broker.database.read() as session:
        others = (await session.execute(query.limit(3))).all()
    mine = [other for other in others if other.project_id == new.project_id]
    problems = [
        ("id", "an app with this id exists already") if any(other.id == new.id for other in mine) else None,
        ("name", "an app with this name exists already") if any(other.name == new.name for other in mine) else None,
        ("callbackUrl", "another app has it already")
        if any(o.callback_id == new.callback_id for o in others)
        else None,
    ]
    return AlreadyExists.of(*(problem for problem in problems if problem)) if any(problems) else AlreadyExists()
