"""The call log: every call is written down, whatever dies; and nobody rewrites it without the audit log telling so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from evergrant import clock as wall_clock
from evergrant.broker.audit.call_pruning import prune_calls
from evergrant.broker.audit.chain import verify_chain
from evergrant.broker.audit.log import AuditQuery, search_records
from evergrant.broker.audit.pruning import prune_audit_logs
from evergrant.broker.calls import call_log
from evergrant.broker.calls.call_log import LEFT, seal_left_calls, write_ahead, write_calls
from evergrant.broker.operations.setup import initialise
from evergrant.broker.projects.shredding import remove_rows, shred_project
from evergrant.broker.runtime import unwritten_calls
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.principal import Principal
from evergrant.broker.runtime.unwritten_calls import Call
from evergrant.db import CallRecord
from evergrant.errors import Unavailable
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.rows import execute

ONE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@asynccontextmanager
async def brokers(settings: Settings) -> AsyncIterator[tuple[Broker, Broker, str]]:
    """Two replicas without a face, and the id of a project."""
    project = (await initialise(settings)).project_id
    async with open_broker(settings) as one, open_broker(settings) as other:
        yield one, other, project


def call(project: str, path: str = "/", **fields: Any) -> Call:
    who = Principal(project, "Kkey", frozenset(), frozenset(), (), None, agent="helper", act=("helper", "planner"))
    made = Call.begun(who, kind="call", at=wall_clock.now(), app_id="github", user_id="alice", method="GET", path=path)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


async def log(broker: Broker, project: str, count: int) -> list[str]:
    """Write a batch of calls, and return their ids."""
    calls = [call(project, f"/{number}", status=200, source="provider") for number in range(count)]
    for one in calls:
        broker.calls.note(one)
    await write_calls(broker)
    return sorted(one.id for one in calls)


async def logged(broker: Broker) -> list[CallRecord]:
    async with broker.database.read() as session:
        return list(await session.scalars(select(CallRecord).order_by(CallRecord.id)))


async def sealed(broker: Broker, project: str) -> list[dict[str, Any]]:
    """What the seals say, the oldest first."""
    found = await search_records(broker, project, AuditQuery(actions=["calls.sealed"]))
    return [event.data for event in reversed(found)]


async def test_replicas_seal_what_they_write_in_batches_that_verify(settings: Settings) -> None:
    async with brokers(settings) as (one, other, project):
        batches = await asyncio.gather(*(log(broker, project, 3) for broker in (one, other, one)))
        rows = await logged(one)
        assert {row.batch for row in rows} == {data["batch"] for data in await sealed(one, project)}
        assert sum(data["count"] for data in await sealed(one, project)) == len(rows) == 9
        assert sorted(row.id for row in rows) == sorted(one for batch in batches for one in batch)
        assert (rows[0].agent, rows[0].act, rows[0].actor) == ("helper", ["helper", "planner"], "key:Kkey")
        found = await verify_chain(other, project)
        assert (found.problem, found.calls) == ("", 9)
        assert len(one.calls) == 0


TAMPERINGS = {
    "changed": ("UPDATE call_records SET path = '/innocent' WHERE id = '{id}'", "one or more are not what was written"),
    "moved in time": ("UPDATE call_records SET ms = ms + 1 WHERE id = '{id}'", "one or more are not what was written"),
    "removed": ("DELETE FROM call_records WHERE id = '{id}'", "1 are missing"),
    "added to a batch": (
        "UPDATE call_records SET batch = (SELECT batch FROM call_records WHERE id = '{id}') WHERE batch = ''",
        "1 were added",
    ),
    "unsealed": ("UPDATE call_records SET batch = '' WHERE id = '{id}'", "1 are missing"),
    "of a batch of its own": (
        "UPDATE call_records SET id = 'x', batch = 'forged' WHERE batch = ''",
        "one of them is x",
    ),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_a_call_that_was_changed_removed_or_added_is_found(settings: Settings, tampering: str) -> None:
    statement, problem = TAMPERINGS[tampering]
    async with brokers(settings) as (broker, _, project):
        await log(broker, project, 2)
        (_, call_id) = await log(broker, project, 2)
        await log(broker, project, 2)
        await write_ahead(broker, call(project))
        assert (await verify_chain(broker, project)).problem == "", "a write under way is no problem"
        execute(settings, statement.format(id=call_id))
        found = await verify_chain(broker, project)
        assert problem in found.problem
        if tampering in ("changed", "removed"):
            seal = (await search_records(broker, project, AuditQuery(actions=["calls.sealed"])))[1]
            assert (found.broken_at, found.records, found.head) == (
                seal.sequence,
                seal.sequence - 1,
                seal.previous_hash,
            )
            assert seal.data["first"] in found.problem


async def test_a_write_has_its_row_before_it_is_sent_and_its_outcome_in_the_next_batch(
    settings: Settings, clock: Clock
) -> None:
    async with brokers(settings) as (broker, other, project):
        done, dead = call(project, "/done", method="POST"), call(project, "/dead", method="POST")
        for write in (done, dead):
            await write_ahead(broker, write)
        rows = {row.path: (row.status, row.batch) for row in await logged(broker)}
        assert rows == {"/done": (0, ""), "/dead": (0, "")}
        done.status, done.source = 201, "provider"
        broker.calls.note(done)
        await write_calls(broker)
        clock.advance(LEFT.total_seconds() - 1)
        assert await seal_left_calls(other, now=clock.now) == 0, "it may still be under way"
        clock.advance(2)
        assert sum(await asyncio.gather(*(seal_left_calls(one, now=clock.now) for one in (broker, other)))) == 1
        assert {row.path: row.status for row in await logged(broker)} == {"/done": 201, "/dead": 0}
        assert [data.get("withoutOutcome") for data in await sealed(broker, project)] == [None, 1]
        broker.calls.note(dead)  # whose process was only asleep: what is sealed stays
        await write_calls(broker)
        assert (await verify_chain(broker, project)).calls == 2


@ONE
async def test_nothing_is_written_twice_where_the_end_of_a_transaction_was_not_seen(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = call_log._write_batch

    async def and_lose_the_connection(*args: Any, **kwargs: Any) -> None:
        await write(*args, **kwargs)
        raise Unavailable

    async with brokers(settings) as (broker, _, project):
        monkeypatch.setattr(call_log, "_write_batch", and_lose_the_connection)
        with pytest.raises(Unavailable):
            await log(broker, project, 3)
        assert len(broker.calls) == 3
        monkeypatch.setattr(call_log, "_write_batch", write)
        await log(broker, project, 1)
        assert len(await logged(broker)) == 4
        assert "dropped" not in caplog.text, "what is there already is no entry that cannot be written"
        assert (await verify_chain(broker, project)).calls == 4


async def test_an_entry_that_no_database_takes_is_dropped_alone_and_odd_names_are_none(settings: Settings) -> None:
    async with brokers(settings) as (broker, _, project):
        broker.calls.note(call(project, "/too-much", bytes_sent=2**80))
        broker.calls.note(call(project, "/odd", agent="a\x00\ud800" + "b" * 300, act=("\x00" * 999,)))
        broker.calls.note(call("Pgone", "/of-nobody"))
        await log(broker, project, 3)
        assert sorted(row.path for row in await logged(broker)) == ["/0", "/1", "/2", "/odd"]
        found = await verify_chain(broker, project)
        assert (found.problem, found.calls) == ("", 4)


@ONE
async def test_memory_is_bounded_and_the_log_says_how_many_calls_are_missing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unwritten_calls, "MOST", 2)
    async with brokers(settings) as (broker, _, project):
        await log(broker, project, 5)
        assert len(await logged(broker)) == 2
        assert [(data["count"], data["dropped"]) for data in await sealed(broker, project)] == [(2, 3)]


async def test_old_batches_go_whole_and_the_rest_still_verifies(settings: Settings, clock: Clock) -> None:
    async with brokers(settings) as (broker, other, project):
        await log(broker, project, 3)
        await log(broker, project, 2)
        clock.advance(timedelta(days=91, hours=1).total_seconds())
        await log(broker, project, 1)
        execute(settings, "UPDATE call_records SET path = '/innocent' WHERE path = '/2'")
        assert await prune_calls(broker, now=clock.now) == 0, "what does not fit its seal stays"
        execute(settings, "UPDATE call_records SET path = '/2' WHERE path = '/innocent'")
        assert sum(await asyncio.gather(*(prune_calls(one, now=clock.now) for one in (broker, other)))) == 5
        found = await verify_chain(broker, project)
        assert (found.problem, found.calls) == ("", 1)
        (told,) = await search_records(broker, project, AuditQuery(actions=["calls.pruned"]))
        assert told.data["count"] == 5
        execute(settings, "DELETE FROM call_records")
        assert "1 are missing" in (await verify_chain(broker, project)).problem


async def test_calls_go_with_the_audit_records_that_sealed_them(settings: Settings, clock: Clock) -> None:
    briefly = settings.model_copy(update={"audit_retention_days": 30})
    async with brokers(briefly) as (broker, _, project):
        await log(broker, project, 3)
        clock.advance(timedelta(days=32).total_seconds())
        await log(broker, project, 1)
        assert await prune_audit_logs(broker, now=clock.now)
        found = await verify_chain(broker, project)
        assert (found.problem, found.calls, len(await logged(broker))) == ("", 1, 1)


@ONE
async def test_the_audit_log_of_a_deleted_project_verifies_without_its_calls(settings: Settings, clock: Clock) -> None:
    async with brokers(settings) as (broker, _, project):
        await log(broker, project, 3)
        await shred_project(broker, project, now=clock.now)
        async for _ in remove_rows(broker, project):
            pass
        assert await logged(broker) == []
        found = await verify_chain(broker, project)
        assert (found.problem, found.calls) == ("", 0)
