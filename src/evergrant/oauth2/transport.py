"""The one way out to providers: a shared TLS context and pool, an egress guard, limits, one attempt per request.

It is built on the connection pool and not on an HTTP client, because what a client adds is what must not
happen here: redirects, a cookie jar shared between users, proxies and credentials from the environment, URLs
in the log.
"""

import asyncio
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpcore2
import httpx2

from evergrant import __version__
from evergrant.errors import EgressRefused, UpstreamUnavailable
from evergrant.networks import Address, Network
from evergrant.oauth2.content_encoding import UndecodableBody, decoded
from evergrant.oauth2.egress import (
    Target,
    check_url,
    is_opened,
    is_public,
    literal_address,
    parse_target,
)
from evergrant.oauth2.jwks import JwksCache

__all__ = ["Http", "HttpAnswer", "check_url", "open_http", "system_resolve"]

CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0
TOTAL_SECONDS = 25.0
MAX_BODY_BYTES = 1024 * 1024
MAX_CONNECTIONS = 200
# Short, because a provider that closes an idle connection just as a refresh is written to it leaves in doubt
# whether it has read the request, and a refresh token that is sent twice can cost the grant.
KEEPALIVE_SECONDS = 5.0
_MAX_ADDRESSES_TRIED = 4

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A complete answer, decompressed, with header names in lower case. The body may hold tokens: no repr."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Show the status and the size only."""
        return f"HttpAnswer(status={self.status}, {len(self.body)} bytes)"


async def system_resolve(host: str, port: int) -> Sequence[Address]:
    """Ask the system's resolver for the addresses of `host`, best first; OSError when there are none."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(answer[4][0]) for answer in answers))


class _NameNotResolved(httpcore2.ConnectError):
    pass


class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that may be called, and to no other.

    The name is resolved once, here, and the socket is opened to the address that was checked: a name server
    that changes its answer between the check and the connection (DNS rebinding) gains nothing. TLS still
    verifies the name.
    """

    def __init__(self, egress_allow: tuple[Network, ...], *, opened_only: bool, resolve: Resolve) -> None:
        self._egress_allow = egress_allow
        self._opened_only = opened_only
        self._resolve = resolve
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the signature is httpcore2's
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (CONNECT_SECONDS if timeout is None else timeout)
        addresses = await self._addresses(host, port, deadline)
        allowed = [address for address in addresses if self._may_call(address)][:_MAX_ADDRESSES_TRIED]
        if not allowed:
            raise EgressRefused(f"{host} may not be called: {self._why_refused()}")
        failure: Exception = httpcore2.ConnectTimeout()
        for tried, address in enumerate(allowed):
            share = max(deadline - loop.time(), 0.0) / (len(allowed) - tried)
            try:
                return await self._network.connect_tcp(
                    str(address),
                    port,
                    timeout=share,
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int, deadline: float) -> Sequence[Address]:
        literal = literal_address(host)
        if literal is not None:
            return [literal]
        try:
            async with asyncio.timeout_at(deadline):
                return await self._resolve(host, port)
        except TimeoutError:
            raise httpcore2.ConnectTimeout from None
        except (OSError, UnicodeError):
            raise _NameNotResolved from None

    def _may_call(self, address: Address) -> bool:
        return is_opened(address, self._egress_allow) or (not self._opened_only and is_public(address))

    def _why_refused(self) -> str:
        if self._opened_only:
            return "plain http is only for addresses that EVERGRANT_EGRESS_ALLOW opens; use https."
        return "it is not public, and EVERGRANT_EGRESS_ALLOW does not open it."


