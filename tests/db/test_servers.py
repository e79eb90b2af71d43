"""Several PostgreSQL servers, of which one takes writes, and what becomes of connections to one that does not."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import text

from evergrant.db import grant_reader, pool
from evergrant.db.engine import Database, database_url
from evergrant.db.grant_reader import GrantReader, OwnerKey, open_grant_reader
from evergrant.db.servers import Host, Servers, hosts_of
from evergrant.errors import Busy, ConfigurationError, Unavailable
from tests.infra.cable import Cable
from tests.infra.databases import migrate
from tests.infra.pair import PostgresPair
from tests.infra.pgbouncer import PgBouncer
from tests.infra.postgres import PostgresServer
from tests.infra.statements import OF_A_TEST
from tests.infra.waiting import PATIENCE, until, wait_until

OWNER = OwnerKey("Pshop", "practice", "alice", "", "")
NAME = "evergrant"

T = TypeVar("T")


@pytest.mark.parametrize(
    ("configured", "hosts"),
    [
        ("postgresql://u:p@one:1,two:2/name?target_session_attrs=read-write", [("one", 1), ("two", 2)]),
        ("postgresql://u:p@one,two/name", [("one", 5432), ("two", 5432)]),
        ("postgresql://u:p%2C%40@[::1]:1,[fd00::2]/name?sslmode=require", [("::1", 1), ("fd00::2", 5432)]),
        ("postgresql://u:p@/name?host=one,two&port=1,2", [("one", 1), ("two", 2)]),
        ("postgresql://u:p@/name?host=one,two&port=6432", [("one", 6432), ("two", 6432)]),
        ("postgresql://u:p@/name?host=one:1&host=two:2", [("one", 1), ("two", 2)]),
        ("postgresql:///name?host=/var/run/one,/var/run/two", [("/var/run/one", 5432), ("/var/run/two", 5432)]),
        ("postgres://one,two,three/name", [("one", 5432), ("two", 5432), ("three", 5432)]),
        ("postgresql://u:p@one:1/name", []),
        ("postgresql:///name?host=/var/run", []),
    ],
)
def test_the_url_may_name_several_servers(configured: str, hosts: list[tuple[str, int]]) -> None:
    url = database_url(configured, Path())
    assert hosts_of(url) == [Host(*host) for host in hosts]
    assert url.database == "name"
    assert url.password in (None, "p", "p,@")


@pytest.mark.parametrize(
    "configured",
    [
        "postgresql://one,two:x/name",
        "postgresql://one,/name",
        "postgresql:///name?host=one,two&port=1,2,3",
        "postgresql://one,two/name?target_session_attrs=standby",
        "postgresql://one/name?target_session_attrs=read-only",
    ],
)
def test_a_url_that_names_no_server_for_writes_is_refused(configured: str) -> None:
    with pytest.raises(ConfigurationError, match="EVERGRANT_DATABASE_URL"):
        Database.at(database_url(configured, Path()))


@pytest.fixture
def pair() -> Iterator[PostgresPair]:
    with PostgresPair(NAME) as pair:
        migrate(pair.url)
        pair.primary.execute("CREATE TABLE notes (text TEXT)", database=NAME)
        yield pair


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[Database, GrantReader]]:
    parsed = database_url(url, Path())
    database = Database.at(parsed)
    reader = open_grant_reader(parsed, database.servers)
    try:
        yield database, reader
    finally:
        await reader.aclose()
        await database.dispose()


async def note(database: Database, what: str) -> None:
    async with database.write() as session:
        await session.execute(text("INSERT INTO notes VALUES (:what)"), {"what": what})


async def note_as_landing(database: Database, what: str) -> None:
    async with database.write_landing() as connection:
        await connection.execute(text("INSERT INTO notes VALUES (:what)"), {"what": what})


async def notes(database: Database) -> list[Any]:
    async with database.read() as session:
        return list(await session.scalars(text("SELECT text FROM notes ORDER BY text")))


async def again(work: Callable[[], Awaitable[T]]) -> T:
    """Do some work as soon as the database is there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await work()
        except Unavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


def reached_through(*folders: object) -> str:
    return f"postgresql://postgres@/{NAME}?host={','.join(str(folder) for folder in folders)}"


async def test_a_standby_is_passed_over_wherever_it_stands(pair: PostgresPair) -> None:
    for folders in ((pair.primary.folder, pair.standby.folder), (pair.standby.folder, pair.primary.folder)):
        async with opened(reached_through(*folders)) as (database, reader):
            await note(database, "written")
            assert await reader.latest(OWNER) is None


async def test_while_no_server_takes_writes_the_database_is_away(pair: PostgresPair) -> None:
    pair.primary.stop(immediately=True)
    async with opened(pair.url) as (database, reader):
        with pytest.raises(Unavailable):
            await note(database, "written")
        with pytest.raises(Unavailable):
            await reader.latest(OWNER)


async def test_a_promoted_standby_is_found_also_when_the_old_primary_is_back_as_a_standby(pair: PostgresPair) -> None:
    async with opened(pair.url) as (database, reader):
        await note(database, "before")
        assert await reader.latest(OWNER) is None
        pair.primary.stop(immediately=True)
        pair.primary.start_read_only()
        pair.standby.promote()
        assert await again(lambda: reader.latest(OWNER)) is None
        await again(lambda: note(database, "promoted"))
        assert await notes(database) == ["before", "promoted"]
    assert pair.standby.execute("SELECT * FROM notes", database=NAME) == "before\npromoted"


