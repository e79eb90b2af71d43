"""One request on one connection: how it is written, how long it may take, and its answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Self

import aiohttp
from aiohttp.http import HttpProcessingError
from aiohttp.streams import StreamReader

from evergrant.errors import AnswerLost, AnswerUnusable, InvalidValue, MalformedRequest
from evergrant.oauth2.upstream_connection import OneAnswer, UnusableHead
from evergrant.oauth2.upstream_messages import BrokenOff, UpstreamAnswer, UpstreamRequest

_OTHER_LENGTH = "The request's body is not as long as Content-Length says."
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_OURS = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"))


class Exchange:
    """A request and its answer. One timer says how long nothing may happen, and then how long all of it may take."""

    def __init__(self, request: UpstreamRequest) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + request.total_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._protocol: OneAnswer | None = None
        self._payload: StreamReader | None = None
        self._sender: asyncio.Task[None] | None = None
        self._fault: BaseException | None = None

    def head(self, target: str, host: bytes) -> bytes:
        """Return the request's first line and its headers. Where the body ends is said anew (RFC 9112 section 6).

        Raises:
            InvalidValue: a line break or a NUL would stand in it.
        """
        request, body = self._request, self._request.body
        if request.method not in _METHODS:
            raise InvalidValue.of(("method", "is none that is forwarded"))
        lines = [f"{request.method} {target} HTTP/1.1".encode("ascii"), b"Host: " + host]
        lines += [b"%b: %b" % one for one in request.headers if one[0].lower() not in _OURS]
        if isinstance(body, bytes) or (body is None and request.method not in _WITHOUT_BODY):
            lines.append(b"Content-Length: %d" % len(body or b""))
        elif body is not None:
            length = request.length
            lines.append(b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length)
            lines.append(b"Connection: close")
        head = b"\r\n".join((*lines, b"", b""))
        if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1 or b"\0" in head:
            raise InvalidValue.of(("headers", "must not have line breaks"))
        return head

    async def answer(self, protocol: OneAnswer, head: bytes, host: str, end: Callable[[], None]) -> UpstreamAnswer:
        """Send the request over a connection, and return its answer, which `end` ends. Raises as `Upstream.send`."""
        request, body = self._request, self._request.body
        self._protocol = protocol
        protocol.begin(has_body=request.method != "HEAD", idle_seconds=request.idle_seconds)
        try:
            if body is None or isinstance(body, bytes):
                self._wait(request.head_seconds)
                await protocol.write(head + body if body else head)
            else:
                self._wait(request.idle_seconds)
                self._sender = self._loop.create_task(self._send(protocol, head, body))
            message, self._payload = await protocol.read()
        except HttpProcessingError as error:
            # The parser's own words quote what came, which may be a secret.
            why = error.message if isinstance(error, UnusableHead) else "garbled its answer"
            raise AnswerUnusable(f"{host} {why}.") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if self._fault is not None:
                raise self._fault from None
            is_late = isinstance(error, TimeoutError)
            said = "did not answer in time" if is_late else "broke off before its answer"
            kept = protocol.uses > 1 and not protocol.has_received and not is_late
            raise AnswerLost(f"{host} {said}.", on_kept_connection=kept) from None
        if not self._payload.is_eof():
            self._wait(None)
        return UpstreamAnswer(message.code, message.raw_headers, _Pieces(self._payload, host), end)

    def end(self) -> bool:
        """End it, and tell whether the connection may have another: all was sent, and the whole answer has come."""
        if self._timer is not None:
            self._timer.cancel()
        is_sent = self._sender is None or self._sender.done()
        if not is_sent and self._sender is not None:
            self._sender.cancel()
        payload = self._payload
        return is_sent and payload is not None and payload.is_eof() and payload.exception() is None

    def _wait(self, seconds: float | None) -> None:
        """Let the next thing take so many seconds, and all the rest as long as the whole may take."""
        if self._timer is not None:
            self._timer.cancel()
        ends = self._ends if seconds is None else min(self._ends, self._loop.time() + seconds)
        self._timer = self._loop.call_at(ends, self._give_up)

    def _give_up(self) -> None:
        if self._protocol is not None:
            self._protocol.give_up(TimeoutError())

    async def _send(self, protocol: OneAnswer, head: bytes, body: AsyncIterator[bytes]) -> None:
        length, sent = self._request.length, 0
        try:
            await protocol.write(head)
            async for piece in body:
                sent += len(piece)
                if length is not None and sent > length:
                    raise MalformedRequest(_OTHER_LENGTH)  # noqa: TRY301 - it goes the way of what the body raises
                if piece:
                    await protocol.write(piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
                if self._payload is None:
                    self._wait(self._request.idle_seconds)
            if length is None:
                await protocol.write(b"0\r\n\r\n")
            elif sent < length:
                raise MalformedRequest(_OTHER_LENGTH)  # noqa: TRY301
            if self._payload is None:
                self._wait(self._request.head_seconds)
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes to who waits for the answer
            if protocol.transport is not None:  # else the provider has gone, which that one hears anyway
                self._fault = error
                protocol.give_up(ConnectionAbortedError())


class _Pieces:
    """An answer's body. No generator: each of those costs the loop as much as reading a piece."""

    __slots__ = ("_host", "_payload")

    def __init__(self, payload: StreamReader, host: str) -> None:
        self._payload, self._host = payload, host

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._payload.readany()
        except (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError) as error:
            why = "sent nothing for too long" if isinstance(error, TimeoutError) else "broke off its answer"
            raise BrokenOff(f"{self._host} {why}") from None
        if not piece:
            raise StopAsyncIteration
        return piece
