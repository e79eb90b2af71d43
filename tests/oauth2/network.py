"""What may be called here, a scripted name server, and the clock of a loop."""

import asyncio
import ipaddress
import math
import ssl
from collections.abc import Sequence

import pytest

from evergrant.networks import Address
from evergrant.oauth2 import listening

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
TLS = ssl.create_default_context()  # built once: it costs more than a test


class Names:
    """A name server: each lookup of a name takes its next answer; it counts them."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(turns) for name, turns in answers.items()}
        self.lookups: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.lookups.append(host)
        turns = self.answers.get(host)
        if not turns:
            raise OSError("no such name")
        turn = turns.pop(0) if len(turns) > 1 else turns[0]
        return [ipaddress.ip_address(address) for address in turn]


class LoopClock:
    """Moves the clock by which a loop wakes: what a process finds that was stopped, and goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._moved = 0.0
        loop = asyncio.get_running_loop()
        true_time = loop.time
        monkeypatch.setattr(loop, "time", lambda: true_time() + self._moved)

    def stand_still(self, seconds: float) -> None:
        """Have stood still for so long."""
        self._moved += seconds

    def listen(self, seconds: float) -> None:
        """Have listened for so long, and heard nothing."""
        self._monkeypatch.setattr(listening, "MOST_AT_ONCE", math.inf)
        self._moved += seconds
