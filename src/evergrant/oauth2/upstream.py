"""Calls of providers' APIs: sent once, answered as a stream, over connections that no two pools share.

The answer's body is not looked at and not kept: it goes to a caller at the caller's pace. Nothing is followed, decoded,
repeated or remembered here.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import aiohttp
import yarl

from evergrant.errors import AnswerLost, EgressRefused, MalformedRequest, Trouble, UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2.egress import (
    LOOPBACK,
    Opened,
    OwnPlace,
    Target,
    is_own,
    literal_address,
    opened_networks,
    parse_target,
)
from evergrant.oauth2.lookups import LookupsBusy, SystemLookups
from evergrant.oauth2.name_cache import NameCache, NameNotFound, Resolve
from evergrant.oauth2.upstream_connection import (
    CONNECT_SECONDS,
    MOST_FIELDS,
    MOST_HEAD_BYTES,
    GuardedConnector,
    Use,
    in_use,
)

MOST_POOLS = 1_000
"""So many (project, base) keep connections; the one that was used longest ago gives its own up."""
READ_BYTES = 64 * 1024
"""An answer is not read on while twice as much waits for the caller."""
_OTHER_LENGTH = "The request's body is not as long as Content-Length says."
UNUSABLE = "unusable_answer"
_URL = re.compile(r"(https?://[^/?#]+)(/[!\"$-~]*)")
_OURS = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"))
_ADDED_BY_THE_CLIENT = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class BrokenOff(Exception):
    """An answer's body ended without its proper end; the message continues a sentence with the server's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRequest:
    """One request, as it is to be sent."""

    pool: Hashable
    """Whose connections: the project and the base URL."""
    owner: Hashable
    method: str
    url: str
    """Whole and encoded: path and query are sent byte for byte."""
    headers: Sequence[tuple[bytes, bytes]]
    """Final, but for `Host` and all that says where the body ends, which are written here."""
    body: bytes | AsyncIterator[bytes] | None = None
    length: int | None = None
    """How long a body that is an iterator is, if that is known."""
    head_seconds: float = 60.0
    """From the last byte of the request to the head of the answer."""
    idle_seconds: float = 60.0
    """Between two pieces, either way."""
    total_seconds: float = 900.0


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """One answer. Its body raises `BrokenOff` where it has no proper end."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    """As they came."""
    body: AsyncIterator[bytes]
    """As it came, still compressed."""


@dataclass(slots=True)
class _Pool:
    session: aiohttp.ClientSession
    calls: int = 0


class Upstream:
    """Makes calls of APIs. From `open_upstream`; has connections and names of its own."""

    def __init__(self, egress_allow: tuple[Opened, ...], *, resolve: Resolve, tls: ssl.SSLContext) -> None:
        self.egress_allow = egress_allow
        self._own_places = tuple(one for one in egress_allow if isinstance(one, OwnPlace))
        self._networks = opened_networks(egress_allow)
        self._names = NameCache(resolve)
        self._tls = tls
        self._pools: dict[Hashable, _Pool] = {}
        self._closing: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def open(self, request: UpstreamRequest) -> AsyncIterator[UpstreamAnswer]:
        """Send a request, once, and give its answer. Who leaves before the body's end closes the connection.

        Raises:
            EgressRefused: the address may not be called.
            UpstreamUnavailable: nothing was sent, so that it is safe to repeat.
            AnswerLost: it was sent, and no answer came; `on_kept_connection` where a connection that had been used
            before was closed instead.
            UpstreamRejected: the answer is none that can be handed on (`provider_error="unusable_answer"`).
            Whatever the request's own body raises.
        """
        target, url = self._address(request.url)
        pool = self._pool(request, target)
        pool.calls += 1
        try:
            response = await self._send(pool.session, request, target, url)
            try:
                yield UpstreamAnswer(response.status, response.raw_headers, _pieces(response, target.host))
            finally:
                response.close()  # does nothing where the whole answer was read
        finally:
            pool.calls -= 1

    def _address(self, url: str) -> tuple[Target, yarl.URL]:
        parts = _URL.fullmatch(url)
        if parts is None:
            raise EgressRefused("This address may not be called: it is not a whole, encoded URL without a fragment.")
        target, origin = _origin(parts[1])
        # As a path with its query in it, because a URL forgets an empty query.
        return replace(target, path=parts[2]), origin.with_path(parts[2], encoded=True)

    def _pool(self, request: UpstreamRequest, target: Target) -> _Pool:
        kind = "own" if self._own_places and is_own(target, self._own_places) else target.scheme
        # A body that streams cannot be sent again, so no connection that may have gone away is tried with it.
        key = (kind, request.pool) if _is_whole(request.body) else kind
        pool = self._pools.pop(key, None)
        if pool is None:
            pool = self._new_pool(kind, pools=key != kind)
            self._drop_pools()
        self._pools[key] = pool
        return pool

    def _new_pool(self, kind: str, *, pools: bool) -> _Pool:
        session = aiohttp.ClientSession(
            connector=GuardedConnector(
                LOOPBACK if kind == "own" else self._networks,
                opened_only=kind != "https",
                names=self._names,
                tls=self._tls,
                pools=pools,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=_ADDED_BY_THE_CLIENT,
            read_bufsize=READ_BYTES,
            max_line_size=MOST_HEAD_BYTES,
            max_field_size=MOST_HEAD_BYTES,
            max_headers=MOST_FIELDS,
        )
        session._retry_connection = False
        return _Pool(session)

    def _drop_pools(self) -> None:
        """Forget pools beyond the most, oldest first, but for those in use."""
        for key in [key for key, pool in self._pools.items() if not pool.calls][: len(self._pools) - MOST_POOLS + 1]:
            closing = asyncio.ensure_future(self._pools.pop(key).session.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _send(
        self, session: aiohttp.ClientSession, request: UpstreamRequest, target: Target, url: yarl.URL
    ) -> aiohttp.ClientResponse:
        host = target.host
        use = Use()
        in_use.set(use)
        sending = _Sending(request)
        try:
            async with asyncio.timeout(None) as scope:
                sending.begin(scope)
                try:
                    return await session.request(
                        request.method,
                        url,
                        headers=sending.headers(),
                        data=sending.body(),
                        allow_redirects=False,
                        timeout=aiohttp.ClientTimeout(
                            total=request.total_seconds, sock_connect=CONNECT_SECONDS, sock_read=request.idle_seconds
                        ),
                    )
                finally:
                    sending.is_over = True
        except NameNotFound as error:
            raise UpstreamUnavailable(f"{host} cannot be reached: {error}.", trouble=Trouble.NAME) from None
        except LookupsBusy:
            raise UpstreamUnavailable(
                "evergrant is looking up as many names as it can.", retry_after=2, trouble=Trouble.OURS
            ) from None
        except aiohttp.ClientResponseError as error:
            raise UpstreamRejected(f"{host} {error.message}.", provider_error=UNUSABLE) from None
        except (aiohttp.ClientConnectionError, TimeoutError, OSError) as error:
            if sending.fault is not None:
                raise sending.fault from None
            if use.protocol is None:
                self._names.doubt(host)
                raise UpstreamUnavailable(f"{host} cannot be reached: {_why(error)}.") from None
            kept = use.protocol.uses > 1 and not use.protocol.has_received and not isinstance(error, TimeoutError)
            said = "did not answer in time" if isinstance(error, TimeoutError) else "broke off before its answer"
            raise AnswerLost(f"{host} {said}.", on_kept_connection=kept) from None

    async def aclose(self) -> None:
        """Close every connection."""
        await self._names.aclose()
        for pool in self._pools.values():
            await pool.session.close()
        self._pools.clear()


@dataclass(slots=True)
class _Sending:
    """A request on its way, and how long it may take until something happens."""

    request: UpstreamRequest
    fault: BaseException | None = None
    """What the request's own body raised."""
    is_over: bool = False
    _scope: Any = None
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def begin(self, scope: asyncio.Timeout) -> None:
        self._scope = scope
        self._wait(self.request.head_seconds if _is_whole(self.request.body) else self.request.idle_seconds)

    def _wait(self, seconds: float) -> None:
        if not self.is_over:
            self._scope.reschedule(self._loop.time() + seconds)

    def headers(self) -> list[tuple[str, str]]:
        # In lower case, because aiohttp keeps but one of two that differ in their case.
        named = ((name.lower(), value) for name, value in self.request.headers)
        headers = [(name.decode("ascii"), value.decode("utf-8")) for name, value in named if name not in _OURS]
        if self.request.length is not None and not _is_whole(self.request.body):
            headers.append(("Content-Length", str(self.request.length)))
        return headers

    def body(self) -> Any:
        return self.request.body if _is_whole(self.request.body) else self._pieces(self.request.body)

    async def _pieces(self, body: Any) -> AsyncIterator[bytes]:
        try:
            async for piece in _exactly(self.request.length, body):
                self._wait(self.request.idle_seconds)
                yield piece
        except BaseException as error:
            self.fault = error
            raise
        self._wait(self.request.head_seconds)


