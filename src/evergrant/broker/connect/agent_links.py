"""Links that agents ask for: to connect an app for the owner that they act for, and how their trips go."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from evergrant import clock
from evergrant.broker.connect.start import ConnectRequest, begin_connect
from evergrant.broker.grants.grants import ResourceOwner, load_grant
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.db import AuthorizationRequest, GrantStatus


@dataclass(frozen=True, slots=True)
class AgentLink:
    """A link to show to the user, and the trip that it begins."""

    url: str
    trip_id: str


async def connect_link(
    broker: Broker,
    principal: Principal,
    *,
    app_id: str,
    owner: ResourceOwner,
    scopes: Sequence[str] = (),
    external_identifier: str = "",
    now: datetime,
) -> AgentLink:
    """Begin a connect trip for an agent; the browser has to prove that it is the owner's. The link works 10 minutes.

    A management key vouches for its user itself, as in every other trip that it begins.

    Raises:
        PermissionDenied, AppNotFound, InvalidValue, RateLimited, UpstreamError: as `begin_connect`.
    """
    trip_id = secrets.token_hex(16)
    wanted = ConnectRequest(
        app_id=app_id,
        owner=owner,
        granted_by="" if owner.user_id else principal.user_id,  # a tenant's: who is in the tenant connects it
        external_identifier=external_identifier,
        scopes=tuple(scopes),
        trip_id=trip_id,
        by_agent=principal.is_user,
    )
    return AgentLink(await begin_connect(broker, principal, wanted, now=now), trip_id)


async def trip_state(broker: Broker, project_id: str, trip_id: str) -> Literal["open", "connected", "failed"]:
    """Tell how a trip stands, for whoever waits for it. One that waits to be confirmed is open."""
    async with broker.database.read() as session:
        trip = await session.get(AuthorizationRequest, (project_id, trip_id))
    if trip is None:
        return "failed"
    if trip.grant_id:
        grant = await load_grant(broker, project_id, trip.grant_id)
        if grant is None:
            return "failed"
        if grant.status != GrantStatus.PENDING:
            return "connected"
    elif trip.outcome is not None:
        return "failed"
    return "open" if trip.expires_at > clock.now() else "failed"
