"""The one way out to providers: an egress guard, limits, one deadline and one attempt per request.

It is built on the connection pool and not on an HTTP client, because what a client adds is what must not
happen here: redirects, a cookie jar shared between users, proxies and credentials from the environment, URLs
in the log.
"""

import asyncio
import copy
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import httpcore2
import httpx2

from evergrant import __version__, pace
from evergrant.errors import EgressRefused, Trouble, UpstreamUnavailable
from evergrant.oauth2.call_span import call_span
from evergrant.oauth2.egress import LOOPBACK, Opened, Target, check_url, is_own, opened_networks, parse_target
from evergrant.oauth2.guarded_network import GuardedNetwork
from evergrant.oauth2.incoming import HttpAnswer, Incoming, UnusableAnswer
from evergrant.oauth2.jwks import JwksCache
from evergrant.oauth2.listening import Listening
from evergrant.oauth2.lookups import LookupsBusy, SystemLookups
from evergrant.oauth2.metered import AnswerTooLong, Metered
from evergrant.oauth2.name_cache import NameCache, NameNotFound, Resolve
from evergrant.oauth2.sending import Sending

__all__ = ["Http", "HttpAnswer", "check_url", "default_tls", "open_http"]

QUEUE_SECONDS = 5.0
"""How long a request waits while as many are under way as may be."""
MOST_AT_ONCE = 200
MAX_IDLE_CONNECTIONS = 100
# Short, because a provider that closes an idle connection just as a refresh is written to it leaves in doubt
# whether it has read the request, and a refresh token that is sent twice can cost the grant.
KEEPALIVE_SECONDS = 1.0
PARTS_AT_ONCE = 64
"""So many parts of an answer are taken before others have a turn."""


