"""Looks names up with the system's resolver, in threads of its own, so that names which stand delay no others.

The resolver cannot be told to give up: it stands for ten seconds or more where a name's servers are silent. Event loops
ask it in a handful of threads that everybody shares, and as many such names then stop all others.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from evergrant.networks import Address

AT_ONCE = 256
"""Lookups under way at most. A thread that waits costs little."""
SLOW_AT_ONCE = 32
"""The same for names that stood when they were looked up last: they wait for each other, in a lane of their own."""
SLOW_SECONDS = 1.0
"""From here on a lookup stands."""
QUEUE_SECONDS = 3.0
"""How long a name that is not known to stand waits for its turn."""
MOST_SLOW_NAMES = 10_000


class LookupsBusy(Exception):
    """This process looks up as many names as it can: whether this one resolves is not known."""


class SystemLookups:
    """The system's resolver, asked by any number of callers. Each call is one lookup: see `NameCache`."""

    def __init__(self) -> None:
        self._lane = asyncio.Semaphore(AT_ONCE)
        self._slow_lane = asyncio.Semaphore(SLOW_AT_ONCE)
        self._slow_names: dict[str, None] = {}

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        """Return the addresses of `host`, best first.

        Raises:
            OSError, UnicodeError: there are none. LookupsBusy: it was not asked for.
        """
        lane = self._slow_lane if host in self._slow_names else self._lane
        try:
            async with asyncio.timeout(None if lane is self._slow_lane else QUEUE_SECONDS):
                await lane.acquire()
        except TimeoutError:
            raise LookupsBusy from None
        began = time.monotonic()
        try:
            return await _in_a_thread(host, port)
        finally:
            lane.release()
            self._slow_names.pop(host, None)
            if time.monotonic() - began >= SLOW_SECONDS:
                self._slow_names[host] = None
                if len(self._slow_names) > MOST_SLOW_NAMES:
                    del self._slow_names[next(iter(self._slow_names))]


async def _in_a_thread(host: str, port: int) -> Sequence[Address]:
    """Look a name up in a thread that nothing waits for: it ends when the resolver does, or with the process."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Any]] = loop.create_future()

    def settle(answers: list[Any], error: BaseException | None) -> None:
        if found.done():  # nobody waits any more
            return
        if error is None:
            found.set_result(answers)
        else:
            found.set_exception(error)

    def look_up() -> None:
        answers: list[Any] = []
        error: BaseException | None = None
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except Exception as raised:  # noqa: BLE001 - it goes to who asked
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, answers, error)

    try:
        threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
    except RuntimeError:  # the system gives no more threads
        raise LookupsBusy from None
    return list(dict.fromkeys(ipaddress.ip_address(answer[4][0]) for answer in await found))
