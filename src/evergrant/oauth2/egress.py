"""The rules of the egress guard: which addresses may be called. Nothing here touches a network."""

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from evergrant.networks import Address, Network
from evergrant.pasted import is_one_word

_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?\.?")
_NUMERIC_HOST = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}")

# What Python 3.11's tables call global although a provider is never there.
_NOT_FOR_PROVIDERS: tuple[Network, ...] = (
    ipaddress.ip_network("192.0.0.0/24"),  # IETF protocol assignments; a cloud's metadata service sits in it
    ipaddress.ip_network("192.88.99.0/24"),  # 6to4 relays, deprecated
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's platform service, reachable from every machine there
    ipaddress.ip_network("3fff::/20"),  # documentation
)
LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # the only part of IPv6 that is assigned to the public
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart. `host` is ASCII, lower case, without brackets; `path` has the query."""

    scheme: str
    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class OwnPlace:
    """A part of this very server, on loopback, that may be called over plain http although no network is opened."""

    host: str
    port: int
    path: str
    """It begins and ends with a slash; what is not below it may not be called."""

    def has(self, target: Target) -> bool:
        """Tell whether a target is below it. No other name, and no other spelling of the address, leads there."""
        path = target.path.partition("?")[0]
        if (target.scheme, target.host, target.port) != ("http", self.host, self.port):
            return False
        return f"{path}/".startswith(self.path) and ".." not in path and "%" not in path


Opened = Network | OwnPlace
"""What may be called although it is not public."""


def origin_of_url(url: str) -> str:
    """Return the scheme and authority of a URL that has them, letter for letter."""
    return "/".join(url.split("/", 3)[:3])


def parse_target(url: str) -> Target:
    """Take a URL apart, with the parser that the request is made from, so that check and use cannot disagree.

    Raises:
        ValueError: it cannot be called whatever its address is; the message completes "the token URL ...".
    """
    try:
        parsed = httpx2.URL(url)
        netloc = urlsplit(url).netloc
    except (httpx2.InvalidURL, ValueError):
        raise ValueError("is not a URL: write it like https://provider.example/path") from None
    if parsed.scheme not in ("http", "https"):
        raise ValueError("must start with https://")
    if parsed.userinfo or "@" in netloc:
        raise ValueError("must not contain a user name or password")
    host = parsed.raw_host.decode("ascii").lower()
    if not _is_host(host):
        raise ValueError("must name a host: write it like https://provider.example/path")
    if parsed.port is not None and not 0 < parsed.port < 65_536:
        raise ValueError("must not have a port beyond 65535")
    return Target(
        scheme=parsed.scheme,
        host=host,
        port=parsed.port or (443 if parsed.scheme == "https" else 80),
        path=parsed.raw_path.decode("ascii"),
    )


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            return ipaddress.IPv6Address(host).scope_id is None
        except ValueError:
            return False
    return _HOST.fullmatch(host) is not None


def literal_address(host: str) -> Address | None:
    """Return the address that `host` is, in any spelling that a resolver accepts: 0x7f.1 is 127.0.0.1."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    numeric = host.rstrip(".")
    if _NUMERIC_HOST.fullmatch(numeric):
        try:
            return ipaddress.IPv4Address(socket.inet_aton(numeric))
        except OSError:
            return None
    return None


def is_opened(address: Address, egress_allow: tuple[Network, ...]) -> bool:
    """Tell whether the operator opened `address` (`EVERGRANT_EGRESS_ALLOW`)."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return any(address in network or (mapped is not None and mapped in network) for network in egress_allow)


def opened_networks(opened: Iterable[Opened]) -> tuple[Network, ...]:
    """Return the networks of what is opened."""
    return tuple(one for one in opened if not isinstance(one, OwnPlace))


def is_own(target: Target, opened: Iterable[Opened]) -> bool:
    """Tell whether a target is a part of this very server that is opened."""
    return any(isinstance(one, OwnPlace) and one.has(target) for one in opened)


def is_public(address: Address) -> bool:
    """Tell whether `address` is one that the public internet routes to a single host.

    An IPv6 address that carries an IPv4 one (mapped, NAT64, 6to4) is as public as the address it carries.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GLOBAL_UNICAST:
            return False
        if address.sixtofour is not None:
            return is_public(address.sixtofour)
    if not address.is_global or address.is_private or address.is_multicast or address.is_reserved:
        return False
    return not any(address in network for network in _NOT_FOR_PROVIDERS)


def check_url(url: str, *, what: str, egress_allow: tuple[Opened, ...]) -> None:
    """Check a URL when it is configured. Nothing is resolved: the call itself checks where it connects to.

    `what` is what a person calls the URL; the message begins with it.

    Raises:
        ValueError: it could never be called; the message says what to write instead.
    """
    if not is_one_word(url):
        raise ValueError(f"{what} must not contain blanks, line breaks and invisible characters")
    try:
        target = parse_target(url)
    except ValueError as error:
        raise ValueError(f"{what} {error}") from None
    if "#" in url:
        raise ValueError(f"{what} must not contain a fragment (#...)")
    if is_own(target, egress_allow):
        return
    addresses = _static_addresses(target.host)
    networks = opened_networks(egress_allow)
    opened = any(is_opened(address, networks) for address in addresses)
    if target.scheme == "http" and not opened:
        raise ValueError(
            f"{what} must start with https://; plain http is for addresses that EVERGRANT_EGRESS_ALLOW opens"
        )
    if addresses and not opened and not any(is_public(address) for address in addresses):
        raise ValueError(
            f"{what} points to an address that is not public; "
            "if that is meant, add its network to EVERGRANT_EGRESS_ALLOW"
        )


def _static_addresses(host: str) -> tuple[Address, ...]:
    if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
        return (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))  # RFC 6761 section 6.3
    address = literal_address(host)
    return () if address is None else (address,)
