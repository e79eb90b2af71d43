"""Token endpoints as this process sees them: how much it asks of each, and when it leaves one alone.

One provider that is down or slow, or one client that asks too much, must neither starve the others nor be hammered.
What goes wrong is held against what it belongs to:

- silence (no connection, no answer in time, a reset, a 5xx, nonsense) against the address: its breaker;
- "too much is asked" against the client at that address: its allowance;
- a name that could not be looked up, and what this process held back by itself, against neither.

Each process learns for itself: there is nothing to keep in step, and nothing to lose.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

from evergrant.broker.runtime.breaker import Admission, Breaker
from evergrant.broker.runtime.connection_shares import CONNECTIONS, ConnectionShares
from evergrant.broker.runtime.endpoint_client import EndpointClient
from evergrant.db import OutboundApp
from evergrant.errors import EgressRefused, EvergrantError, Trouble, UpstreamUnavailable

PATIENCE = 10.0
"""Seconds that a call waits for its turn and a connection, in all."""
LOOKAHEAD = 1.0
"""The background may have so many seconds' turns of a client waiting."""
IDLE_SECONDS = 900.0
"""What nobody has used for so long is forgotten."""
LOOKS = 2
"""So many are looked at for that at each use, all in turn: it never takes long."""


class Endpoint:
    """One token endpoint: a breaker, a share of the connections, and the clients that use it."""

    __slots__ = ("_shares", "breaker", "clients", "url", "used_at")

    def __init__(self, url: str, shares: ConnectionShares) -> None:
        self.url = url
        self.breaker = Breaker()
        self.clients: OrderedDict[str, EndpointClient] = OrderedDict()
        """The next to be looked at, whether it can be forgotten, is the first."""
        self.used_at = time.monotonic()
        self._shares = shares

    @property
    def is_open(self) -> bool:
        """Whether it is left alone, but for single tries."""
        return self.breaker.is_open

    def room_for(self, client_id: str) -> int:
        """Return how many calls of a client may begin now, or within about a second."""
        now = time.monotonic()
        if self.is_open:
            return int(self.breaker.may_try(now))
        room: float = self._shares.room(self.url)
        if (client := self.clients.get(client_id)) is not None:
            room = min(room, client.allowance.turns(now, within=LOOKAHEAD) - client.waiting)
        return max(0, int(room))

    def most_for(self, client_id: str) -> int:
        """Return how many calls of a client may begin within about a second at the best of times, as far as known."""
        if self.is_open:
            return 1
        client = self.clients.get(client_id)
        rate = client.allowance.rate if client is not None else math.inf
        return math.ceil(min(rate * LOOKAHEAD, self._shares.most))

    def require(self, name: str, client_id: str) -> None:
        """Check that a call of a client may begin soon.

        Raises:
            UpstreamUnavailable: ours; with the seconds until it may.
        """
        now = time.monotonic()
        if (seconds := self.breaker.wait(now)) > 0:
            raise self._left_alone(name, seconds)
        if (seconds := self._client(client_id).wait(now)) > PATIENCE:
            raise _held_back(name, seconds)

    @asynccontextmanager
    async def call(self, *, name: str, client_id: str = "", whose: str = "") -> AsyncIterator[None]:
        """Make one call: wait for the client's turn and for a connection, and learn from what comes of it.

        Args:
            name: whom to name in an error.
            client_id: the client that asks.
            whose: the grant that it is for, if any.

        Raises:
            UpstreamUnavailable: ours, before anything was asked: it is left alone, the provider lets the client ask no
                more for now, or there was no connection for too long.
        """
        self.require(name, client_id)
        client = self._client(client_id)
        admission = self.breaker.admit(time.monotonic())
        assert admission is not None  # noqa: S101 - `require` has looked in this very instant
        try:
            async with self._begun(client, name):
                if not self.breaker.stands(admission):
                    raise self._left_alone(name, self.breaker.wait(time.monotonic()))
                begun = time.monotonic()
                try:
                    yield
                except BaseException as error:
                    self._learn(admission, client, error, begun=begun, whose=whose)
                    raise
                self._learn(admission, client, None, begun=begun, whose=whose)
        finally:
            self.breaker.done(admission, time.monotonic())

    def forgive(self) -> None:
        """Close the breaker: somebody has reason to believe that it works again."""
        self.breaker.answered()

    def is_idle(self, since: float) -> bool:
        """Tell whether nobody has used it since then."""
        return self.used_at < since and self._shares.is_idle(self.url)

    @asynccontextmanager
    async def _begun(self, client: EndpointClient, name: str) -> AsyncIterator[None]:
        """Wait for a turn, and hold a connection."""
        try:
            async with asyncio.timeout(PATIENCE):
                if client.allowance.is_limited:
                    await client.turn()
                await self._shares.take(self.url)
        except TimeoutError:
            if (seconds := client.wait(time.monotonic())) > 0:
                raise _held_back(name, seconds) from None
            raise UpstreamUnavailable(
                f"{name} is slow, and too many calls are waiting for it.", retry_after=2, trouble=Trouble.OURS
            ) from None
        try:
            yield
        finally:
            self._shares.give_back(self.url)

    def _learn(
        self, admission: Admission, client: EndpointClient, error: BaseException | None, *, begun: float, whose: str
    ) -> None:
        now = time.monotonic()
        self.used_at = client.used_at = now
        trouble = error.trouble if isinstance(error, UpstreamUnavailable) else None
        if trouble is Trouble.SILENCE or isinstance(error, TimeoutError):
            self.breaker.failed(admission, now)
        elif trouble is Trouble.LIMIT:
            self.breaker.answered()
            after = error.provider_retry_after if isinstance(error, UpstreamUnavailable) else None
            client.allowance.refused(now, begun=begun, whose=whose, retry_after=after)
        elif error is None or (trouble is None and _is_an_answer(error)):
            self.breaker.answered()
            client.allowance.accepted(now, begun=begun, whose=whose)

    def _client(self, client_id: str) -> EndpointClient:
        now = time.monotonic()
        found = self.clients.get(client_id) or EndpointClient()
        found.used_at = self.used_at = now
        self.clients[client_id] = found
        self.clients.move_to_end(client_id)
        _forget(self.clients, lambda client: client.is_idle(now - IDLE_SECONDS))
        return found

    def _left_alone(self, name: str, seconds: float) -> UpstreamUnavailable:
        return UpstreamUnavailable(
            f"{name} has not given a usable answer {self.breaker.failures} times in a row; it is tried again soon.",
            retry_after=max(1, math.ceil(seconds)),
            trouble=Trouble.OURS,
        )


