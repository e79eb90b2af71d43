"""What routes need: the broker, and who is asking."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request

from evergrant import clock
from evergrant.broker.access.authentication import authenticate
from evergrant.broker.audit.record import Actor, actor
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.errors import InvalidValue

UNSET = frozenset({"undefined", "null", "NaN", "[object Object]"})
"""What JavaScript writes into an address for an argument that is not there."""


def get_broker(request: Request) -> Broker:
    """Return the broker that the application opened at its start."""
    broker: Broker = request.app.state.broker
    return broker


async def principal_of(request: Request) -> Principal:
    """Authenticate the request's one header.

    Raises:
        AuthenticationFailed: as `broker.access.authenticate`.
    """
    address = request.client.host if request.client else ""
    principal = await authenticate(
        get_broker(request),
        request.headers.get("authorization", ""),
        client_address=address,
        now=clock.now(),
    )
    actor.set(Actor(principal.name, address))
    return principal


def limit_address(request: Request) -> None:
    """Count a call that needs no credential against its address.

    Raises:
        RateLimited: there were too many.
    """
    get_broker(request).limits.addresses.take(request.client.host if request.client else "")


async def refuse_unset(request: Request) -> None:
    """Refuse an address with a parameter that the caller's program had no value for.

    Taken at its word, `userId=undefined` finds nothing, and says so as if nothing were there.

    Raises:
        InvalidValue: naming each such parameter.
    """
    given = [*request.path_params.items(), *request.query_params.multi_items()]
    if problems := [
        (name, f"'{value}' is what JavaScript writes for a value that is missing: give one, or leave {name} out")
        for name, value in given
        if value in UNSET
    ]:
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
WebhooksKeeper = Annotated[Principal, Depends(require(Permission.WEBHOOKS))]
TokensWriter = Annotated[Principal, Depends(require(Permission.TOKENS_WRITE))]
FetcherOrUser = Annotated[Principal, Depends(require_or_user(Permission.TOKENS_FETCH))]
Connector = Annotated[Principal, Depends(require(Permission.CONNECT))]
ConnectorOrUser = Annotated[Principal, Depends(require_or_user(Permission.CONNECT))]
