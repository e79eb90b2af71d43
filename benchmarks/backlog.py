"""The grants of a sweep's benchmark: makes them due, and counts what was stored."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Table, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.seed import APP_ID, settle
from evergrant import clock
from evergrant.broker.runtime.broker import own_database_url
from evergrant.db import Grant
from evergrant.db.engine import make_engine
from evergrant.settings import Settings

T = TypeVar("T")
GRANTS: Table = Grant.metadata.tables["grants"]
OURS = GRANTS.c.app_id == APP_ID
"""Those with tokens that can be opened. There may be millions of others."""


class Backlog:
    """A backlog that can be filled again. It works on an event loop of its own, so that its callers need none."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._engine = make_engine(own_database_url(settings))
        self._loop = asyncio.new_event_loop()

    def empty(self) -> None:
        """Let no grant be due, and tidy up after the turn before."""
        self._run(self._set(clock.now() + timedelta(days=1), tidy=True))

    def fill(self) -> None:
        """Make every grant due, in one moment."""
        self._run(self._set(clock.now() - timedelta(seconds=5), tidy=False))

    async def _set(self, due: datetime, *, tidy: bool) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(update(GRANTS).where(OURS).values(next_refresh_at=due))
        if tidy and self._engine.dialect.name == "postgresql":
            await settle(self._engine.url)

    def stored(self) -> int:
        """Return how often tokens were stored, ever."""

        async def count(connection: AsyncConnection) -> int:
            return int((await connection.execute(select(func.sum(GRANTS.c.token_version)).where(OURS))).scalar_one())

        return self._run(self._with_connection(count))

    def waiting(self) -> int:
        """Return how many grants are due."""
        return self._count(GRANTS.c.next_refresh_at <= clock.now())

    def failed(self) -> int:
        """Return how many grants could not be refreshed."""
        return self._count(GRANTS.c.last_refresh_error != "")

    def _count(self, which: ColumnElement[bool]) -> int:
        async def count(connection: AsyncConnection) -> int:
            return int((await connection.execute(select(func.count()).where(OURS, which))).scalar_one())

        return self._run(self._with_connection(count))

    def close(self) -> None:
        self._run(self._engine.dispose())
        self._loop.close()

    async def _with_connection(self, what: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._engine.connect() as connection:
            return await what(connection)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)
