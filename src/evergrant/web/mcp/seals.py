"""What a client carries for us between its requests, sealed: nothing is stored, and nobody uses another's."""

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import SecretStr
from starlette.requests import Request

from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.errors import CannotOpenSealed, NotFound

Kind = Literal["session", "state", "upstream", "upstream_state"]
SESSION = "mcp-session-id"
SESSION_HOURS = 24
"""How long a client of the handshake era may go on before it has to introduce itself again."""
_LONGEST = 65_536


async def seal(
    broker: Broker,
    principal: Principal,
    kind: Kind,
    said: Mapping[str, Any],
    *,
    until: datetime,
    bound: tuple[str, ...] = (),
) -> str:
    """Return something as text that only this principal can bring back, as this kind, until then, and for `bound`."""
    text = json.dumps({**said, "until": int(until.timestamp())}, separators=(",", ":"))
    sealed = await broker.vault.seal(_slot(principal, kind, bound), SecretStr(text))
    return base64.urlsafe_b64encode(sealed.ciphertext).rstrip(b"=").decode()


async def opened(
    broker: Broker, principal: Principal, kind: Kind, text: str, *, now: datetime, bound: tuple[str, ...] = ()
) -> dict[str, Any] | None:
    """Return what was sealed for this principal; None where its time is over.

    Raises:
        NotFound: it was sealed for somebody else or something else, or was altered.
    """
    try:
        if len(text) > _LONGEST:
            raise NotFound
        ciphertext = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        whole = await broker.vault.open(_slot(principal, kind, bound), Sealed(ciphertext))
    except (CannotOpenSealed, binascii.Error, UnicodeEncodeError):
        raise NotFound from None
    said: dict[str, Any] = json.loads(whole.get_secret_value())
    return said if said["until"] > now.timestamp() else None


async def seal_session(
    broker: Broker,
    principal: Principal,
    kind: Kind,
    said: Mapping[str, Any],
    *,
    now: datetime,
    bound: tuple[str, ...] = (),
) -> str:
    """Return something as the session's id that a client of the handshake era gets."""
    return await seal(broker, principal, kind, said, until=now + timedelta(hours=SESSION_HOURS), bound=bound)


async def opened_session(
    broker: Broker, principal: Principal, kind: Kind, request: Request, *, now: datetime, bound: tuple[str, ...] = ()
) -> dict[str, Any] | None:
    """Return what was sealed as the session's id that a request brings; None where it brings none.

    Raises:
        NotFound: it is somebody else's, or is over: the client has to introduce itself again.
    """
    text = request.headers.get(SESSION)
    if not text:
        return None
    said = await opened(broker, principal, kind, text, now=now, bound=bound)
    if said is None:
        raise NotFound("This MCP session is over: initialize again.")
    return said


def _slot(principal: Principal, kind: Kind, bound: tuple[str, ...]) -> Slot:
    tenants = sorted(principal.tenant_ids)
    return Slot(principal.project_id, "mcp", kind, principal.name, (principal.agent, *tenants, *bound))
