"""What a user does at their connected accounts: connect, connect again, disconnect; and how a trip from there ended."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import select

from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.variables import declared_variables, template_of
from evergrant.broker.connect.authorization_requests import outcome_slot
from evergrant.broker.connect.start import ConnectRequest, begin_connect
from evergrant.broker.connections.deletion import delete_token
from evergrant.broker.grants.grants import load_grant
from evergrant.broker.portal.visits import CONNECT, DISCONNECT, Visit
from evergrant.broker.revocations.revocation import RevocationOutcome
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.opaque import new_id
from evergrant.db import AuthorizationRequest, Grant, GrantStatus, OutboundApp
from evergrant.errors import InvalidValue, NotFound, TokenNotFound

OPEN, CONNECTED, CANCELLED, FAILED = "open", "connected", "cancelled", "failed"
"""How a trip stands: under way, or how it ended."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A trip that was begun: where the browser goes, and what to ask for its outcome by."""

    url: str
    trip_id: str


def askable(visit: Visit, app: OutboundApp) -> frozenset[str]:
    """Return the scopes that a visit may ask for: the app's own, and those that it was opened with."""
    return frozenset({*app.default_scopes, *visit.scopes.get(app.id, ())})


async def connect_from(
    broker: Broker,
    visit: Visit,
    app_id: str,
    *,
    again: str = "",
    another: bool = False,
    scopes: Sequence[str] = (),
    back_to: str,
    now: datetime,
) -> Begun:
    """Begin a trip for the user of a visit.

    It comes back to `back_to`, where `{trip}` stands for the trip's id; where the application has to confirm who came
    back, it ends at the application instead. `again` is the id of a connection to renew; `another` keeps the new one
    apart from those that there are; `scopes` are asked for in place of the app's.

    Raises:
        VisitIsOver, PermissionDenied: the visit is over, or not for this.
        InvalidValue: the visit is not for these scopes.
        TokenNotFound: there is no such connection of this user.
        As `begin_connect`.
    """
    visit.require(CONNECT)
    visit.principal.require_app(app_id)
    app, owner = await load_app(broker, visit.project.id, app_id), visit.owner
    if strange := [scope for scope in scopes if scope not in askable(visit, app)]:
        raise InvalidValue.of(("scopes", f"this page may not ask for {', '.join(strange)}"))
    earlier = await _own_grant(broker, visit, again) if again else None
    if earlier is not None and earlier.app_id != app_id:
        raise TokenNotFound
    if not visit.principal.is_user:  # whose own trips `begin_connect` counts
        broker.limits.connects.take((visit.project.id, visit.actor))
    identifier = earlier.external_identifier if earlier is not None else new_id(12) if another else ""
    trip_id = secrets.token_hex(16)
    wanted = ConnectRequest(
        app_id=app_id,
        owner=owner,
        external_identifier=identifier,
        scopes=tuple(scopes or (earlier.requested_scopes or earlier.scopes if earlier is not None else ())),
        redirect_url=visit.return_url if app.require_confirmation else back_to.replace("{trip}", trip_id),
        variables=_variables(broker, app, earlier),
        user_label=visit.user_label,
        tenant_label=visit.tenant_label,
        locale=visit.locale,
        portal_id=visit.id,
        trip_id=trip_id,
    )
    return Begun(await begin_connect(broker, visit.principal, wanted, now=now), trip_id)


def _variables(broker: Broker, app: OutboundApp, earlier: Grant | None) -> dict[str, str]:
    """Return what the user said at an earlier consent: the same shop again."""
    if earlier is None:
        return {}
    own = declared_variables(template_of(broker, app), "user")
    return {name: value for name, value in earlier.details.items() if name in own}


async def disconnect_from(
    broker: Broker, visit: Visit, grant_id: str, *, now: datetime
) -> tuple[str, RevocationOutcome]:
    """End a connection of the user's own, and return its app and how far the provider's end of it has got.

    Raises:
        VisitIsOver, PermissionDenied: the visit is over, or not for this.
        TokenNotFound: there is no such connection of this user; a tenant's is nobody's to end here.
    """
    visit.require(DISCONNECT)
    grant = await _own_grant(broker, visit, grant_id)
    return grant.app_id, await delete_token(broker, visit.principal, grant.id, now=now)


async def _own_grant(broker: Broker, visit: Visit, grant_id: str) -> Grant:
    query = select(Grant).where(
        Grant.project_id == visit.project.id,
        Grant.id == grant_id,
        Grant.user_id == visit.owner.user_id,
        Grant.tenant_id == visit.owner.tenant_id,
        Grant.status != GrantStatus.PENDING,
    )
    async with broker.database.read() as session:
        grant = (await session.execute(query)).scalar_one_or_none()
    if grant is None:
        raise TokenNotFound("This account is not connected any more.")
    return grant


async def trip_from(broker: Broker, visit: Visit, trip_id: str, *, now: datetime) -> tuple[str, str]:
    """Return the app of a trip that began from this visit, and how it stands.

    Raises:
        NotFound: there is no such trip of this visit.
    """
    async with broker.database.read() as session:
        trip = await session.get(AuthorizationRequest, (visit.project.id, trip_id))
    if trip is None or trip.portal_id != visit.id:
        raise NotFound
    return trip.app_id, await _standing(broker, trip, now=now)


async def _standing(broker: Broker, trip: AuthorizationRequest, *, now: datetime) -> str:
    has_time = trip.expires_at > now
    if trip.grant_id:
        if trip.confirmation_digest is not None and has_time:
            return OPEN  # the application has not said yet who came back
        grant = await load_grant(broker, trip.project_id, trip.grant_id)
        return CONNECTED if grant is not None and grant.status == GrantStatus.ACTIVE else FAILED
    if trip.outcome is not None:
        where = (await broker.vault.open(outcome_slot(trip), trip.outcome)).get_secret_value()
        return CANCELLED if parse_qs(urlsplit(where).query).get("err") == ["access_denied"] else FAILED
    return OPEN if has_time else FAILED
