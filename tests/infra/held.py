"""Answers of the practice provider that come when a test says so, and not after a time."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.responses import Response

from evergrant.practice.faults import Fault


@dataclass(frozen=True, kw_only=True)
class HeldBack(Fault):
    """Another fault, or the normal answer, that is played once it is released."""

    fault: Fault = field(default_factory=Fault)
    released: threading.Event = field(default_factory=threading.Event)

    async def play(self, work: Callable[[], Response]) -> Response:
        """Wait, and play it."""
        while not self.released.is_set():  # set in another thread than it is waited for in
            await asyncio.sleep(0.01)
        return await self.fault.play(work)
