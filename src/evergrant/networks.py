"""Addresses and networks as an operator writes them, and which of them are this machine. Nothing is looked up."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read networks like `10.0.0.0/8`, separated by commas; an address is a network of one.

    Raises:
        ValueError: one of them is not a network; the message names it and says what to write.
    """
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"{error}; write networks like 10.0.0.0/8, separated by commas") from None


def is_loopback_host(host: str) -> bool:
    """Tell whether `host`, as it stands in a URL, is this machine by name or by literal address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