class Endpoints:
    """The endpoints that this process calls. What nobody uses any more is forgotten."""

    def __init__(self, connections: int = CONNECTIONS) -> None:
        """`connections` is how many calls may be under way at once, at all of them."""
        self._by_url: OrderedDict[str, Endpoint] = OrderedDict()
        self._shares = ConnectionShares(min(connections, CONNECTIONS))

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._by_url)

    def __iter__(self) -> Iterator[Endpoint]:
        """Go through those that are remembered. Safe in any thread."""
        return iter(list(self._by_url.values()))

    def of(self, app: OutboundApp) -> Endpoint:
        """Return the endpoint that refreshes an app's grants; apps with the same URL share it."""
        return self.at(app.token_url)

    def at(self, url: str) -> Endpoint:
        """Return the endpoint at a URL. Where each connection has a host of its own, each host has its own breaker."""
        url = url.partition("?")[0]
        now = time.monotonic()
        found = self._by_url.get(url) or Endpoint(url, self._shares)
        found.used_at = now
        self._by_url[url] = found
        self._by_url.move_to_end(url)
        _forget(self._by_url, lambda endpoint: endpoint.is_idle(now - IDLE_SECONDS))
        return found


T = TypeVar("T")


def _forget(known: OrderedDict[str, T], is_idle: Callable[[T], bool]) -> None:
    """Forget what is idle among the few whose turn it is."""
    for _ in range(min(LOOKS, len(known) - 1)):
        key = next(iter(known))
        if is_idle(known[key]):
            del known[key]
        else:
            known.move_to_end(key)


def _is_an_answer(error: BaseException) -> bool:
    """Tell whether an error is what the provider answered, and not a bug, a stop, or an address that is not called."""
    return isinstance(error, EvergrantError) and not isinstance(error, EgressRefused)


def _held_back(name: str, seconds: float) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        f"{name} lets evergrant ask no more for now.", retry_after=max(1, math.ceil(seconds)), trouble=Trouble.OURS
    )
