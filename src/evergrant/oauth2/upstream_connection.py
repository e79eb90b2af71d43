"""Connections for calls of providers' APIs: only to addresses that may be called, and used again only when clean.

A server may send more than the answer it was asked for. Who reads those bytes as the answer to the next request hands
one user what is another's, so a connection that holds any is closed.
"""

import asyncio
import re
import select
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError

from evergrant.errors import EgressRefused
from evergrant.networks import Address, Network
from evergrant.oauth2.egress import is_opened, is_public, literal_address
from evergrant.oauth2.name_cache import NameCache

MOST_HEAD_BYTES = 64 * 1024
"""All that may come before a body: answers of 1xx, the status line and the headers."""
MOST_FIELDS = 100
CONNECT_SECONDS = 5.0
"""How long one address may take to take a connection and to stand with TLS."""
KEEPALIVE_SECONDS = 15.0
READ_BYTES = 64 * 1024
"""An answer is not read on while twice as much waits for the caller."""
_ADDRESSES_TRIED = 2
_BUFFER = 64 * 1024
"""What a system may buffer of an answer that nobody reads: it is read in one go."""
_PROBE = b"HTTP/1.1 299 -\r\nContent-Length: 0\r\n\r\n"
_PROBE_FIELDS = ((b"Content-Length", b"0"),)
_GARBLED = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n)|\r\n[ \t]")
_CHALLENGES = frozenset((b"www-authenticate", b"proxy-authenticate"))
_BOUND = (b"negotiate", b"ntlm")


class UnusableHead(HttpProcessingError):
    """An answer that cannot be handed on; the message continues a sentence that begins with the server's name."""


class OneAnswer(ResponseHandler):
    """A connection on which each request gets one answer, as RFC 9112 has it, and not a byte more.

    The parser is lenient: it takes bare line feeds, folded lines, any transfer coding and any number of answers.
    """

    uses = 0
    answered = False
    _head = b""
    _interim = 0
    _received = 0
    """How many bytes have come since the request began,"""
    _due = -1
    """and how many its answer has in all; -1 where that cannot be told beforehand."""
    _look: "select.poll | None" = None

    def begin(self, *, has_body: bool, idle_seconds: float) -> None:
        """Begin another request, whose answer may have a body; it may be silent for so long in the middle."""
        self.uses += 1
        self.answered = False
        self._head = b""
        self._interim = 0
        self._received = 0
        self._due = -1
        self._has_body = has_body
        self.set_response_params(
            skip_payload=not has_body,
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=idle_seconds,
            read_bufsize=READ_BYTES,
            max_line_size=MOST_HEAD_BYTES,
            max_field_size=MOST_HEAD_BYTES,
            max_headers=MOST_FIELDS,
        )

    async def write(self, data: bytes) -> None:
        """Write a part of a request, when the one before has gone.

        Raises:
            ConnectionError: the connection is gone.
        """
        if self.transport is None:
            raise ConnectionResetError
        self.transport.write(data)
        await self._drain_helper()

    def give_up(self, error: BaseException) -> None:
        """End the connection; who waits for it gets `error`."""
        self.set_exception(error)
        if self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(error)
        if self.transport is not None:
            self.transport.abort()

    @property
    def has_received(self) -> bool:
        """Tell whether any byte of an answer to this request has come."""
        return self.answered or bool(self._head)

    def is_clean(self) -> bool:
        """Tell whether another request may follow: nothing has come behind the last answer, nor lies in the socket."""
        if self.should_close or self.transport is None or self.transport.is_closing():
            return False
        if self._look is None:
            connection = self.transport.get_extra_info("socket")
            if connection is None:
                return False
            self._look = select.poll()
            self._look.register(connection.fileno(), select.POLLIN)
        return not self._look.poll(0) and (self._received == self._due or self._parser_is_at_the_start())

    def _parser_is_at_the_start(self) -> bool:
        # The beginning of another answer lies in the parser, where nobody can look. Only at its start it reads the
        # probe as what it is.
        if self._parser is None:
            return False
        try:
            messages, upgraded, _ = self._parser.feed_data(_PROBE)
        except Exception:  # noqa: BLE001 - whatever it says, it was not at its start
            return False
        return [(one.code, one.raw_headers) for one, _ in messages] == [(299, _PROBE_FIELDS)] and not upgraded

    def data_received(self, data: bytes) -> None:
        """Take what has come. Bytes that come behind an answer end the connection."""
        self._received += len(data)
        if self.answered:
            if data and (self._payload is None or self._payload.is_eof()):
                self.abort()
                return
            super().data_received(data)
            return
        self._head += data
        super().data_received(data)
        if self.answered:
            self._head = b""
        elif len(self._head) > MOST_HEAD_BYTES:
            self._refuse("sent more before its answer than an answer's head may have")

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Hand on the one answer: the parser calls this for each that it finds."""
        message = data[0]
        if self.answered:  # another one, in the same read
            self.force_close()
            return
        if 100 <= message.code < 200 and message.code != 101:
            self._interim += 1
            return
        self.answered = True
        why = self._unusable(message)
        if why:
            self._refuse(why)
            return
        if message.version < (1, 1) or _binds_the_connection(message.raw_headers):
            self.force_close()
        super().feed_data(data, size)

    def _unusable(self, message: Any) -> str:
        end = 0
        for _ in range(self._interim + 1):
            at = self._head.find(b"\r\n\r\n", end)
            if at < 0:
                return "garbled its answer"
            end = at + 4
        if _GARBLED.search(self._head, 0, end):
            return "garbled its answer"
        if end > MOST_HEAD_BYTES:
            return "sent more than an answer's head may have"
        if message.code == 101 or message.version not in ((1, 0), (1, 1)):
            return "changed the protocol"
        codings = [value.lower() for name, value in message.raw_headers if name.lower() == b"transfer-encoding"]
        lengths = [value for name, value in message.raw_headers if name.lower() == b"content-length"]
        if len(codings) + len(lengths) > 1 or codings not in ([], [b"chunked"]):
            return "did not say clearly where its answer ends"
        if (codings and message.version < (1, 1)) or not all(value.isdigit() for value in lengths):
            return "did not say clearly where its answer ends"
        if lengths and self._has_body and message.code not in (204, 304):
            self._due = end + int(lengths[0])
        return ""

    def _refuse(self, why: str) -> None:
        self.give_up(UnusableHead(message=why))


def _binds_the_connection(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Tell whether an answer speaks of authentication that holds for all that follows on a connection (RFC 4559)."""
    if _CHALLENGES.isdisjoint([name.lower() for name, _ in headers]):
        return False
    return any(name.lower() in _CHALLENGES and value.lower().startswith(_BOUND) for name, value in headers)


