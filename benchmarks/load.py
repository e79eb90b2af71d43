"""A load generator: HTTP/1.1 over kept connections, one request in flight on each, random users.

It is a process of its own. It reads its orders as JSON from standard input and writes what it saw as JSON to standard
output. It knows just enough HTTP for the two servers that it talks to: every answer has a Content-Length.
"""

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import cast

import uvloop

from benchmarks.seed import APP_ID, SCOPES, access_token, user_id

CHECK_EVERY = 50


@dataclass(frozen=True)
class Orders:
    """What to do."""

    port: int
    path: str
    authorization: str
    users: int
    seconds: float
    connections: int
    check_tokens: bool
    """Whether every 50th answer must hold the asked user's token; every answer must be a 200 in any case."""


@dataclass
class Seen:
    """What happened."""

    answers: int = 0
    checked: int = 0
    wrong: int = 0
    seconds: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    first_wrong: str = ""
    latencies: list[float] = field(default_factory=list, repr=False)


class Caller(asyncio.Protocol):
    """One connection that asks, waits for the answer and asks again until it is time to stop."""

    def __init__(self, orders: Orders, seen: Seen, done: asyncio.Future[None]) -> None:
        self._orders, self._seen, self._done = orders, seen, done
        self._head = (
            f"POST {orders.path} HTTP/1.1\r\nHost: 127.0.0.1:{orders.port}\r\nAuthorization: {orders.authorization}\r\n"
            "Content-Type: application/json\r\nAccept: application/json\r\nContent-Length: "
        )
        self._received = b""
        self._expected = 0  # length of the whole answer, once its head is here
        self._until = time.perf_counter() + orders.seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._ask()

    def _ask(self) -> None:
        self._number = random.randrange(self._orders.users)
        body = json.dumps({"appId": APP_ID, "userId": user_id(self._number), "scopes": SCOPES})
        self._asked = time.perf_counter()
        self._transport.write(f"{self._head}{len(body)}\r\n\r\n{body}".encode())

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._expected:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._received[:end].lower()
            length = head.split(b"\r\ncontent-length:", 1)[1].split(b"\r\n", 1)[0]
            self._expected = end + 4 + int(length)
        if len(self._received) < self._expected:
            return
        now = time.perf_counter()
        self._seen.latencies.append(now - self._asked)
        self._check(self._received)
        self._received, self._expected = b"", 0
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def _check(self, answer: bytes) -> None:
        self._seen.answers += 1
        right = answer.startswith(b"HTTP/1.1 200 ")
        if right and self._orders.check_tokens and self._seen.answers % CHECK_EVERY == 1:
            token = json.loads(answer.split(b"\r\n\r\n", 1)[1])["token"]
            right = (token["userId"], token["accessToken"]) == (user_id(self._number), access_token(self._number))
            self._seen.checked += 1
        if not right:
            self._seen.wrong += 1
            self._seen.first_wrong = self._seen.first_wrong or answer.decode(errors="replace")[:500]

    def connection_lost(self, error: Exception | None) -> None:
        if self._expected or self._received or time.perf_counter() < self._until:
            self._seen.wrong += 1
            self._seen.first_wrong = self._seen.first_wrong or f"the connection ended: {error}"
        if not self._done.done():
            self._done.set_result(None)


async def run(orders: Orders) -> Seen:
    """Ask for `orders.seconds`."""
    loop = asyncio.get_running_loop()
    seen = Seen()
    done = [loop.create_future() for _ in range(orders.connections)]
    began = time.perf_counter()
    for future in done:
        await loop.create_connection(partial(Caller, orders, seen, future), "127.0.0.1", orders.port)
    async with asyncio.timeout(orders.seconds + 30):
        await asyncio.gather(*done)
    seen.seconds = time.perf_counter() - began
    ordered = sorted(seen.latencies)
    seen.p50_ms = ordered[len(ordered) // 2] * 1000
    seen.p99_ms = ordered[len(ordered) * 99 // 100] * 1000
    seen.latencies = []
    return seen


if __name__ == "__main__":
    json.dump(asdict(uvloop.run(run(Orders(**json.load(sys.stdin))))), sys.stdout)
