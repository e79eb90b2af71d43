"""Authority: what something can do from now on, and the one rule about making it.

A key makes other keys, and what acts after it: issuers whose users get in, policies that let somebody in, webhooks that
go on telling, addresses where an app's secrets go. None of these may do more than the key, reach further, or last
longer. Otherwise a limited key is a way to an unlimited one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network

from evergrant.broker.runtime.principal import Principal
from evergrant.errors import PermissionDenied

Networks = Sequence[IPv4Network | IPv6Network]


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """What may be done, with which apps, from where, and until when."""

    permissions: frozenset[str]
    app_ids: frozenset[str] = frozenset()
    """Empty: every app."""
    networks: Networks = ()
    """Empty: from anywhere."""
    expires_at: datetime | None = None
    """None: for ever."""


def require_no_more(principal: Principal, made: Authority, *, what: str) -> None:
    """Check that a key makes, changes or removes nothing that can do more than itself.

    `what` names it for the message: "the other key", "an issuer".

    Raises:
        PermissionDenied: it can; the message says by what. Or a user asks, who makes nothing of the kind.
    """
    if principal.is_user:
        raise PermissionDenied("This takes a management key; a user's token is not enough.")
    who = "Your session" if principal.operator else "This management key"
    if more := sorted(made.permissions - principal.permissions - principal.withheld):
        raise PermissionDenied(f"{who} lacks permissions that {what} has: {', '.join(more)}.")
    if principal.app_ids and not (made.app_ids and principal.app_ids.issuperset(made.app_ids)):
        raise PermissionDenied(f"{who} is limited to some apps, and {what} is not limited to these.")
    if principal.networks and not (
        made.networks and all(_within(network, principal.networks) for network in made.networks)
    ):
        raise PermissionDenied(f"{who} is limited to some networks, and {what} reaches beyond them.")
    if principal.expires_at is not None and (made.expires_at is None or made.expires_at > principal.expires_at):
        raise PermissionDenied(f"{who} expires, and {what} would outlive it.")


def _within(network: IPv4Network | IPv6Network, wider: Networks) -> bool:
    for other in wider:
        if isinstance(network, IPv4Network) and isinstance(other, IPv4Network) and network.subnet_of(other):
            return True
        if isinstance(network, IPv6Network) and isinstance(other, IPv6Network) and network.subnet_of(other):
            return True
    return False