class GuardedConnector(aiohttp.TCPConnector):
    """Makes connections, to addresses that may be called alone, and keeps those that may be used again.

    aiohttp has books of its own for these; looking into them costs as much as writing a request.
    """

    def __init__(
        self, egress_allow: tuple[Network, ...], *, opened_only: bool, names: NameCache, tls: Any, pools: bool
    ) -> None:
        self._guard = Guard(egress_allow, opened_only=opened_only, names=names)
        super().__init__(
            resolver=self._guard,
            use_dns_cache=False,
            socket_factory=self._guard.open_socket,
            ssl=tls,
            limit=0,
            force_close=True,
        )
        self._factory: Any = partial(OneAnswer, loop=self._loop)
        self._pools = pools
        self._idle: list[tuple[Connection, float]] = []
        """Each with the loop's second since when it is idle, the oldest first."""
        self._sweep: asyncio.TimerHandle | None = None

    def kept(self) -> Connection | None:
        """Return a connection that was used before and is clean, the latest one; None where there is none."""
        while self._idle:
            connection, since = self._idle.pop()
            protocol: Any = connection.protocol
            is_young = self._loop.time() - since <= KEEPALIVE_SECONDS
            if is_young and protocol.is_clean():
                return connection
            connection.close()
        return None

    def keep(self, connection: Connection) -> None:
        """Keep a connection for the next call, for some seconds, where it may be used again."""
        protocol: Any = connection.protocol
        if not self._pools or self.closed or protocol.should_close:
            connection.close()
            return
        self._idle.append((connection, self._loop.time()))
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEEPALIVE_SECONDS, self._close_old)

    def _close_old(self) -> None:
        """Close what is idle for too long, and look again when the next one will be."""
        self._sweep = None
        now = self._loop.time()
        while self._idle and now - self._idle[0][1] >= KEEPALIVE_SECONDS:
            self._idle.pop(0)[0].close()
        if self._idle:
            self._sweep = self._loop.call_at(self._idle[0][1] + KEEPALIVE_SECONDS, self._close_old)

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close every connection."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._idle:
            self._idle.pop()[0].close()
        await super().close(abort_ssl=abort_ssl)


class Guard(AbstractResolver):
    """Looks names up and opens sockets, for addresses that may be called and no others.

    The address is checked where its socket is opened, so that nothing lies between the check and the connection.
    """

    def __init__(self, egress_allow: tuple[Network, ...], *, opened_only: bool, names: NameCache) -> None:
        self._egress_allow = egress_allow
        self._opened_only = opened_only
        self._names = names

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:  # noqa: ARG002 - it is aiohttp's
        """Return the addresses of `host` that may be called, as many as are tried.

        Raises:
            EgressRefused: none may be called. NameNotFound, LookupsBusy: none is known.
        """
        literal = literal_address(host)
        known: Sequence[Address] = [literal] if literal is not None else await self._names.addresses(host, port)
        allowed = [address for address in known if self._may_call(address)][:_ADDRESSES_TRIED]
        if not allowed:
            raise self._refused(host)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET6 if address.version == 6 else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in allowed
        ]

    async def close(self) -> None:
        """Nothing is open here."""

    def open_socket(self, address_info: Any) -> socket.socket:
        """Return a socket for one address.

        Raises:
            EgressRefused: it may not be called.
        """
        family, kind, protocol, _, place = address_info
        address = literal_address(place[0])
        if address is None or not self._may_call(address):
            raise self._refused(place[0])
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        return opened

    def _may_call(self, address: Address) -> bool:
        return is_opened(address, self._egress_allow) or (not self._opened_only and is_public(address))

    def _refused(self, host: str) -> EgressRefused:
        if self._opened_only:
            why = "plain http is only for addresses that EVERGRANT_EGRESS_ALLOW opens; use https."
        else:
            why = "it is not public, and EVERGRANT_EGRESS_ALLOW does not open it."
        return EgressRefused(f"{host} may not be called: {why}")
