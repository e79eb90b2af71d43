"""Answers of servers that mean harm: most of them never end. They play providers and receivers of webhooks."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Awaitable, Callable

from tests.infra.scripted import Request

ENOUGH_BYTES = 48 * 1024 * 1024
"""Whoever has taken so much of an answer has no limit."""

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
GZIP_HEAD = HEAD + b"content-encoding: gzip\r\n"
CHUNKED_HEAD = HEAD + b"transfer-encoding: chunked\r\n\r\n"
TOKENS = json.dumps({"access_token": "at-1", "token_type": "Bearer", "expires_in": 3600}).encode()

Hostile = Callable[[Request], Awaitable[None]]


class Flood:
    """An answer that begins, and then repeats itself until the caller hangs up or has taken enough."""

    def __init__(self, begin: bytes, repeated: bytes) -> None:
        self._begin = begin
        self._part = repeated * max(1, 64 * 1024 // len(repeated))
        self.most_sent = 0
        """How many bytes went out, at most, before a caller hung up; buffers of the system are among them."""

    async def __call__(self, request: Request) -> None:
        """Answer."""
        sent = 0
        request.writer.write(self._begin)
        try:
            while sent < ENOUGH_BYTES:
                request.writer.write(self._part)
                await request.writer.drain()
                sent += len(self._part)
                self.most_sent = max(self.most_sent, sent)
        finally:
            request.writer.close()


def drip(data: bytes, seconds: float) -> Hostile:
    """Make an answer that comes byte by byte, and after that does not end."""

    async def answer(request: Request) -> None:
        for byte in data:
            request.writer.write(bytes([byte]))
            await request.writer.drain()
            await asyncio.sleep(seconds)
        while not request.writer.is_closing():
            request.writer.write(b" ")
            await request.writer.drain()
            await asyncio.sleep(seconds)

    return answer


def chunked(data: bytes, size: int) -> bytes:
    """Return a body in chunks of so many bytes."""
    parts = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def compressed(data: bytes) -> bytes:
    """Compress without the time in it."""
    return gzip.compress(data, mtime=0)


def bomb(mebibytes: int) -> bytes:
    """Return a gzip member that unfolds to so much."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(mebibytes)) + packer.flush()


def floods() -> dict[str, Flood]:
    """Make every answer that never ends, by what there is too much of."""
    return {
        "junk after a gzip member": Flood(GZIP_HEAD + b"\r\n" + compressed(TOKENS), b"junk"),
        "empty gzip members": Flood(GZIP_HEAD + b"\r\n", compressed(b"")),
        "a gzip stream": Flood(GZIP_HEAD + b"\r\n", bomb(1)),
        "plain bytes": Flood(HEAD + b"\r\n", b"x"),
        "chunks of one byte": Flood(CHUNKED_HEAD, b"1\r\nx\r\n"),
        "large chunks": Flood(CHUNKED_HEAD, b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
        "extensions of chunks": Flood(CHUNKED_HEAD, b"1;" + b"e" * 4_000 + b"\r\nx\r\n"),
        "one extension": Flood(CHUNKED_HEAD + b"1;", b"e"),
        "trailers": Flood(CHUNKED_HEAD + b"1\r\nx\r\n0\r\n", b"a: b\r\n"),
        "headers": Flood(HEAD, b"a: b\r\n"),
        "one header": Flood(HEAD + b"a: ", b"b"),
        "the status line": Flood(b"HTTP/1.1 200 ", b"O"),
        "folded lines": Flood(HEAD + b"a: b\r\n", b" b\r\n"),
        "status 100": Flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "status 102": Flood(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        "status 103": Flood(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
        "status 101": Flood(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", b"x"),
        "blank lines": Flood(b"", b"\r\n"),
    }
