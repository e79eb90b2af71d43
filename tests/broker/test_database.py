"""The database itself: what its connections are told, and what its errors keep to themselves."""

import traceback
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from evergrant.broker.runtime.broker import open_broker
from evergrant.crypto.kms.local import new_master_key
from evergrant.settings import Settings


async def test_sqlite_writes_through_to_the_disk_and_keeps_references_whole(sqlite_url: str, data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir, database_url=SecretStr(sqlite_url), master_keys=SecretStr(new_master_key()))
    async with open_broker(settings) as broker, broker.database.write() as session:
        names = ("journal_mode", "synchronous", "foreign_keys")
        said = {name: (await session.execute(text(f"PRAGMA {name}"))).scalar_one() for name in names}
    assert said == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}  # 2 is FULL


@pytest.mark.parametrize(
    "statement", ["DELETE FROM nowhere WHERE name = :name", "INSERT INTO projects (id, name) VALUES ('P1', :name)"]
)
async def test_an_error_names_the_statement_and_none_of_its_values(settings: Settings, statement: str) -> None:
    values = {"name": "planted-7f3a"}
    async with open_broker(settings) as broker:
        with pytest.raises((OperationalError, ProgrammingError, IntegrityError)) as raised:
            async with broker.database.write() as session:
                await session.execute(text(statement), values)
    logged = "".join(traceback.format_exception(raised.value))
    assert f"[SQL: {statement[:20]}" in logged
    assert "planted-7f3a" not in logged
