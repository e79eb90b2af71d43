"""The database itself: what its connections are told, and what its errors keep to themselves."""

import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Executable, delete, event, select, text, tuple_, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from evergrant import clock
from evergrant.broker.runtime.broker import open_broker
from evergrant.crypto.kms.local import new_master_key
from evergrant.db import GrantEvent, Project
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


ROWS = tuple_(GrantEvent.project_id, GrantEvent.grant_id).in_([("P1", f"G{number}") for number in range(500)])


@pytest.mark.parametrize(
    "statement",
    [
        select(GrantEvent.id).where(ROWS),
        update(GrantEvent).where(ROWS).values(n=2),
        delete(GrantEvent).where(ROWS),
    ],
    ids=["select", "update", "delete"],
)
async def test_sqlite_looks_rows_of_a_list_up_and_does_not_go_through_the_table(
    sqlite_url: str, data_dir: Path, statement: Executable
) -> None:
    settings = Settings(data_dir=data_dir, database_url=SecretStr(sqlite_url), master_keys=SecretStr(new_master_key()))
    sent: list[tuple[str, Any]] = []

    def keep(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "grant_events" in statement:  # and not the process's chores
            sent.append((statement, parameters))

    async with open_broker(settings) as broker, broker.database.write() as session:
        event.listen(broker.database.engine.sync_engine, "after_cursor_execute", keep)
        await session.execute(statement, execution_options={"synchronize_session": False})
        ((sql, values),) = sent
        plan = (await (await session.connection()).exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)).all()
    steps = [step.detail for step in plan]
    assert [step for step in steps if step.startswith("SEARCH grant_events USING")], steps
    assert not [step for step in steps if step.startswith("SCAN grant_events")], steps


@pytest.mark.parametrize("count", [0, 1, 2, 500])
async def test_rows_of_a_list_are_found_however_many_there_are(settings: Settings, count: int) -> None:
    pairs = [(f"P{number}", f"name {number}") for number in range(count)]
    key = tuple_(Project.id, Project.name)
    async with open_broker(settings) as broker, broker.database.write() as session:
        for number in range(3):
            session.add(Project(id=f"P{number}", name=f"name {number}", created_at=clock.now()))
        await session.flush()
        found = set(await session.scalars(select(Project.id).where(key.in_(pairs))))
        others = set(await session.scalars(select(Project.id).where(key.not_in(pairs))))
    assert found == {f"P{number}" for number in range(min(count, 3))}
    assert others == {f"P{number}" for number in range(3)} - found
