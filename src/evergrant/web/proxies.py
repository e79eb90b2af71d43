"""A proxy that nobody said to trust: then all its callers have one address, and so one limit."""

import ipaddress
import logging

from starlette.types import Scope

from evergrant.networks import parse_networks, plain_address

log = logging.getLogger(__name__)


class ProxyWatch:
    """Warns once of a proxy that `EVERGRANT_TRUSTED_PROXIES` does not name."""

    def __init__(self, trusted: str) -> None:
        self._trusted = parse_networks(trusted)
        self._warned = False

    def look_at(self, scope: Scope) -> None:
        """Look whether a request came through one: from a private address, on behalf of another one."""
        if self._warned or not scope.get("client"):
            return
        said = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        address = plain_address(scope["client"][0])
        if (
            not said
            or not address
            or address in (plain_address(one.strip()) for one in said.decode("latin-1").split(","))
        ):
            return  # nobody forwarded it, or one that is trusted told this address
        parsed = ipaddress.ip_address(address)
        if parsed.is_private and not any(parsed in network for network in self._trusted):
            self._warned = True
            log.warning(
                "a proxy is not in EVERGRANT_TRUSTED_PROXIES, so all its callers count as one: add it if it is yours",
                extra={"address": address},
            )