class Http:
    """Makes single requests to providers. One per process, from `open_http`."""

    def __init__(
        self,
        egress_allow: tuple[Network, ...],
        *,
        resolve: Resolve,
        tls: ssl.SSLContext,
        read_seconds: float,
        total_seconds: float,
    ) -> None:
        self.egress_allow = egress_allow
        self.jwks = JwksCache()
        self._read_seconds = read_seconds
        self._total_seconds = total_seconds
        # Plain http has its own pool, because its backend has a stricter rule and cannot see the scheme.
        self._pools = {
            scheme: httpcore2.AsyncConnectionPool(
                ssl_context=tls,
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=MAX_CONNECTIONS // 2,
                keepalive_expiry=KEEPALIVE_SECONDS,
                retries=0,
                network_backend=_GuardedBackend(egress_allow, opened_only=scheme == "http", resolve=resolve),
            )
            for scheme in ("https", "http")
        }

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], content: bytes | None = None
    ) -> HttpAnswer:
        """Make a request, once: it is never sent a second time, whatever happens to the first.

        Raises:
            EgressRefused: the address may not be called. UpstreamUnavailable: there is no complete answer.
            Whether the provider acted on the request is unknown.
        """
        try:
            target = parse_target(url)
        except ValueError as error:
            raise EgressRefused(f"This address may not be called: the URL {error}.") from None
        host = target.host
        try:
            async with asyncio.timeout(self._total_seconds):
                return await self._exchange(method, target, headers, content)
        except (httpcore2.ConnectTimeout, httpcore2.PoolTimeout):
            raise UpstreamUnavailable(f"{host} did not answer in time.") from None
        except (TimeoutError, httpcore2.TimeoutException):
            raise UpstreamUnavailable(f"{host} did not answer in time.", in_doubt=True) from None
        except _NameNotResolved:
            raise UpstreamUnavailable(f"{host} cannot be reached: the name does not resolve.") from None
        except httpcore2.ConnectError as error:
            reason = "its TLS certificate is not accepted" if _is_tls(error) else "it takes no connection"
            raise UpstreamUnavailable(f"{host} cannot be reached: {reason}.") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError):
            raise UpstreamUnavailable(f"{host} broke off or garbled its answer.", in_doubt=True) from None
        except _UnusableAnswer as error:
            raise UpstreamUnavailable(f"{host} {error}.", in_doubt=True) from None

    async def post_json(self, url: str, value: Mapping[str, Any]) -> HttpAnswer:
        """POST a JSON object, once. Raises what `request` raises."""
        headers = {"content-type": "application/json", "accept": "application/json"}
        return await self.request("POST", url, headers=headers, content=json.dumps(value).encode("ascii"))

    async def post_bytes(self, url: str, content: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """POST a body that is sent exactly as it is, because it is signed. Raises what `request` raises."""
        return await self.request("POST", url, headers=headers, content=content)

    async def get_json(self, url: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """GET what should be JSON; the caller looks at status and body. Raises what `request` raises."""
        return await self.request("GET", url, headers={"accept": "application/json", **(headers or {})})

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            await pool.aclose()

    async def _exchange(
        self, method: str, target: Target, headers: Mapping[str, str], content: bytes | None
    ) -> HttpAnswer:
        # By lower-case names, so that a header that is given stands in for ours and is not sent beside it.
        given = {name.lower(): value for name, value in headers.items()}
        sent = {"accept-encoding": "gzip", "user-agent": f"evergrant/{__version__}", **given}
        timeouts = {
            "connect": CONNECT_SECONDS,
            "read": self._read_seconds,
            "write": self._read_seconds,
            "pool": self._total_seconds,
        }
        bracketed = f"[{target.host}]" if ":" in target.host else target.host
        default = 443 if target.scheme == "https" else 80
        sent["host"] = bracketed if target.port == default else f"{bracketed}:{target.port}"
        async with self._pools[target.scheme].stream(
            method,
            httpcore2.URL(
                scheme=target.scheme.encode(),
                host=target.host.encode(),
                port=target.port,
                target=target.path.encode(),
            ),
            headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in sent.items()],
            content=content,
            extensions={"timeout": timeouts},
        ) as response:
            received: dict[str, str] = {}
            for raw_name, raw_value in response.headers:
                name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
                # Of several headers the last counts, but for challenges: those are one list (RFC 9110 section 5.3).
                joined = name == "www-authenticate" and name in received
                received[name] = f"{received[name]}, {value}" if joined else value
            body = await _read(response.aiter_stream(), received.get("content-encoding", ""))
            return HttpAnswer(response.status, received, body)


class _UnusableAnswer(Exception):
    pass


async def _read(chunks: AsyncIterator[bytes], encoding: str) -> bytes:
    """Collect at most 1 MiB, before and after decompression."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _UnusableAnswer("sent an answer of more than 1 MiB")
    try:
        return decoded(bytes(body), encoding, most=MAX_BODY_BYTES)
    except UndecodableBody as error:
        raise _UnusableAnswer(str(error)) from None


def _is_tls(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@asynccontextmanager
async def open_http(
    egress_allow: tuple[Network, ...],
    *,
    resolve: Resolve = system_resolve,
    tls: ssl.SSLContext | None = None,
    read_seconds: float = READ_SECONDS,
    total_seconds: float = TOTAL_SECONDS,
) -> AsyncIterator[Http]:
    """Open the transport for the life of a process.

    `egress_allow` are the networks that may be called although they are not public. `total_seconds` bounds a
    request from the first lookup to the last byte. The TLS context trusts the system's authorities (or
    `SSL_CERT_FILE`).
    """
    http = Http(
        egress_allow,
        resolve=resolve,
        tls=tls or httpx2.create_ssl_context(),
        read_seconds=read_seconds,
        total_seconds=total_seconds,
    )
    try:
        yield http
    finally:
        await http.aclose()
