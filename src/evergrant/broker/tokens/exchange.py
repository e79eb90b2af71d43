"""Token exchange (RFC 8693): a user's access token for a provider's, by a client that knows the standard alone."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_, select

from evergrant.broker.access.session_exchange import owner_of_token
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.broker.tokens.fetch import FetchRequest, Token, fetch_token
from evergrant.db import OutboundApp
from evergrant.errors import AppNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRequest:
    """What is asked for, besides the subject's token itself."""

    audience: str = ""
    """The app, by its id."""
    resource: str = ""
    """The app, by the protected resource that its tokens are for (RFC 8707)."""
    scopes: tuple[str, ...] | None = None
    """None for the most recently consented grant, whatever its scopes."""
    tenant_id: str = ""
    """The user's consent within this tenant; or which tenant, where a machine's token names several."""


async def exchange_subject_token(
    broker: Broker, principal: Principal, wanted: ExchangeRequest, *, now: datetime
) -> Token:
    """Return the token that the subject would fetch itself: the same rules, policies and refreshes.

    Raises:
        AppNotFound: no app has this id or resource, or several have the resource.
        InvalidValue: a machine's token names several tenants, and which is not said.
        EvergrantError: as `fetch_token`.
    """
    app_id = await _find_app(broker, principal.project_id, wanted)
    owner = owner_of_token(principal, wanted.tenant_id)
    request = FetchRequest(app_id=app_id, owner=owner, scopes=wanted.scopes, kind="exchange")
    return await fetch_token(broker, principal, request, now=now)


async def _find_app(broker: Broker, project_id: str, wanted: ExchangeRequest) -> str:
    if not wanted.resource:
        return wanted.audience
    query = select(OutboundApp.id).where(
        OutboundApp.project_id == project_id,
        or_(OutboundApp.resource == wanted.resource, OutboundApp.resource == wanted.resource.rstrip("/")),
    )
    if wanted.audience:
        query = query.where(OutboundApp.id == wanted.audience)
    async with broker.database.read() as session:
        found = list(await session.scalars(query.limit(2)))
    if not found:
        raise AppNotFound("No app of the project has this resource.")
    if len(found) > 1:
        raise AppNotFound("Several apps have this resource; say which with 'audience', by its id.")
    return found[0]