async def test_a_primary_that_stops_taking_writes_with_its_connections_open_is_left(pair: PostgresPair) -> None:
    async with opened(pair.url) as (database, _):
        await asyncio.gather(*(note(database, f"before {n}") for n in range(4)))
        pair.primary.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        pair.primary.execute("SELECT pg_reload_conf()")
        reading = "SELECT setting FROM pg_settings WHERE name = 'default_transaction_read_only'"
        wait_until(lambda: pair.primary.execute(reading) == "on", "the primary takes no writes")
        pair.standby.promote()
        await again(lambda: note(database, "after"))  # where it were not left, for ever in vain
    assert pair.standby.execute("SELECT * FROM notes WHERE text = 'after'", database=NAME) == "after"


async def test_a_primary_that_says_nothing_any_more_is_left(
    pair: PostgresPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grant_reader, "READ_SECONDS", 2)
    cable = Cable(pair.primary)
    try:
        near_end = cable.url("").partition("host=")[2]
        async with opened(reached_through(near_end, pair.standby.folder)) as (database, reader):
            await asyncio.gather(*(note(database, f"before {n}") for n in range(4)), reader.latest(OWNER))
            await note_as_landing(database, "before")
            cable.hang()
            hangs = asyncio.create_task(note_as_landing(database, "in between"))
            with pytest.raises(Unavailable):
                await reader.latest(OWNER)
            assert not hangs.done()
            pair.standby.promote()
            database.cut()
            with pytest.raises(Unavailable):
                await hangs
            assert await again(lambda: reader.latest(OWNER)) is None
            await again(lambda: note(database, "after"))
            assert pair.standby.execute("SELECT * FROM notes WHERE text = 'after'", database=NAME) == "after"
    finally:
        cable.remove()


async def test_a_landing_keeps_its_place_before_a_lock_for_longer_than_other_statements_may_take(
    pair: PostgresPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "COMMAND_SECONDS", 0.5)
    async with opened(pair.url) as (database, _):
        await note_as_landing(database, "before")
        async with database.write() as session:
            _ = await session.connection(execution_options={OF_A_TEST: True})
            await session.execute(text("LOCK TABLE notes"))
            landing = asyncio.create_task(note_as_landing(database, "landed"))
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            await until(lambda: pair.primary.execute(waiting) == "1", "the landing waits for the lock")
            with pytest.raises(Unavailable):
                await note(database, "given up")
            assert not landing.done()
        await landing
        assert await notes(database) == ["before", "landed"]


async def test_a_queue_for_landings_is_no_outage(pair: PostgresPair) -> None:
    """More landings than there are connections for them, all of them behind a lock."""
    async with opened(pair.url) as (database, _):
        async with database.write() as session:
            _ = await session.connection(execution_options={OF_A_TEST: True})
            await session.execute(text("LOCK TABLE notes"))
            landings = [asyncio.create_task(note_as_landing(database, f"{n:02}")) for n in range(30)]
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            await until(lambda: pair.primary.execute(waiting) == "10", "as many wait as there are connections")
        await asyncio.gather(*landings)
        assert await notes(database) == [f"{n:02}" for n in range(30)]


async def test_a_deadlock_is_no_outage(pair: PostgresPair) -> None:
    async with opened(pair.url) as (database, _):
        for name in ("one", "two"):
            await note(database, name)

        async def lock(first: str, second: str, locked: asyncio.Event, other: asyncio.Event) -> None:
            async with database.write() as session:
                statement = text("UPDATE notes SET text = text WHERE text = :name")
                await session.execute(statement, {"name": first})
                locked.set()
                await other.wait()
                await session.execute(statement, {"name": second})

        a, b = asyncio.Event(), asyncio.Event()
        ends = await asyncio.gather(lock("one", "two", a, b), lock("two", "one", b, a), return_exceptions=True)
        assert {type(end) for end in ends} == {type(None), Busy}


async def test_readers_do_not_notice_that_the_server_was_restarted_while_they_were_idle(pair: PostgresPair) -> None:
    pair.primary.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
    async with opened(reached_through(pair.primary.folder)) as (database, reader):
        await asyncio.gather(*(reader.latest(OWNER) for _ in range(8)))
        await asyncio.gather(*(notes(database) for _ in range(8)))
        pair.primary.stop()
        pair.primary.start()
        assert await asyncio.gather(*(reader.latest(OWNER) for _ in range(8))) == [None] * 8
        assert await asyncio.gather(*(notes(database) for _ in range(8))) == [[]] * 8


async def test_the_system_watches_connections_over_a_network(postgres_server: PostgresServer) -> None:
    """A machine that is unplugged closes nothing, and a statement on its way there would wait for a quarter hour."""
    with PgBouncer(postgres_server, mode="session") as over_tcp:
        connection = await Servers(database_url(over_tcp.url("postgres"), Path())).connect()
        line = connection._transport.get_extra_info("socket")
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 6000
        await connection.close()
