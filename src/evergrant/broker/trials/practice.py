"""The practice provider as an app: for a first connection that needs no account anywhere."""

from dataclasses import dataclass, field
from datetime import datetime

from pydantic import SecretStr

from evergrant.broker.apps.apps import create_app, load_app
from evergrant.broker.apps.definition import AppDefinition
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.db import OutboundApp
from evergrant.errors import AlreadyExists

PRACTICE_APP = "practice"


@dataclass(frozen=True, slots=True)
class PracticeClient:
    """evergrant's registration at a practice provider that runs beside it."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: dict[str, str]
    """The scopes to ask for, with words for users."""
    guide: str = ""
    """Where a guide shows the same with HTTP calls alone; empty where there is none."""


async def add_practice_app(
    broker: Broker, principal: Principal, practice: PracticeClient, *, now: datetime
) -> OutboundApp:
    """Return the practice provider's app, and create it if it is not there.

    Raises:
        PermissionDenied: it takes `apps:write`, for all apps.
        InvalidValue: the practice provider does not answer.
    """
    principal.require(Permission.APPS_WRITE)
    principal.require_every_app()
    definition = AppDefinition(
        id=PRACTICE_APP,
        name="Practice contacts",
        description="A pretend provider with pretend accounts.",
        discovery_url=practice.issuer,
        api_base_url=f"{practice.issuer}/api",
        client_id=practice.client_id,
        client_secret=SecretStr(practice.client_secret),
        default_scopes=tuple(practice.scopes),
        scope_descriptions=practice.scopes,
    )
    try:
        return await create_app(broker, principal.project_id, definition, now=now)
    except AlreadyExists:
        return await load_app(broker, principal.project_id, PRACTICE_APP)
