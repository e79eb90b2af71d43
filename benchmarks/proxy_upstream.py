"""An API that costs next to nothing: an answer of 2 kB, one of a megabyte, streams that stay open, and endless ones.

It is a process of its own. It knows just enough HTTP for those who call it here: requests without a body.
"""

import argparse
import asyncio
from typing import cast

import uvloop

SMALL = b'{"items": [%s]}' % b", ".join([b'{"id": 1234567, "name": "An item of a list"}'] * 45)
MEGABYTE = b"The quick brown fox jumps over the lazy dog. " * (1_000_000 // 45)
JSON = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: W/"1"\r\nContent-Length: %d\r\n\r\n'
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"data: nothing new\n\n"
PIECE = MEGABYTE[: 64 * 1024]
ANSWERS = {b"/small": JSON % len(SMALL) + SMALL, b"/megabyte": JSON % len(MEGABYTE) + MEGABYTE}


class Api(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._received = b""
        self._endless = self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            path = self._received.split(b" ", 2)[1]
            self._received = self._received[end + 4 :]
            self._answer(path)

    def _answer(self, path: bytes) -> None:
        if path in ANSWERS:
            self._transport.write(ANSWERS[path])
        else:
            self._transport.write(CHUNKED + chunk(EVENT))
            if path == b"/endless":
                self._endless = True
                self.resume_writing()

    def pause_writing(self) -> None:
        self._endless, self._waiting = False, self._endless

    def resume_writing(self) -> None:
        self._endless = self._endless or self._waiting
        while self._endless:  # until the transport says that nobody reads
            self._transport.write(chunk(PIECE))

    def connection_lost(self, _: Exception | None) -> None:
        self._endless = self._waiting = False


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Api, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
