"""The one narrow reader of the hot row: what a token fetch needs, as cheaply as each driver can give it.

Everything else goes through SQLAlchemy sessions. This does not, because building a statement, checking a connection
out and BEGIN/ROLLBACK cost several times what the lookup itself does. The SQL is still generated from the table, once,
so the schema has one source.
"""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import asyncpg
from sqlalchemy import ARRAY, JSON, Select, String, and_, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Dialect

from evergrant.crypto.sealed import Sealed
from evergrant.db.away import meaning_of, translated
from evergrant.db.engine import SQLITE_CACHE
from evergrant.db.grant import Grant, GrantStatus
from evergrant.db.servers import Servers
from evergrant.db.types import SealedBytes, UtcDateTime


class GrantView(NamedTuple):
    """The columns of a grant that an answer is made of. They are read in this order, which has no other meaning."""

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

    async def of_every_account(self, owner: OwnerKey) -> list[GrantView]:
        """Return the owner's active grants, whichever their external identifiers, the latest consent first."""

    async def aclose(self) -> None:
        """Give the connections back."""


def _statements(dialect: Dialect) -> tuple[str, str, str]:
    columns = [getattr(Grant, name) for name in GrantView._fields]
    owner = [getattr(Grant, name) == bindparam(name) for name in OwnerKey._fields]
    latest = (
        select(*columns)
        .where(*owner, Grant.status == bindparam("status"))
        # No LIMIT: both drivers stop after the first row, and each dialect would number LIMIT's parameters its own way.
        .order_by(Grant.consented_at.desc())
    )
    by_scopes = latest.where(Grant.scope_key == bindparam("scope_key"))
    every = select(*columns).where(*owner[:-1], Grant.status == bindparam("status")).order_by(Grant.consented_at.desc())
    names = OwnerKey._fields
    return (
        _compile(by_scopes, dialect, (*names, "status", "scope_key")),
        _compile(latest, dialect, (*names, "status")),
        _compile(every, dialect, (*names[:-1], "status")),
    )


def _statement_for_several(dialect: Dialect) -> str:
    """Make the statement for the grants of several owners with exactly their scopes, each with its number from 1."""
    names = (*OwnerKey._fields, "scope_key")
    lists = [bindparam(name, type_=ARRAY(String)) for name in names]
    wanted = func.unnest(*lists).table_valued(*names, with_ordinality="number").render_derived(name="wanted")
    several = (
        select(wanted.c.number, *(getattr(Grant, name) for name in GrantView._fields))
        .select_from(wanted)
        .join(Grant, and_(*(getattr(Grant, name) == wanted.c[name] for name in names)))
        .where(Grant.status == bindparam("status"))
        .order_by(Grant.consented_at.desc())
    )
    return _compile(several, dialect, (*names, "status"))


def _compile(statement: Select[Any], dialect: Dialect, expected: tuple[str, ...]) -> str:
    compiled = statement.compile(dialect=dialect)
    # The arguments are passed by position; if SQLAlchemy ever numbers them otherwise, fail at start, not in a query.
    if tuple(getattr(compiled, "positiontup", None) or ()) != expected:
        raise AssertionError("the order of the hot statement's parameters is not the expected one")
    return str(compiled)


_read_json = json.JSONDecoder().raw_decode  # half of what json.loads costs, which also looks for what is not there


def _decode_json(text: str) -> Any:
    return _read_json(text)[0] if text != "{}" else {}


def _decode_sqlite_instant(text: str) -> datetime:
    return datetime.fromisoformat(text + "+00:00")  # SQLite keeps no time zone; replace() costs several times as much


_DECODERS: Mapping[type, Callable[[Any], Any]] = {JSON: _decode_json, SealedBytes: Sealed}
"""What a driver's value becomes, by the type of its column in the table."""
_SQLITE_DECODERS = {**_DECODERS, UtcDateTime: _decode_sqlite_instant}


class _Decoder:
    """Makes views from a driver's rows."""

    def __init__(self, by_type: Mapping[type, Callable[[Any], Any]]) -> None:
        types = [type(Grant.__table__.columns[name].type) for name in GrantView._fields]
        self._decoders = [(at, by_type[kind]) for at, kind in enumerate(types) if kind in by_type]

    def view(self, row: Sequence[Any]) -> GrantView:
        values = list(row)
        for at, decode in self._decoders:
            if values[at] is not None:
                values[at] = decode(values[at])
        return GrantView._make(values)


READ_SECONDS = 5.0
"""How long a fetch waits for its row, whatever keeps it."""
MOST_AT_ONCE = 64
"""How many rows one statement looks up at most."""


class _Asked(NamedTuple):
    """A grant that is waited for, by owner and scopes."""

    key: tuple[str, ...]
    answer: asyncio.Future[GrantView | None]


