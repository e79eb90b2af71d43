"""What routes need: the broker, and who is asking."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request

from evergrant import clock
from evergrant.broker.access import authenticate
from evergrant.broker.principal import Permission, Principal
from evergrant.broker.runtime import Broker


def get_broker(request: Request) -> Broker:
    """Return the broker that the application opened at its start."""
    broker: Broker = request.app.state.broker
    return broker


async def principal_of(request: Request) -> Principal:
    """Authenticate the request's one header.

    Raises:
        AuthenticationFailed: as `broker.access.authenticate`.
    """
    return await authenticate(
        get_broker(request),
        request.headers.get("authorization", ""),
        client_address=request.client.host if request.client else "",
        now=clock.utcnow(),
    )


def require(permission: Permission) -> Callable[[Request], Awaitable[Principal]]:
    """Make a dependency that authenticates and checks one permission."""

    async def authorised(request: Request) -> Principal:
        principal = await principal_of(request)
        principal.require(permission)
        return principal

    return authorised


BrokerDep = Annotated[Broker, Depends(get_broker)]
AppsReader = Annotated[Principal, Depends(require(Permission.APPS_READ))]
AppsWriter = Annotated[Principal, Depends(require(Permission.APPS_WRITE))]
Connector = Annotated[Principal, Depends(require(Permission.CONNECT))]
