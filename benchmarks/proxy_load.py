"""A load generator for proxies: GETs over kept connections, one in flight on each, answers of any framing.

A process of its own: orders as JSON on standard input, what it saw as JSON on standard output. With `hold`, it opens
the connections, waits for the beginning of each answer, says `open` and holds them until its standard input ends;
with `hold_unread` it reads nothing after that beginning.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import cast

import uvloop

HOLD_SECONDS = 120
"""At most."""


@dataclass(frozen=True)
class Orders:
    """What to do. `{n}` in the headers is a number from 0 to `users` - 1, another for each request."""

    port: int
    path: str
    headers: str
    connections: int
    seconds: float = 0.0
    users: int = 1
    hold: bool = False
    hold_unread: bool = False


@dataclass
class Seen:
    """What happened."""

    answers: int = 0
    wrong: int = 0
    seconds: float = 0.0
    p50_ms: float = 0.0
    first_wrong: str = ""
    latencies: list[float] = field(default_factory=list, repr=False)


class Caller(asyncio.Protocol):
    """One connection that asks, waits for the whole answer and asks again until it is time to stop."""

    def __init__(self, orders: Orders, seen: Seen, begun: asyncio.Future[None], done: asyncio.Future[None], n: int):
        self._orders, self._seen, self._begun, self._done, self._number = orders, seen, begun, done, n
        self._until = time.perf_counter() + orders.seconds
        self._forget()

    def _forget(self) -> None:
        self._head, self._left, self._tail = b"", -1, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        self._forget()
        self._number = (self._number + 37) % self._orders.users
        headers = self._orders.headers.replace("{n}", str(self._number))
        self._asked = time.perf_counter()
        self._transport.write(
            f"GET {self._orders.path} HTTP/1.1\r\nHost: 127.0.0.1:{self._orders.port}\r\n{headers}\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if self._orders.hold or self._orders.hold_unread:
            self._hold(data)
            return
        if self._left < 0 and not self._tail:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            data, self._head = self._head[end + 4 :], self._head[: end + 4].lower()
            if b"\r\ncontent-length: " in self._head:
                self._left = int(self._head.split(b"\r\ncontent-length: ", 1)[1].split(b"\r\n", 1)[0])
        if self._left >= 0:
            self._left -= len(data)
            over = self._left == 0
        else:
            self._tail = (self._tail + data)[-5:] or b"?"
            over = self._tail == b"0\r\n\r\n"
        if over:
            self._whole()

    def _whole(self) -> None:
        now = time.perf_counter()
        self._seen.latencies.append(now - self._asked)
        self._seen.answers += 1
        self._check(self._head.startswith(b"http/1.1 200 "), self._head)
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def _hold(self, data: bytes) -> None:
        if self._begun.done():
            return
        self._head += data
        if b"data: nothing new" in self._head or b" 200 " not in self._head[:16]:
            self._check(self._head.startswith(b"HTTP/1.1 200 "), self._head)
            self._begun.set_result(None)
            if self._orders.hold_unread:
                self._transport.pause_reading()

    def _check(self, right: bool, said: bytes) -> None:
        if not right:
            self._seen.wrong += 1
            self._seen.first_wrong = self._seen.first_wrong or said.decode(errors="replace")[:600]

    def connection_lost(self, _: Exception | None) -> None:
        if not self._begun.done():
            self._begun.set_result(None)
        if not self._done.done():
            self._done.set_result(None)


async def run(orders: Orders) -> Seen:
    loop = asyncio.get_running_loop()
    seen = Seen()
    begun = [loop.create_future() for _ in range(orders.connections)]
    done = [loop.create_future() for _ in range(orders.connections)]
    began = time.perf_counter()
    for n, (first, last) in enumerate(zip(begun, done, strict=True)):
        made = partial(Caller, orders, seen, first, last, n % orders.users)
        await loop.create_connection(made, "127.0.0.1", orders.port)
    if orders.hold or orders.hold_unread:
        async with asyncio.timeout(HOLD_SECONDS):
            await asyncio.gather(*begun)
        print(json.dumps({"open": len(begun) - seen.wrong, "first_wrong": seen.first_wrong}), flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        return seen
    async with asyncio.timeout(orders.seconds + 30):
        await asyncio.gather(*done)
    seen.seconds = time.perf_counter() - began
    ordered = sorted(seen.latencies) or [0.0]
    seen.p50_ms = ordered[len(ordered) // 2] * 1000
    seen.latencies = []
    return seen


if __name__ == "__main__":
    json.dump(asdict(uvloop.run(run(Orders(**json.loads(sys.stdin.readline()))))), sys.stdout)
