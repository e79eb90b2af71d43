"""A connection that hands on only so many bytes of an answer, and knows whether another request may follow on it.

The limits here are on what arrives, before anything is parsed: 1xx answers, the extensions of chunks and trailers bring
no body, and would otherwise come for as long as a call may take.
"""

import asyncio
import ssl
from collections import deque
from typing import Any

import httpcore2

MOST_HEAD_BYTES = 128 * 1024
"""All that may come before the body: 1xx answers, the status line and the headers, of which h11 takes 100 KiB."""
MOST_WIRE_BYTES = 2 * 1024 * 1024
"""A body of 1 MiB, and as much for the sizes of its chunks."""
PIECE_BYTES = 4 * 1024
"""How much is parsed in one go: small, because thousands of tiny parts fit in, and other callers wait meanwhile."""
_MOST_REUSED_BYTES = 64 * 1024
"""After an answer that filled a read, more of it may lie where nobody can look."""


class AnswerTooLong(httpcore2.ReadError):
    """More has come than an answer may have."""


class Metered(httpcore2.AsyncNetworkStream):
    """An open connection. Each request that is written begins a new count."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._arrived: deque[memoryview] = deque()
        self._handed_on = 0
        self._most = MOST_HEAD_BYTES
        self._is_spoiled = False

    def body_begins(self) -> None:
        """Let as much come as a body may have: the head is over."""
        self._most = self._handed_on + MOST_WIRE_BYTES

    def answer_ended(self, *, unread: bool) -> None:
        """Keep the connection for another request only where nothing can be behind the answer that has ended.

        What a server sends beyond an answer would be taken for the answer to the next request, which may be another
        user's. `unread` tells that the parser holds some.
        """
        self._is_spoiled = (
            unread
            or bool(self._arrived)
            or self._handed_on > _MOST_REUSED_BYTES
            or self._has_more_records()
            or self._has_more_reads()
        )

    def _has_more_records(self) -> bool:
        tls = self._stream.get_extra_info("ssl_object")
        if tls is None:
            return False
        try:
            tls.read(1)
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, ValueError):
            return True
        return True

    def _has_more_reads(self) -> bool:
        """Tell whether more was read from the socket than was asked for; what lies in it the pool sees by itself."""
        stream: Any = self._stream
        try:
            stream = stream._stream
            return bool(getattr(stream, "transport_stream", stream)._protocol.read_queue)
        except AttributeError:  # another version of anyio: better no reuse than another user's answer
            return True

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Return the next piece.

        Raises:
            AnswerTooLong: it would be too much.
        """
        if self._arrived:
            await asyncio.sleep(0)  # others have a turn between the pieces, too
        else:
            data = memoryview(await self._stream.read(max_bytes, timeout))
            self._arrived.extend(data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES))
        piece = bytes(self._arrived.popleft()) if self._arrived else b""
        self._handed_on += len(piece)
        if self._handed_on > self._most:
            raise AnswerTooLong
        return piece

    async def write(self, data: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Write a part of a request."""
        self._handed_on, self._most = 0, MOST_HEAD_BYTES
        await self._stream.write(data, timeout)

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        """Return a fact. The pool closes an idle connection that is readable, and so one that is spoiled."""
        return (info == "is_readable" and self._is_spoiled) or self._stream.get_extra_info(info)
