"""What routes need: the broker, and who is asking."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import Scope

from evergrant import clock
from evergrant.broker.access.authentication import authenticate
from evergrant.broker.audit.record import known_actor
from evergrant.broker.connect.authorization_requests import Authorization
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.errors import AuthenticationFailed, ConnectFailed, InvalidValue, NotFound
from evergrant.networks import limited_as
from evergrant.web.asked import address_of, note_actor, note_left

UNSET = frozenset({"undefined", "null", "NaN", "[object Object]"})
"""What JavaScript writes into an address for an argument that is not there."""


def get_broker(request: Request) -> Broker:
    """Return the broker that the application opened at its start."""
    broker: Broker = request.app.state.broker
    return broker


async def principal_of(request: Request) -> Principal:
    """Authenticate the request's one header.

    Raises:
        AuthenticationFailed, RateLimited: as `broker.access.authenticate`.
    """
    return await recognised(request, request.headers.get("authorization", ""))


async def recognised(request: Request, authorization: str) -> Principal:
    """Authenticate a request by what is, or would be, its `Authorization` header.

    Raises:
        AuthenticationFailed, RateLimited: as `broker.access.authenticate`.
    """
    return await limited_in(request.scope, get_broker(request), authorization)


async def limited_in(scope: Scope, broker: Broker, authorization: str) -> Principal:
    """Do the same for a request that no framework has read."""
    try:
        principal = await recognised_in(scope, broker, authorization)
    except AuthenticationFailed:
        note_left(scope, broker.limits.credentials, limited_as(address_of(scope)))
        raise
    note_left(scope, broker.limits.of(principal), (principal.project_id, principal.name))
    return principal


async def recognised_in(scope: Scope, broker: Broker, authorization: str) -> Principal:
    """Do the same for a request whose answer does not say what is left of a limit."""
    address = address_of(scope)
    principal = await authenticate(broker, authorization, client_address=address, now=clock.now())
    note_actor(scope, known_actor(principal.name, address, principal.agent), principal.project_id)
    return principal


@asynccontextmanager
async def counting_failures(request: Request) -> AsyncIterator[None]:
    """Find what a browser's address stands for in this block: what there is not counts against the browser's network.

    Raises:
        RateLimited: there is no such thing, and the network has asked for too many of these.
    """
    limit, network = get_broker(request).limits.pages, limited_as(address_of(request.scope))
    try:
        async with limit.turn(network):
            yield
    except (ConnectFailed, NotFound):
        limit.take(network)
        note_left(request.scope, limit, network)
        raise


def limit_trip(request: Request, authorization: Authorization) -> None:
    """Count a page against the one trip that it belongs to.

    Raises:
        RateLimited: this trip's pages were asked for too often.
    """
    trip, limit = (authorization.request.project_id, authorization.request.id), get_broker(request).limits.trips
    limit.take(trip)
    note_left(request.scope, limit, trip)


async def refuse_odd_text(request: Request) -> None:
    """Refuse an address with a parameter that no text can be, or that the caller's program had no value for.

    Taken at its word, `userId=undefined` finds nothing, and says so as if nothing were there. NUL is nothing that a
    database takes.

    Raises:
        InvalidValue: naming each such parameter.
    """
    problems = []
    for name, value in (*request.path_params.items(), *request.query_params.multi_items()):
        if value in UNSET:
            say = f"'{value}' is what JavaScript writes for a value that is missing: give one, or leave {name} out"
            problems.append((name, say))
        elif "\x00" in value:
            problems.append((name, "must not contain the NUL character"))
    if problems:
        raise InvalidValue.of(*problems)


def require(*permissions: Permission) -> Callable[[Request], Awaitable[Principal]]:
    """Make a dependency that authenticates and checks a permission; of several, one is enough."""

    async def authorised(request: Request) -> Principal:
        principal = await principal_of(request)
        principal.require(*permissions)
        return principal

    return authorised


def require_or_user(permission: Permission) -> Callable[[Request], Awaitable[Principal]]:
    """Make a dependency for a call that users may make too, with a JWT: a key needs the permission.

    What a user may do, and that it does it for itself alone, is for the use case to check (`Principal.require_for`,
    `Principal.require_owner`).
    """

    async def authorised(request: Request) -> Principal:
        principal = await principal_of(request)
        request.state.project_id = principal.project_id  # whose origins may read the answer in a browser
        if not principal.is_user:
            principal.require(permission)
        return principal

    return authorised


BrokerDep = Annotated[Broker, Depends(get_broker)]
AppsReader = Annotated[Principal, Depends(require(Permission.APPS_READ))]
AppsWriter = Annotated[Principal, Depends(require(Permission.APPS_WRITE))]
KeysKeeper = Annotated[Principal, Depends(require(Permission.KEYS))]
PoliciesKeeper = Annotated[Principal, Depends(require(Permission.POLICIES, Permission.KEYS))]
Auditor = Annotated[Principal, Depends(require(Permission.AUDIT))]
SessionsKeeper = Annotated[Principal, Depends(require(Permission.SESSIONS))]
WebhooksKeeper = Annotated[Principal, Depends(require(Permission.WEBHOOKS))]
TokensWriter = Annotated[Principal, Depends(require(Permission.TOKENS_WRITE))]
ConnectionsReader = Annotated[Principal, Depends(require(Permission.CONNECTIONS_READ))]
ConnectionsReaderOrUser = Annotated[Principal, Depends(require_or_user(Permission.CONNECTIONS_READ))]
Connector = Annotated[Principal, Depends(require(Permission.CONNECT))]
ConnectorOrUser = Annotated[Principal, Depends(require_or_user(Permission.CONNECT))]