async def _exactly(length: int | None, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    sent = 0
    async for piece in body:
        sent += len(piece)
        if length is not None and sent > length:
            raise MalformedRequest(_OTHER_LENGTH)
        yield piece
    if length is not None and sent < length:
        raise MalformedRequest(_OTHER_LENGTH)


async def _pieces(response: aiohttp.ClientResponse, host: str) -> AsyncIterator[bytes]:
    content = response.content
    try:
        while piece := await content.readany():
            yield piece
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        why = "sent nothing for too long" if isinstance(error, TimeoutError) else "broke off its answer"
        raise BrokenOff(f"{host} {why}") from None


def _is_whole(body: Any) -> bool:
    return body is None or isinstance(body, bytes)


@lru_cache(maxsize=4096)
def _origin(origin: str) -> tuple[Target, yarl.URL]:
    """Take a URL's origin apart, as the guard and as the client see it: they must not disagree."""
    try:
        target, url = parse_target(origin), yarl.URL(origin, encoded=True)
    except ValueError as error:
        raise EgressRefused(f"This address may not be called: the URL {error}.") from None
    literal = literal_address(target.host)
    if (url.scheme, url.raw_host, url.port) != (target.scheme, target.host, target.port) or (
        literal is not None and str(literal) != target.host
    ):
        raise EgressRefused("This address may not be called: write its host as it is looked up, in lower case.")
    return target, url


def _why(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "its TLS certificate is not accepted"
    return "it does not answer in time" if isinstance(error, TimeoutError) else "it takes no connection"


@asynccontextmanager
async def open_upstream(
    egress_allow: tuple[Opened, ...], *, tls: ssl.SSLContext, resolve: Resolve | None = None
) -> AsyncIterator[Upstream]:
    """Open the way out to APIs. `egress_allow` is what may be called although it is not public."""
    upstream = Upstream(egress_allow, resolve=resolve or SystemLookups(), tls=tls)
    try:
        yield upstream
    finally:
        await upstream.aclose()
