"""A call from its first check to the end of its answer: counted, watched, and in the log however it ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType

from evergrant import clock
from evergrant.broker.access.agent_sessions import require_still_good
from evergrant.broker.calls.asked import CallAnswer
from evergrant.broker.calls.cleaned import cleaned
from evergrant.broker.calls.outgoing import PreparedCall
from evergrant.broker.calls.redirects import followed
from evergrant.broker.calls.retries import StandingAnswer, answered
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.broker.runtime.unwritten_calls import Call
from evergrant.errors import AuthenticationFailed, EvergrantError, RateLimited

STILL_GOOD_SECONDS = 1.0
"""How often it is looked whether the session of an open call is still good. What is looked at is a second old at most,
so a call that is open goes on for no more than two."""


class CallUnderWay:
    """An `async with` that makes a call and gives its answer. No generator: each costs the loop as much as a check.

    `prepare` checks the call, says by `begin` whose it is, and returns it as it may be made. Raises as `calls.call`.
    """

    __slots__ = ("_began", "_broker", "_entry", "_owner", "_prepare", "_prepared", "_principal", "_standing", "_watch")

    def __init__(
        self,
        broker: Broker,
        principal: Principal,
        entry: Call,
        prepare: "Callable[[CallUnderWay], Awaitable[PreparedCall]]",
    ) -> None:
        self._broker, self._principal, self._entry, self._prepare = broker, principal, entry, prepare
        self._began = 0.0
        self._owner: tuple[str, str, str] | None = None
        """Of whose calls it is counted as one."""
        self._prepared: PreparedCall | None = None
        self._standing: StandingAnswer | None = None
        self._watch: AbstractAsyncContextManager[None] | None = None

    def begin(self, owner: ResourceOwner) -> None:
        """Count it as one of an owner's.

        Raises:
            RateLimited: there are too many.
        """
        broker, entry = self._broker, self._entry
        entry.user_id, entry.tenant_id = owner.user_id, owner.tenant_id
        whose = (self._principal.project_id, owner.user_id, owner.tenant_id)
        broker.limits.owners.take(whose)
        broker.calls_in_flight.begin(whose)
        self._owner = whose

    async def __aenter__(self) -> CallAnswer:
        self._began = time.perf_counter()
        try:
            self._prepared = prepared = await self._prepare(self)
            principal = self._principal
            if principal.session is not None or principal.expires_at is not None:
                watch = _watched(self._broker, principal)
                await watch.__aenter__()
                self._watch = watch
            self._standing = standing = await followed(prepared, await answered(prepared))
            self._entry.source, self._entry.status = "provider", standing.answer.status
            return await cleaned(prepared, standing)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._standing is not None:
                self._standing.answer.end()
            if self._watch is not None:
                await self._watch.__aexit__(kind, error, trace)
        except BaseException as other:
            error = other
            raise
        finally:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Note the call, however it has ended; but who asks too much does not fill the log with it."""
        broker, entry = self._broker, self._entry
        if self._owner is not None:
            broker.calls_in_flight.end(self._owner)
        if error is None and self._prepared is not None:
            entry.bytes_sent = self._prepared.body.sent
        if isinstance(error, EvergrantError) and not entry.source:
            entry.source, entry.status, entry.code = "evergrant", error.status, error.code
        entry.ms = round((time.perf_counter() - self._began) * 1000)
        if entry.is_written_ahead or not isinstance(error, RateLimited):
            broker.calls.note(entry)


@asynccontextmanager
async def _watched(broker: Broker, principal: Principal) -> AsyncIterator[None]:
    """End the block where the caller's session ends while it lasts.

    Raises:
        AuthenticationFailed: it did.
    """
    loop, looks = asyncio.get_running_loop(), list[asyncio.Task[None]]()

    async def look() -> None:
        while True:
            try:
                await require_still_good(broker, principal, now=clock.now())
            except AuthenticationFailed:
                scope.reschedule(loop.time())
                return
            except EvergrantError:  # our own bad minute: the next look tells
                pass
            await asyncio.sleep(STILL_GOOD_SECONDS)

    # Most calls are over by then, and cost no task.
    begins = loop.call_later(STILL_GOOD_SECONDS, lambda: looks.append(loop.create_task(look())))
    try:
        async with asyncio.timeout(None) as scope:
            try:
                yield
            finally:
                begins.cancel()
                for task in looks:
                    task.cancel()
    except TimeoutError:
        if not scope.expired():
            raise
        raise AuthenticationFailed("This session is over.") from None
