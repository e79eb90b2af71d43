"""The one narrow reader of the hot row: what a token fetch needs, as cheaply as each driver can give it.

Everything else goes through SQLAlchemy sessions. This does not, because building a statement, checking a connection
out and BEGIN/ROLLBACK cost several times what the lookup itself does. The SQL is still generated from the table, once,
so the schema has one source.
"""

import asyncio
import json
import sqlite3
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import asyncpg
from sqlalchemy import Select, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Dialect

from evergrant.crypto.sealed import Sealed
from evergrant.db.engine import connect_postgresql
from evergrant.db.grant import Grant, GrantStatus
from evergrant.errors import Unavailable


class GrantView(NamedTuple):
    """The columns of a grant that an answer is made of, in the order in which they are read."""

    id: str
    app_id: str
    user_id: str
    tenant_id: str
    external_identifier: str
    scopes: list[str]
    token_sub: str
    granted_by: str
    access_token: Sealed | None
    access_token_type: str
    refresh_token: Sealed | None
    expires_at: datetime | None
    fresh_until: datetime | None
    last_refresh_time: datetime | None
    last_refresh_error: str
    token_version: int
    last_fetched_at: datetime | None
    details: dict[str, str]

    @classmethod
    def of(cls, grant: Grant) -> "GrantView":
        """Take the same columns from a row that was read through a session."""
        return cls(*(getattr(grant, name) for name in cls._fields))


class OwnerKey(NamedTuple):
    """Whose grants of which app: the prefix of the owner index, in its order."""

    project_id: str
    app_id: str
    user_id: str
    tenant_id: str
    external_identifier: str


class GrantReader(Protocol):
    """Reads the usable grant that answers a fetch."""

    async def by_scopes(self, owner: OwnerKey, scope_key: str) -> GrantView | None:
        """Return the owner's active grant with exactly these scopes."""

    async def latest(self, owner: OwnerKey) -> GrantView | None:
        """Return the owner's most recently consented active grant."""

    async def aclose(self) -> None:
        """Give the connections back."""


def _statements(dialect: Dialect) -> tuple[str, str]:
    columns = [getattr(Grant, name) for name in GrantView._fields]
    owner = [getattr(Grant, name) == bindparam(name) for name in OwnerKey._fields]
    latest = (
        select(*columns)
        .where(*owner, Grant.status == bindparam("status"))
        # No LIMIT: both drivers stop after the first row, and each dialect would number LIMIT's parameters its own way.
        .order_by(Grant.consented_at.desc())
    )
    by_scopes = latest.where(Grant.scope_key == bindparam("scope_key"))
    return _compile(by_scopes, dialect, with_scopes=True), _compile(latest, dialect, with_scopes=False)


def _compile(statement: Select[Any], dialect: Dialect, *, with_scopes: bool) -> str:
    compiled = statement.compile(dialect=dialect)
    expected = [*OwnerKey._fields, "status", *(["scope_key"] if with_scopes else [])]
    # The arguments are passed by position; if SQLAlchemy ever numbers them otherwise, fail at start, not in a query.
    if list(getattr(compiled, "positiontup", None) or []) != expected:
        raise AssertionError("the order of the hot statement's parameters is not the expected one")
    return str(compiled)


_BROKEN = (asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg itself says of a connection that the server closes under its feet."""


class PostgresGrantReader:
    """Reads over a few connections of its own, held between requests."""

    def __init__(self, url: URL, *, size: int = 8) -> None:
        self._url = url
        dialect = postgresql.asyncpg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it unannotated
        self._by_scopes, self._latest = _statements(dialect)
        self._idle: list[asyncpg.Connection] = []
        self._slots = asyncio.Semaphore(size)

    async def by_scopes(self, owner: OwnerKey, scope_key: str) -> GrantView | None:
        """Return the owner's active grant with exactly these scopes."""
        return await self._one(self._by_scopes, (*owner, GrantStatus.ACTIVE.value, scope_key))

    async def latest(self, owner: OwnerKey) -> GrantView | None:
        """Return the owner's most recently consented active grant."""
        return await self._one(self._latest, (*owner, GrantStatus.ACTIVE.value))

    async def _one(self, sql: str, arguments: tuple[object, ...]) -> GrantView | None:
        async with self._slots:
            while self._idle:
                connection = self._idle.pop()
                if connection.is_closed():
                    continue
                try:
                    return _postgres_view(await self._fetch(connection, sql, arguments))
                except (asyncpg.PostgresConnectionError, *_BROKEN, OSError):
                    # The server closed it while it lay idle (a restart, a failover): reading again is harmless.
                    continue
            try:
                connection = await connect_postgresql(self._url)
                return _postgres_view(await self._fetch(connection, sql, arguments))
            except (asyncpg.PostgresError, *_BROKEN, OSError) as error:
                raise Unavailable from error

    async def _fetch(
        self, connection: asyncpg.Connection, sql: str, arguments: tuple[object, ...]
    ) -> asyncpg.Record | None:
        try:
            record = await connection.fetchrow(sql, *arguments)
        except BaseException:
            # Also when the caller hung up: the connection may be in the middle of an answer.
            connection.terminate()
            raise
        self._idle.append(connection)
        return record

    async def aclose(self) -> None:
        """Close the held connections."""
        while self._idle:
            await self._idle.pop().close()


def _postgres_view(record: asyncpg.Record | None) -> GrantView | None:
    if record is None:
        return None
    values = list(record)
    values[5] = json.loads(values[5])
    values[8] = Sealed(values[8]) if values[8] is not None else None
    values[10] = Sealed(values[10]) if values[10] is not None else None
    values[17] = json.loads(values[17]) if values[17] != "{}" else {}
    return GrantView(*values)


class SqliteGrantReader:
    """Reads in the event loop: an indexed lookup in a local file is faster than handing it to a thread."""

    def __init__(self, path: str) -> None:
        self._by_scopes, self._latest = _statements(sqlite.dialect())
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
        self._connection.execute("PRAGMA query_only = ON")

    async def by_scopes(self, owner: OwnerKey, scope_key: str) -> GrantView | None:
        """Return the owner's active grant with exactly these scopes."""
        return self._one(self._by_scopes, (*owner, GrantStatus.ACTIVE.value, scope_key))

    async def latest(self, owner: OwnerKey) -> GrantView | None:
        """Return the owner's most recently consented active grant."""
        return self._one(self._latest, (*owner, GrantStatus.ACTIVE.value))

    def _one(self, sql: str, arguments: tuple[object, ...]) -> GrantView | None:
        try:
            row = self._connection.execute(sql, arguments).fetchone()
        except sqlite3.OperationalError as error:
            raise Unavailable from error
        if row is None:
            return None
        values = list(row)
        values[5] = json.loads(values[5])
        values[8] = Sealed(values[8]) if values[8] is not None else None
        values[10] = Sealed(values[10]) if values[10] is not None else None
        for index in (11, 12, 13, 16):
            if values[index] is not None:
                values[index] = datetime.fromisoformat(values[index]).replace(tzinfo=UTC)
        values[17] = json.loads(values[17]) if values[17] != "{}" else {}
        return GrantView(*values)

    async def aclose(self) -> None:
        """Close the connection."""
        self._connection.close()


def open_grant_reader(url: URL) -> GrantReader:
    """Make the reader for the database behind `url`. Nothing connects yet on PostgreSQL."""
    if url.get_backend_name() == "sqlite":
        return SqliteGrantReader(url.database or "")
    return PostgresGrantReader(url)
