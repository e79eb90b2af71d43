"""An API that answers with whatever bytes it is told to, when it is told to."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from evergrant.oauth2.egress import Opened
from evergrant.oauth2.lookups import SystemLookups
from evergrant.oauth2.name_cache import Resolve
from evergrant.oauth2.upstream import Upstream
from evergrant.oauth2.upstream_messages import UpstreamAnswer, UpstreamRequest
from tests.oauth2.network import LOOPBACK, TLS

Script = list[bytes | float | None]
"""What is sent after a request: bytes, pauses in seconds, and None for an end of the connection."""


@dataclass
class RawApi:
    """Its `answer` is asked with each request's head, for what to send."""

    answer: Callable[[bytes], Script]
    url: str = ""
    heads: list[tuple[int, bytes]] = field(default_factory=list)
    """Of each request, with the number of its connection."""
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """A caller has closed a connection."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        number = self.connections
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append((number, head))
                if b"chunked" in head:
                    self.bodies.append(await reader.readuntil(b"0\r\n\r\n"))
                elif b"Content-Length: " in head:
                    length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
                    self.bodies.append(await reader.readexactly(int(length)))
                for step in self.answer(head):
                    if step is None:
                        return
                    if isinstance(step, bytes):
                        writer.write(step)
                        await writer.drain()
                    else:
                        await asyncio.sleep(step)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            self.ended.set()
        finally:
            writer.transport.abort()


def open_upstream(
    egress_allow: tuple[Opened, ...], *, tls: ssl.SSLContext, resolve: Resolve | None = None
) -> aclosing[Upstream]:
    """Open a way out for an `async with`; it looks names up as the system does, where `resolve` is not given."""
    return aclosing(Upstream(egress_allow, resolve=resolve or SystemLookups(), tls=tls))


@asynccontextmanager
async def raw_api(answer: Callable[[bytes], Script]) -> AsyncIterator[tuple[RawApi, Upstream]]:
    """Serve a raw API, and open a way out that may call it."""
    api = RawApi(answer)
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    api.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, open_upstream(LOOPBACK, tls=TLS) as upstream:
        yield api, upstream


def ok(body: bytes) -> bytes:
    """Return a good answer."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def get(api: RawApi, path: str = "/", *, pool: str = "p", owner: str = "o") -> UpstreamRequest:
    """Return a request for it, which is given up soon."""
    return UpstreamRequest(
        pool=pool,
        owner=owner,
        method="GET",
        url=f"{api.url}{path}",
        headers=(),
        head_seconds=2.0,
        idle_seconds=2.0,
        total_seconds=4.0,
    )


@asynccontextmanager
async def answer_of(upstream: Upstream, request: UpstreamRequest) -> AsyncIterator[UpstreamAnswer]:
    """Make a call, and end its answer with the block."""
    answer = await upstream.send(request)
    try:
        yield answer
    finally:
        answer.end()


async def body_of(upstream: Upstream, request: UpstreamRequest) -> bytes:
    """Make a call and return the whole body of its answer."""
    async with answer_of(upstream, request) as answer:
        return b"".join([piece async for piece in answer.body])
