"""Remembers the addresses of names, and asks for each name once at a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from evergrant.networks import Address
from evergrant.oauth2.lookups import LookupsBusy

GOOD_SECONDS = 30.0
"""A name that was found is not looked up again for so long."""
BAD_SECONDS = 10.0
"""The same for one that could not be looked up."""
LAST_RESORT_SECONDS = 600.0
"""Addresses that were found so long ago at most are used while the resolver is silent or knows no others."""
PATIENCE_SECONDS = 0.5
"""How long the resolver may take where there are such addresses."""
MOST_NAMES = 20_000

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


class NameNotFound(Exception):
    """A name has no address, or the resolver cannot tell; the message continues "cannot be reached: "."""


@dataclass(frozen=True, slots=True)
class _Known:
    addresses: Sequence[Address]
    """None where it could not be looked up."""
    found_at: float
    ask_again_at: float


class NameCache:
    """Addresses by name. Whether an address may be called is for the caller to check, each time that it connects."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._known: dict[str, _Known] = {}
        self._lookups: dict[str, asyncio.Task[LookupsBusy | None]] = {}

    async def addresses(self, host: str, port: int) -> Sequence[Address]:
        """Return the addresses of `host`, best first, at least one.

        Raises:
            NameNotFound: there is none, as far as is known. LookupsBusy: it could not be asked for.
        """
        now = time.monotonic()
        known = self._known.get(host)
        if known is None or now >= known.ask_again_at:
            lookup = self._lookups.get(host) or self._begin(host, port)
            has_others = known is not None and known.addresses and now < known.found_at + LAST_RESORT_SECONDS
            await asyncio.wait({lookup}, timeout=PATIENCE_SECONDS if has_others else None)
            if has_others and (not lookup.done() or lookup.result() is not None):
                assert known is not None  # noqa: S101 - for the type checker
                self._keep(host, _Known(known.addresses, known.found_at, time.monotonic() + BAD_SECONDS))
            elif (busy := lookup.result()) is not None:
                raise busy
            known = self._known[host]
        if not known.addresses:
            raise NameNotFound("the name does not resolve")
        return known.addresses

    def doubt(self, host: str) -> None:
        """Have a name looked up again at its next use: none of its addresses took a connection."""
        known = self._known.get(host)
        if known is not None and known.addresses:
            self._known[host] = _Known(known.addresses, known.found_at, time.monotonic())

    async def aclose(self) -> None:
        """End the lookups under way."""
        lookups = tuple(self._lookups.values())
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)

    def _begin(self, host: str, port: int) -> "asyncio.Task[LookupsBusy | None]":
        lookup = asyncio.create_task(self._look_up(host, port))
        self._lookups[host] = lookup
        lookup.add_done_callback(lambda _: self._lookups.pop(host, None))
        return lookup

    async def _look_up(self, host: str, port: int) -> LookupsBusy | None:
        """Look a name up, and remember what came of it."""
        addresses: Sequence[Address] = ()
        try:
            addresses = await self._resolve(host, port)
        except LookupsBusy as busy:
            return busy
        except (OSError, UnicodeError):
            pass
        now = time.monotonic()
        before = self._known.get(host)
        if addresses:
            self._keep(host, _Known(addresses, now, now + GOOD_SECONDS))
        elif before is not None and now < before.found_at + LAST_RESORT_SECONDS:
            self._keep(host, _Known(before.addresses, before.found_at, now + BAD_SECONDS))
        else:
            self._keep(host, _Known((), now, now + BAD_SECONDS))
        return None

    def _keep(self, host: str, known: _Known) -> None:
        self._known.pop(host, None)  # so that the oldest is always the first
        self._known[host] = known
        if len(self._known) > MOST_NAMES:
            del self._known[next(iter(self._known))]
