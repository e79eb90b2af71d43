"""A balancer in front of several servers, which a test tells whom to send new connections to."""

import asyncio
import contextlib
import threading
from collections import Counter
from typing import Self

from tests.infra.waiting import PATIENCE, wait_until


class Balancer:
    """Passes each new connection on to the next of its servers. It works in a thread, so any test can use it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._ports: tuple[int, ...] = ()
        self._open: Counter[int] = Counter()
        self._passed: Counter[int] = Counter()

    def send_to(self, *ports: int) -> None:
        """Send new connections to these servers alone, and return when the others have none any more."""
        self._passed.clear()
        self._ports = ports
        wait_until(lambda: not any(n for port, n in self._open.items() if port not in ports), "the others are drained")

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = min(self._ports, key=lambda one: self._passed[one])
        self._passed[port] += 1
        self._open[port] += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))
        finally:
            self._open[port] -= 1

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.start_server(self._connect, "127.0.0.1", self._port)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
