"""The pool of connections to PostgreSQL, as SQLAlchemy uses it."""

from functools import partial
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from evergrant.db.away import is_read_only
from evergrant.db.servers import COMMAND_SECONDS, Servers, hosts_of

POOL_SECONDS = 10.0
"""How long a statement waits for a connection of the pool."""
HIDE_PARAMETERS = True
"""Errors name the statement only: its parameters are people's ids and ciphertexts, and errors are logged."""


def make_postgresql_engine(url: URL, servers: Servers, *, pool_size: int, patient: bool) -> AsyncEngine:
    """Make the engine over what `servers` connects to; `evergrant.db.engine.make_engine` says what it is given."""
    connect = partial(servers.connect, command_timeout=None if patient else COMMAND_SECONDS)

    def creator() -> Any:
        # Behind a pooler, statements have no names and are not kept. The first connection finds that out.
        pooled = servers.is_pooled
        adapted = engine.dialect.dbapi.connect(  # type: ignore[union-attr]  # asyncpg's adapter, as create_async_engine
            async_creator_fn=connect,
            **({"prepared_statement_cache_size": 0, "prepared_statement_name_func": str} if pooled else {}),
        )
        if servers.is_pooled and not pooled:
            adapted.terminate()
            return creator()
        return adapted

    engine = create_async_engine(
        # SQLAlchemy reads a list of hosts in its own way, and needs none: it does not connect.
        url.difference_update_query(["host", "port"]) if hosts_of(url) else url,
        creator=creator,
        pool_size=pool_size,
        max_overflow=pool_size // 4,
        pool_timeout=None if patient else POOL_SECONDS,
        hide_parameters=HIDE_PARAMETERS,
    )
    _hide_details(engine)
    _leave_lost_connections(engine)
    return engine


def _leave_lost_connections(engine: AsyncEngine) -> None:
    """Use no connection that was closed, and none to a server that takes no writes any more.

    A closed connection is known as such without asking: the driver hears of it, and the system watches the line.
    """

    @event.listens_for(engine.sync_engine, "checkout")
    def _look(connection: Any, _record: object, _proxy: object) -> None:
        if connection.driver_connection.is_closed():
            raise DisconnectionError

    @event.listens_for(engine.sync_engine, "handle_error")
    def _leave(context: ExceptionContext) -> None:
        if is_read_only(context.original_exception):
            context.is_disconnect = True  # and with it the whole pool


def _hide_details(engine: AsyncEngine) -> None:
    """Cut off what PostgreSQL adds to the message of an error: the key that is taken, or the whole row that failed."""

    @event.listens_for(engine.sync_engine, "handle_error")
    def _forget(context: ExceptionContext) -> None:
        cause = context.original_exception.__cause__
        if isinstance(cause, asyncpg.PostgresError):
            cause.detail = None
