"""Calls of providers' APIs: sent once, answered as a stream, over connections that no two owners share.

The answer's body is not looked at and not kept: it goes to a caller at the caller's pace. Nothing is followed, decoded,
repeated or remembered here.
"""

import asyncio
import re
import ssl
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import cast

import aiohttp
import yarl
from aiohttp.connector import Connection

from evergrant.errors import EgressRefused, Trouble, UpstreamUnavailable
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
from evergrant.oauth2.lookups import LookupsBusy
from evergrant.oauth2.name_cache import NameCache, NameNotFound, Resolve
from evergrant.oauth2.upstream_connection import CONNECT_SECONDS, GuardedConnector, OneAnswer
from evergrant.oauth2.upstream_exchange import Exchange
from evergrant.oauth2.upstream_messages import UpstreamAnswer, UpstreamRequest

MOST_POOLS = 500
"""So many (project, base, owner) keep connections; the one that was used longest ago gives its own up."""
_CONNECT = aiohttp.ClientTimeout(connect=2 * CONNECT_SECONDS, sock_connect=CONNECT_SECONDS)
_URL = re.compile(r"(https?://[^/?#]+)(/[!\"$-~]*)")


@dataclass(slots=True)
class _Pool:
    """The connections of one project and one owner to one origin."""

    target: Target
    peer: aiohttp.ClientRequest
    """Where they lead to, as aiohttp's connector has it."""
    connector: GuardedConnector
    host: bytes
    """The `Host` header."""
    calls: int = 0


class Upstream:
    """Makes calls of APIs. From `way_out`; has connections and names of its own.

    aiohttp connects, parses and holds back; the request is written here, so that it goes out byte for byte.
    """

    def __init__(self, egress_allow: tuple[Opened, ...], *, resolve: Resolve, tls: ssl.SSLContext) -> None:
        """`egress_allow` is what may be called although it is not public."""
        self.egress_allow = egress_allow
        self._own_places = tuple(one for one in egress_allow if isinstance(one, OwnPlace))
        self._networks = opened_networks(egress_allow)
        self._names = NameCache(resolve)
        self._tls = tls
        self._pools: dict[Hashable, _Pool] = {}
        self._closing: set[asyncio.Future[None]] = set()

    async def send(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Send a request, once, and return its answer, for the caller to end.

        Ended before its body is, it takes the connection with it.

        Raises:
            EgressRefused: the address may not be called.
            UpstreamUnavailable: nothing was sent, so that it is safe to repeat.
            AnswerLost: it was sent, and no answer came; `on_kept_connection` where a connection that had been used
            before was closed instead.
            AnswerUnusable: the answer is none that can be handed on.
            InvalidValue, MalformedRequest: the request is none; and whatever its own body raises.
        """
        parts = _URL.fullmatch(request.url)
        if parts is None:
            raise EgressRefused("This address may not be called: it is not a whole, encoded URL without a fragment.")
        pool = self._pool(request, parts[1], parts[2])
        exchange = Exchange(request)
        head = exchange.head(parts[2], pool.host)
        pool.calls += 1
        try:
            connection = pool.connector.kept() or await self._connect(pool)
        except BaseException:
            pool.calls -= 1
            raise

        def end() -> None:
            pool.calls -= 1
            if exchange.end():
                pool.connector.keep(connection)
            else:
                connection.close()

        try:
            return await exchange.answer(cast("OneAnswer", connection.protocol), head, pool.target.host, end)
        except BaseException:
            end()
            raise

    def _pool(self, request: UpstreamRequest, origin: str, path: str) -> _Pool:
        kind = ""
        if self._own_places and is_own(replace(_origin(origin)[0], path=path), self._own_places):
            kind = "own"
        # A body that streams cannot be sent again, so no connection that may have gone away is tried with it.
        pools = request.is_replayable
        # Nor do two owners share one: an answer that comes late, when the next request is out, looks like that one's.
        key = (kind, pools, origin, request.pool, request.owner)
        pool = self._pools.pop(key, None)
        if pool is None:
            pool = self._new_pool(origin, kind=kind, pools=pools)
            self._drop_pools()
        self._pools[key] = pool
        return pool

    def _new_pool(self, origin: str, *, kind: str, pools: bool) -> _Pool:
        target, url = _origin(origin)
        peer = aiohttp.ClientRequest("GET", url, loop=asyncio.get_running_loop())
        connector = GuardedConnector(
            LOOPBACK if kind == "own" else self._networks,
            opened_only=target.scheme == "http",
            names=self._names,
            tls=self._tls,
            pools=pools,
        )
        return _Pool(target, peer, connector, peer.headers["Host"].encode("ascii"))

    def _drop_pools(self) -> None:
        """Forget pools beyond the most, oldest first, but for those in use."""
        for key in [key for key, pool in self._pools.items() if not pool.calls][: len(self._pools) - MOST_POOLS + 1]:
            closing = asyncio.ensure_future(self._pools.pop(key).connector.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _connect(self, pool: _Pool) -> Connection:
        host = pool.target.host
        try:
            return await pool.connector.connect(pool.peer, [], _CONNECT)
        except NameNotFound as error:
            raise UpstreamUnavailable(f"{host} cannot be reached: {error}.", trouble=Trouble.NAME) from None
        except LookupsBusy:
            raise UpstreamUnavailable(
                "evergrant is looking up as many names as it can.", retry_after=2, trouble=Trouble.OURS
            ) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._names.doubt(host)
            raise UpstreamUnavailable(f"{host} cannot be reached: {_why(error)}.") from None

    async def aclose(self) -> None:
        """Close every connection."""
        await self._names.aclose()
        for pool in self._pools.values():
            await pool.connector.close()
        self._pools.clear()


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
