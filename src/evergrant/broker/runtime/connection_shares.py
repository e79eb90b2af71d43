"""Connections, shared out among addresses: one that is slow may fill up its own share, and never what others need."""

import asyncio
from collections import Counter, deque

CONNECTIONS = 400
"""Calls at once, at all addresses together; fewer where the system gives this process few files."""
FEWEST = 4
"""Calls at once that an address may have however many others are busy."""


class ConnectionShares:
    """Who has how many of this process's connections. An address may have a quarter of what the others leave free.

    So one that is slow takes a quarter at most, the next one a quarter of the rest, and there is always a rest.
    """

    def __init__(self, connections: int = CONNECTIONS) -> None:
        self._connections = connections
        self.most = connections // 4
        """What one address may have while no other has any."""
        self._used: Counter[str] = Counter()
        self._all = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def is_idle(self, address: str) -> bool:
        """Tell whether an address has no call, and nobody waits for one."""
        return address not in self._used and address not in self._waiting

    def room(self, address: str) -> int:
        """Return how many calls an address may begin now."""
        used = self._used[address]
        return max(0, max(FEWEST, (self._connections - self._all + used) // 4) - used)

    async def take(self, address: str) -> None:
        """Take a connection for a call, when it is this caller's turn. It must be given back."""
        if address not in self._waiting and self.room(address) > 0:
            self._grant(address)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(address, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(address)  # it was granted in the same instant
            else:
                self._leave(address, turn)
            raise

    def give_back(self, address: str) -> None:
        """Give a connection back, to whoever may have it now: what one address leaves makes the others' shares grow."""
        self._all -= 1
        self._used[address] -= 1
        if not self._used[address]:
            del self._used[address]
        for other in list(self._waiting):
            while other in self._waiting and self.room(other) > 0:
                turn = self._waiting[other][0]
                self._leave(other, turn)
                if not turn.done():
                    self._grant(other)
                    turn.set_result(None)

    def _grant(self, address: str) -> None:
        self._all += 1
        self._used[address] += 1

    def _leave(self, address: str, turn: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(address)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[address]
