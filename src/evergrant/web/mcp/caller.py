"""Who calls an MCP address: a user with a JWT, or an agent with a session key. Never a management key."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request

from evergrant import clock
from evergrant.broker.access.authentication import authenticate
from evergrant.broker.access.user_tokens import looks_like_jwt
from evergrant.broker.audit.record import Actor
from evergrant.broker.projects.redirects import origins_by_project
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.crypto.opaque import session_key_parts
from evergrant.errors import AuthenticationFailed, PermissionDenied
from evergrant.networks import limited_as
from evergrant.web.asked import address_of, note_actor, note_left
from evergrant.web.mcp_address import resource_url


class OutOfScope(PermissionDenied):
    """This token lacks the scope 'outbound.call'."""


@dataclass(slots=True)
class Caller:
    """Who asks, and what their program is able to do."""

    principal: Principal
    era: str = ""
    """The protocol's version, where an earlier answer of ours has it sealed; empty for one that says so each time."""
    abilities: dict[str, Any] = field(default_factory=dict)
    """What the client declared when it came; the newest era declares it each time."""
    is_new: bool = False
    """Whether it introduces itself in this very request: then the answer has its abilities sealed."""


async def recognise(broker: Broker, request: Request, project_id: str, app_id: str = "") -> Caller:
    """Authenticate a request to an MCP address.

    A JWT's audience is the address that was called, or what its issuer is trusted for. `app_id` is the app behind the
    gateway; empty for the project's own server.

    Raises:
        AuthenticationFailed: it has no credential of these kinds, or it is not accepted, or for another project.
        OutOfScope: a user's JWT without the scope that calls.
        PermissionDenied: a session without the right to call; or a page of a foreign origin asks.
        RateLimited, Unavailable: as `authenticate`.
    """
    await _check_origin(broker, request, project_id)
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    credential = credential.strip()
    is_session = session_key_parts(credential) is not None
    if scheme.lower() != "bearer" or not (is_session or looks_like_jwt(credential)):
        raise AuthenticationFailed("Send a user's access token or an agent session's key, as Authorization: Bearer.")
    address = address_of(request.scope)
    try:
        principal = await authenticate(
            broker,
            f"Bearer {credential}" if is_session else f"Bearer {project_id}:{credential}",
            client_address=address,
            now=clock.now(),
            resource=resource_url(broker.settings.public_url, project_id, app_id),
        )
    except AuthenticationFailed:
        note_left(request.scope, broker.limits.credentials, limited_as(address))
        raise
    if principal.project_id != project_id or not principal.is_user:
        raise AuthenticationFailed
    note_actor(request.scope, Actor(principal.name, address, principal.agent), project_id)
    note_left(request.scope, broker.limits.of(principal), (project_id, principal.name))
    if Permission.CALLS not in principal.permissions:
        if principal.session is None:
            raise OutOfScope
        raise PermissionDenied("This session may not call.")
    return Caller(principal)


async def _check_origin(broker: Broker, request: Request, project_id: str) -> None:
    """Refuse pages of other origins, so that no page gets at this server by a name that leads here (DNS rebinding)."""
    origin = request.headers.get("origin")
    if origin is None:
        return
    own = urlsplit(broker.settings.public_url)
    allowed = (await origins_by_project(broker)).get(project_id, frozenset())
    if origin != f"{own.scheme}://{own.netloc}" and origin not in allowed:
        raise PermissionDenied("This origin is not one of the project's redirect origins.")