class Http:
    """Makes single requests. From `open_http`; each has connections, names and limits of its own.

    There is one deadline for a request, here and nowhere else. It counts the time in which this process listened.
    """

    def __init__(
        self,
        egress_allow: tuple[Opened, ...],
        *,
        resolve: Resolve,
        tls: ssl.SSLContext,
        most: int,
        seconds: float | None,
    ) -> None:
        self.egress_allow = egress_allow
        self.jwks = JwksCache()
        self.most = most
        """How many requests may be under way at once: each has a connection."""
        self._slots = asyncio.Semaphore(most)
        self._seconds = seconds
        self._send_before: float | None = None
        self._listening = Listening()
        self._names = NameCache(resolve)
        networks = opened_networks(egress_allow)
        # Plain http has its own pool, because its backend has a stricter rule and cannot see the scheme. So has what is
        # a part of this server, for which alone loopback is open.
        self._pools = {
            pool: httpcore2.AsyncConnectionPool(
                ssl_context=tls,
                max_connections=None,  # `_slots` limits them
                max_keepalive_connections=min(most, MAX_IDLE_CONNECTIONS),
                keepalive_expiry=KEEPALIVE_SECONDS,
                retries=0,
                network_backend=GuardedNetwork(
                    allowed, opened_only=pool != "https", names=self._names, listening=self._listening
                ),
            )
            for pool, allowed in (("https", networks), ("http", networks), ("own", LOOPBACK))
        }

    def under(self, *, seconds: float | None = None, send_before: float | None = None) -> Self:
        """Return the same way out, with its connections, under another limit.

        `seconds` is how long a request may take. From `send_before` on, a moment of `time.monotonic()`, none is sent.
        """
        other = copy.copy(self)
        other._seconds = seconds or self._seconds
        other._send_before = send_before
        return other

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], content: bytes | None = None
    ) -> HttpAnswer:
        """Make a request, once: it is never sent a second time, whatever happens to the first.

        Raises:
            EgressRefused: the address may not be called. TooLateToSend: see `under`. UpstreamUnavailable: there is no
            complete answer; `in_doubt` where the request was sent, and the provider may have acted on it.
        """
        try:
            target = parse_target(url)
        except ValueError as error:
            raise EgressRefused(f"This address may not be called: the URL {error}.") from None
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise UpstreamUnavailable(
                "evergrant is making as many calls as it can.", retry_after=2, trouble=Trouble.OURS
            ) from None
        try:
            with call_span(method, target) as call:
                answer = await self._request(method, target, headers, content)
                call.note("http.response.status_code", answer.status)
                return answer
        finally:
            self._slots.release()

    async def _request(
        self, method: str, target: Target, headers: Mapping[str, str], content: bytes | None
    ) -> HttpAnswer:
        host = target.host
        sending, incoming = Sending(before=self._send_before, has_content=bool(content)), Incoming()
        try:
            async with self._listening.at_most(self._seconds or pace.PACE.call):
                await self._exchange(method, target, headers, content, sending=sending, incoming=incoming)
            return incoming.whole()
        except NameNotFound as error:
            raise UpstreamUnavailable(f"{host} cannot be reached: {error}.", trouble=Trouble.NAME) from None
        except LookupsBusy:
            raise UpstreamUnavailable(
                "evergrant is looking up as many names as it can.", retry_after=2, trouble=Trouble.OURS
            ) from None
        except httpcore2.ConnectTimeout:
            raise UpstreamUnavailable(f"{host} did not answer in time.") from None
        except httpcore2.ConnectError as error:
            reason = "its TLS certificate is not accepted" if _is_tls(error) else "it takes no connection"
            raise UpstreamUnavailable(f"{host} cannot be reached: {reason}.") from None
        except TimeoutError:
            why = "did not answer in time"
        except AnswerTooLong:
            why = "sent more than an answer may have"
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError):
            why = "broke off or garbled its answer"
        except UnusableAnswer as error:
            why = str(error)
        whole = incoming.whole_without_its_end()
        if whole is not None:
            return whole
        raise UpstreamUnavailable(f"{host} {why}.", in_doubt=sending.has_begun)

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
        await self._names.aclose()
        for pool in self._pools.values():
            await pool.aclose()

    async def _exchange(
        self,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        content: bytes | None,
        *,
        sending: Sending,
        incoming: Incoming,
    ) -> None:
        # By lower-case names, so that a header that is given stands in for ours and is not sent beside it.
        given = {name.lower(): value for name, value in headers.items()}
        sent = {"accept-encoding": "gzip", "user-agent": f"evergrant/{__version__}", **given}
        bracketed = f"[{target.host}]" if ":" in target.host else target.host
        default = 443 if target.scheme == "https" else 80
        sent["host"] = bracketed if target.port == default else f"{bracketed}:{target.port}"
        pool = self._pools["own" if is_own(target, self.egress_allow) else target.scheme]
        async with pool.stream(
            method,
            httpcore2.URL(
                scheme=target.scheme.encode(),
                host=target.host.encode(),
                port=target.port,
                target=target.path.encode(),
            ),
            headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in sent.items()],
            content=content,
            extensions={"trace": sending},
        ) as response:
            connection: Metered = response.extensions["network_stream"]
            incoming.begin(response.status, response.headers)
            connection.body_begins()
            async for chunk in response.aiter_stream():
                incoming.add(chunk)
                if incoming.parts % PARTS_AT_ONCE == 0:
                    await asyncio.sleep(0)  # the parser does not wait between parts that have arrived together
            connection.answer_ended(unread=_has_unread(response))


def _has_unread(response: httpcore2.Response) -> bool:
    """Tell whether the parser holds bytes that came behind the answer. httpcore2 does not tell, and would reuse it."""
    try:
        parser = response.stream._stream._connection._h11_state  # type: ignore[union-attr]
        return bool(parser.trailing_data[0])
    except AttributeError:  # another version of httpcore2: better no reuse than another user's answer
        return True


def _is_tls(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def default_tls() -> ssl.SSLContext:
    """Return a context that trusts the system's authorities (or `SSL_CERT_FILE`). Reading them takes a while."""
    return httpx2.create_ssl_context()


@asynccontextmanager
async def open_http(
    egress_allow: tuple[Opened, ...],
    *,
    resolve: Resolve | None = None,
    tls: ssl.SSLContext | None = None,
    most: int = MOST_AT_ONCE,
    seconds: float | None = None,
) -> AsyncIterator[Http]:
    """Open a way out.

    `egress_allow` is what may be called although it is not public. `most` requests at once are made.
    `seconds` bounds a request from the first lookup to the last byte; None for what the pace says.
    """
    http = Http(egress_allow, resolve=resolve or SystemLookups(), tls=tls or default_tls(), most=most, seconds=seconds)
    try:
        yield http
    finally:
        await http.aclose()
