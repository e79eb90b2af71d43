"""What is in the database, byte for byte, whatever the application says about it."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from evergrant.broker.runtime.broker import own_database_url
from evergrant.db import Base
from evergrant.db.engine import make_engine
from evergrant.settings import Settings
from tests.infra.statements import OF_A_TEST
from tests.infra.waiting import in_a_thread

NOTED_LATER = {
    ("management_keys", "last_used_at"),
    ("management_keys", "last_used_address"),
    ("trusted_issuers", "last_seen_at"),
    ("trusted_issuers", "last_kid"),
}
"""Written about once a minute, not by the call that causes it."""

WRITTEN_ANY_TIME = {"holders", "grant_events", "grant_counts", "call_records"}
"""The tables in which processes show that they are there, and what they write down within about a minute."""
NOTED_ANY_TIME = {"key.used_from_new_address", "calls.sealed"}
"""The audit records of the same notes."""

Dump = dict[str, list[dict[str, Any]]]


T = TypeVar("T")


def in_database(settings: Settings, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Do something in the database of an installation, past the application, and commit it."""

    async def run() -> T:
        engine = make_engine(own_database_url(settings)).execution_options(**{OF_A_TEST: True})
        try:
            async with engine.begin() as connection:
                return await work(connection)
        finally:
            await engine.dispose()

    return in_a_thread(run())


def dump(settings: Settings) -> Dump:
    """Return every column of every row, as the driver gives them, of the tables that only calls change."""

    async def read(connection: AsyncConnection) -> Dump:
        tables = [table.name for table in Base.metadata.sorted_tables if table.name not in WRITTEN_ANY_TIME]
        return {table: await _read(connection, table) for table in tables}

    return in_database(settings, read)


def rows(settings: Settings, table: str) -> list[dict[str, Any]]:
    """Return one table of the dump."""
    return in_database(settings, partial(_read, table=table))


async def _read(connection: AsyncConnection, table: str) -> list[dict[str, Any]]:
    found = (await connection.exec_driver_sql(f'SELECT * FROM "{table}"')).mappings()
    told = [row for row in found if row.get("action") not in NOTED_ANY_TIME]
    kept = ({k: v for k, v in row.items() if (table, k) not in NOTED_LATER} for row in told)
    # As text, record 10 would come before record 9.
    return sorted(kept, key=lambda row: (str(row.get("project_id", "")), row.get("sequence", 0), repr(row)))


def execute(settings: Settings, sql: str) -> None:
    """Change rows behind the application's back."""
    in_database(settings, lambda connection: connection.exec_driver_sql(sql))


def expire(settings: Settings, user: str, more: str = "") -> None:
    """Let a user's access tokens end; `more` is what else is set, in SQL, with `{past}` for a moment long ago."""
    past = "2020-01-01 00:00:00.000000" if settings.uses_sqlite else "2020-01-01T00:00:00Z"
    changes = "expires_at = '{past}', fresh_until = '{past}'" + more
    execute(settings, f"UPDATE grants SET {changes.format(past=past)} WHERE user_id = '{user}'")


def holders_were_last_seen_long_ago(settings: Settings) -> None:
    """Let it be long ago that whoever holds leases took them, and was there. Who is there shows it at once again."""
    past = "'2020-01-01 00:00:00.000000'"
    holders = "SELECT substr(lease_owner, 1, 16) FROM grants WHERE lease_owner IS NOT NULL"
    execute(settings, f"UPDATE holders SET beat_at = {past} WHERE id IN ({holders})")
    execute(settings, f"UPDATE grants SET lease_until = {past} WHERE lease_owner IS NOT NULL")


def is_being_written(settings: Settings) -> bool:
    """Tell whether somebody has written and not committed yet: to grants or holders; on SQLite, to anything."""
    if not settings.uses_sqlite:
        return in_database(settings, _has_writers)
    with closing(sqlite3.connect(_file_of(settings), isolation_level=None, timeout=0)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        return False


async def _has_writers(connection: AsyncConnection) -> bool:
    tables = "relation IN ('grants'::regclass, 'holders'::regclass)"
    locks = await connection.exec_driver_sql(f"SELECT 1 FROM pg_locks WHERE {tables} AND mode = 'RowExclusiveLock'")
    return locks.first() is not None


def _url_of(settings: Settings) -> str:
    return settings.database_url.get_secret_value() if settings.database_url else ""


def _file_of(settings: Settings) -> str:
    return _url_of(settings).removeprefix("sqlite:///")


@contextmanager
def writers_wait(settings: Settings, table: str) -> Iterator[None]:
    """Let nobody write to a table while the block runs, and everybody read; on SQLite that goes for every table.

    Who decides by what it has read, and writes by that alone, is found out: all of them have read before one writes.
    """
    if settings.uses_sqlite:
        with closing(sqlite3.connect(_file_of(settings), isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
        return
    url = _url_of(settings)
    loop = asyncio.new_event_loop()
    other = loop.run_until_complete(asyncpg.connect(url))
    try:
        loop.run_until_complete(other.execute(f"BEGIN; LOCK TABLE {table} IN SHARE MODE"))
        yield
    finally:
        loop.run_until_complete(other.close())
        loop.close()
