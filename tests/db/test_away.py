"""What errors of the database mean: it is away, it is busy, or something is wrong with what was asked."""

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from threading import enumerate as enumerate_threads

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from evergrant.broker.runtime.broker import open_database
from evergrant.db import engine as engines
from evergrant.db.engine import Database, database_url
from evergrant.errors import Busy, Unavailable
from evergrant.settings import Settings
from tests.infra.statements import OF_A_TEST
from tests.infra.waiting import until

AWAY = ["08006", "08P01", "25006", "28000", "28P01", "3D000", "53100", "53300", "57P01", "57P02", "57P03", "58030"]
BUSY = ["40001", "40P01", "55P03", "57014"]
WRONG = ["22001", "22P02", "23505", "42P01", "42703", "42501", "42P05", "25P02", "XX000"]


@pytest.mark.parametrize(
    ("state", "meaning"),
    [(s, Unavailable) for s in AWAY] + [(s, Busy) for s in BUSY] + [(s, DBAPIError) for s in WRONG],
)
async def test_a_state_of_postgresql_means(postgresql_url: str, state: str, meaning: type[Exception]) -> None:
    database = Database.at(database_url(postgresql_url, Path()))
    with pytest.raises(meaning) as raised:
        await _raise(database, state)
    assert type(raised.value) is meaning or meaning is DBAPIError
    await database.ping()
    await database.dispose()


async def _raise(database: Database, state: str) -> None:
    async with database.write() as session:
        _ = await session.connection(execution_options={OF_A_TEST: True})
        await session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'said' USING ERRCODE = '{state}'; END $$"))


async def test_a_value_that_the_driver_cannot_send_is_no_outage(postgresql_url: str) -> None:
    database = Database.at(database_url(postgresql_url, Path()))
    with pytest.raises(SQLAlchemyError):
        async with database.write() as session:
            await session.execute(
                text("UPDATE grants SET expires_at = CAST(:at AS timestamptz) WHERE id = CAST(:id AS text)"),
                {"at": "yesterday", "id": datetime(2026, 11, 26)},  # noqa: DTZ001 - a naive one is the point
            )
    await database.dispose()


async def test_a_file_that_another_program_locks_is_busy(
    sqlite_url: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "SQLITE_BUSY_SECONDS", 0.1)
    database = Database.at(database_url(sqlite_url, data_dir))
    with closing(sqlite3.connect(data_dir / "evergrant.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Busy):
            async with database.write() as session:
                await session.execute(text("DELETE FROM grants"))
    await database.dispose()


async def test_a_folder_that_is_not_there_is_an_outage_of_sqlite(data_dir: Path) -> None:
    before = set(enumerate_threads())  # an installation that other tests share has some of its own
    database = Database.at(database_url(f"sqlite:///{data_dir}/nowhere/evergrant.db", data_dir))
    with pytest.raises(Unavailable) as raised:
        await database.ping()
    assert not isinstance(raised.value, Busy)
    await database.dispose()
    # The driver does not wait for the thread of a connection that could not be made.
    await until(
        lambda: not any("_connection_worker" in one.name for one in set(enumerate_threads()) - before), "it has ended"
    )


async def test_a_table_that_is_not_there_is_no_outage(settings: Settings) -> None:
    database = open_database(settings)
    with pytest.raises(DBAPIError):
        async with database.write() as session:
            await session.execute(text("DELETE FROM nowhere"))
    await database.dispose()