class PostgresGrantReader:
    """Reads over a few connections of its own, held between requests."""

    def __init__(self, servers: Servers, *, size: int = 8) -> None:
        self._servers = servers
        dialect = postgresql.asyncpg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it unannotated
        self._by_scopes, self._latest, self._of_every_account = _statements(dialect)
        self._of_several = _statement_for_several(dialect)
        self._decoder = _Decoder(_DECODERS)
        self._asked: list[_Asked] = []
        self._readings: set[asyncio.Task[None]] = set()
        self._idle: list[asyncpg.Connection] = []
        self._slots = asyncio.Semaphore(size)

    async def by_scopes(self, owner: OwnerKey, scope_key: str) -> GrantView | None:
        """Return the owner's active grant with exactly these scopes.

        Those who ask in the same turn of the event loop are answered by one statement: on a busy server, half of what
        a fetch costs is sending a statement and taking its answer.
        """
        loop = asyncio.get_running_loop()
        asked = _Asked((*owner, scope_key), loop.create_future())
        self._asked.append(asked)
        if len(self._asked) == 1:
            loop.call_soon(self._read_asked)
        return await asked.answer

    def _read_asked(self) -> None:
        while self._asked:
            some, self._asked = self._asked[:MOST_AT_ONCE], self._asked[MOST_AT_ONCE:]
            reading = asyncio.get_running_loop().create_task(self._answer(some))
            self._readings.add(reading)
            reading.add_done_callback(self._readings.discard)

    async def _answer(self, some: Sequence[_Asked]) -> None:
        """Read what was asked for together. Whoever hung up meanwhile is told nothing, and is in nobody's way."""
        found: dict[int, GrantView] = {}
        try:
            if len(some) == 1:
                *owner, scope_key = some[0].key
                view = await self._one(self._by_scopes, (*owner, GrantStatus.ACTIVE.value, scope_key))
                found = {1: view} if view is not None else {}
            else:
                arguments = (*map(list, zip(*(asked.key for asked in some), strict=True)), GrantStatus.ACTIVE.value)
                for number, *row in await self._read(asyncpg.Connection.fetch, self._of_several, arguments):
                    found.setdefault(number, self._decoder.view(row))
        except BaseException as error:
            for asked in some:
                if not asked.answer.done():
                    asked.answer.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for number, asked in enumerate(some, 1):
            if not asked.answer.done():
                asked.answer.set_result(found.get(number))

    async def latest(self, owner: OwnerKey) -> GrantView | None:
        """Return the owner's most recently consented active grant."""
        return await self._one(self._latest, (*owner, GrantStatus.ACTIVE.value))

    async def of_every_account(self, owner: OwnerKey) -> list[GrantView]:
        """Return the owner's active grants, whichever their external identifiers, the latest consent first."""
        arguments = (*owner[:-1], GrantStatus.ACTIVE.value)
        records = await self._read(asyncpg.Connection.fetch, self._of_every_account, arguments)
        return [self._decoder.view(record) for record in records]

    async def _one(self, sql: str, arguments: tuple[object, ...]) -> GrantView | None:
        record = await self._read(asyncpg.Connection.fetchrow, sql, arguments)
        return self._decoder.view(record) if record is not None else None

    async def _read(self, read: Callable[..., Awaitable[Any]], sql: str, arguments: tuple[object, ...]) -> Any:
        try:
            async with asyncio.timeout(READ_SECONDS), self._slots:
                while self._idle:
                    connection = self._idle.pop()
                    if connection.is_closed():
                        continue
                    try:
                        return await self._fetch(read, connection, sql, arguments)
                    except (
                        asyncpg.PostgresError,
                        asyncpg.InterfaceError,
                        asyncpg.InternalClientError,
                        OSError,
                    ) as error:
                        # The server closed it while it lay idle (a restart, a failover): reading again is harmless.
                        if meaning_of(error) is None:
                            raise
                return await self._fetch(read, await self._servers.connect(), sql, arguments)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                self._drop_idle()  # what kept us may have closed nothing: the others lead to where this one does
            if (meaning := meaning_of(error)) is None:
                raise
            raise meaning from error

    async def _fetch(
        self,
        read: Callable[..., Awaitable[Any]],
        connection: asyncpg.Connection,
        sql: str,
        arguments: tuple[object, ...],
    ) -> Any:
        try:
            found = await read(connection, sql, *arguments)
        except BaseException:
            # Also when the caller hung up: the connection may be in the middle of an answer.
            connection.terminate()
            raise
        self._idle.append(connection)
        return found

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().terminate()

    async def aclose(self) -> None:
        """Close the held connections."""
        while self._idle:
            await self._idle.pop().close()


class SqliteGrantReader:
    """Reads in the event loop: an indexed lookup in a local file is faster than handing it to a thread."""

    def __init__(self, path: str) -> None:
        self._by_scopes, self._latest, self._of_every_account = _statements(sqlite.dialect())
        self._decoder = _Decoder(_SQLITE_DECODERS)
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.execute(SQLITE_CACHE)

    async def by_scopes(self, owner: OwnerKey, scope_key: str) -> GrantView | None:
        """Return the owner's active grant with exactly these scopes."""
        return self._one(self._by_scopes, (*owner, GrantStatus.ACTIVE.value, scope_key))

    async def latest(self, owner: OwnerKey) -> GrantView | None:
        """Return the owner's most recently consented active grant."""
        return self._one(self._latest, (*owner, GrantStatus.ACTIVE.value))

    async def of_every_account(self, owner: OwnerKey) -> list[GrantView]:
        """Return the owner's active grants, whichever their external identifiers, the latest consent first."""
        with translated():
            arguments = (*owner[:-1], GrantStatus.ACTIVE.value)
            rows = self._connection.execute(self._of_every_account, arguments).fetchall()
        return [self._decoder.view(row) for row in rows]

    def _one(self, sql: str, arguments: tuple[object, ...]) -> GrantView | None:
        with translated():
            row = self._connection.execute(sql, arguments).fetchone()
        return self._decoder.view(row) if row is not None else None

    async def aclose(self) -> None:
        """Close the connection."""
        self._connection.close()


def open_grant_reader(url: URL, servers: Servers | None = None) -> GrantReader:
    """Make the reader for the database behind `url`. Nothing connects yet on PostgreSQL, where `servers` does."""
    if url.get_backend_name() == "sqlite":
        return SqliteGrantReader(url.database or "")
    return PostgresGrantReader(servers or Servers(url))
