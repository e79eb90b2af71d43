"""Addresses and networks as operators and callers write them, and which are this machine. Nothing is looked up."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LONGEST_ADDRESS = 45
"""Characters: IPv6 with an IPv4 address at its end."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read networks like `10.0.0.0/8`, separated by commas; an address is a network of one.

    Raises:
        ValueError: one of them is not a network; the message names it and says what to write.
    """
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"{error}; write networks like 10.0.0.0/8, separated by commas") from None


def common_networks(some: Sequence[Network], others: Sequence[Network]) -> tuple[Network, ...]:
    """Return what two lists of networks have in common. Of two networks, one holds the other, or they share nothing."""
    return tuple(
        one if one.subnet_of(other) else other  # type: ignore[arg-type]  # of one version
        for one in some
        for other in others
        if one.version == other.version and one.overlaps(other)
    )


def plain_address(text: str) -> str:
    """Return an address in its one spelling, an IPv4 one as such even inside IPv6; what is no address is empty.

    A proxy hands on what its caller wrote, and nothing else may get into logs, limits and the audit log.
    """
    return _plain(text) if len(text) <= LONGEST_ADDRESS else ""


@lru_cache(maxsize=4096)
def _plain(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return ""
        address = address.ipv4_mapped or address
    return str(address)


@lru_cache(maxsize=4096)
def limited_as(address: str) -> str:
    """Return what a limit counts an address as: of IPv6 the /64, because each caller has one of these for itself."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))


def is_loopback_host(host: str) -> bool:
    """Tell whether `host`, as it stands in a URL, is this machine by name or by literal address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
