"""What lists and a connection's own page do with one connection."""

from typing import Literal

from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.connect.start import ConnectRequest, begin_connect
from evergrant.broker.connections import listing
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.principal import Permission
from evergrant.errors import InvalidValue, TokenNotFound, Unavailable, UpstreamRejected, UpstreamUnavailable
from evergrant.web.console.desk import Desk

WAIT_SECONDS = 25.0
"""How long a page waits for the provider. The refresh goes on after that."""


async def refreshed(desk: Desk, grant_id: str) -> Literal["refreshed", "failed", "under_way"]:
    """Refresh a connection now, and tell what has come of it; why it failed, stands in its row.

    Raises:
        PermissionDenied: the session is limited to other apps.
        InvalidValue: it has no refresh token.
        Unavailable: the database is away.
    """
    try:
        await listing.refresh_now(desk.broker, desk.principal, grant_id, wait_seconds=WAIT_SECONDS)
    except TimeoutError:
        return "under_way"
    except Unavailable:
        raise
    except (TokenNotFound, UpstreamRejected, UpstreamUnavailable):  # a dead one is a TokenNotFound, too
        return "failed"
    return "refreshed"


async def link_page(desk: Desk, grant_id: str) -> Response:
    """Make a link with which a connection's person connects it again, for the same scopes, and show it, this once.

    Raises:
        PermissionDenied: the session may not, or is limited to other apps.
        InvalidValue: nobody knows who connected.
    """
    desk.require(Permission.CONNECT)
    desk.require(Permission.CONNECTIONS_READ)
    grant = await listing.load_connection(desk.broker, desk.principal, grant_id)
    person = grant.user_id or grant.granted_by
    if not person:
        raise InvalidValue.of(("userId", f"nobody knows who connected this for {grant.tenant_id}: make a new link"))
    wanted = ConnectRequest(
        app_id=grant.app_id,
        owner=ResourceOwner(grant.user_id, grant.tenant_id),
        granted_by=grant.granted_by,
        external_identifier=grant.external_identifier,
        scopes=tuple(grant.requested_scopes),
    )
    url = await begin_connect(desk.broker, desk.principal, wanted, now=clock.now())
    who = grant.user_id or f"everyone in {grant.tenant_id}"
    back = desk.path("connections", grant_id)
    return desk.page("connection_link.html", url=url, who=who, person=person, app_id=grant.app_id, back=back)
