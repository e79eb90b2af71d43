"""Retention prunes the audit log, and gives nobody a way to rewrite it: what is left verifies, or says where not.

Each test has its control: the same log, pruned by evergrant, verifies.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from evergrant import clock as wall_clock
from evergrant.broker.audit import pruning
from evergrant.broker.audit.chain import ChainVerification, verify_chain
from evergrant.broker.audit.log import ReportedEvent, record_report
from evergrant.broker.audit.pruning import prune_audit_logs
from evergrant.broker.operations.setup import initialise
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.settings import Settings
from tests.cli.conftest import Evergrant
from tests.conftest import Clock
from tests.infra.rows import execute, rows

DAYS = 400
BEFORE_NOW = 6
"""The records of a log that are old: the project, its key, and four events."""


@dataclass
class Log:
    """A log with six old records and two new ones, in an installation that keeps records for 400 days."""

    settings: Settings
    project: str

    def prune(self) -> int:
        async def run() -> int:
            async with open_broker(self.settings) as broker:
                return await prune_audit_logs(broker, now=wall_clock.now())

        return asyncio.run(run())

    def verify(self) -> ChainVerification:
        async def run() -> ChainVerification:
            async with open_broker(self.settings) as broker:
                return await verify_chain(broker, self.project)

        return asyncio.run(run())

    def sequences(self) -> list[int]:
        return sorted(row["sequence"] for row in rows(self.settings, "audit_events"))

    def report(self, count: int) -> None:
        async def run() -> None:
            async with open_broker(self.settings) as broker:
                await reports(broker, self.project, count)

        asyncio.run(run())


async def reports(broker: Broker, project: str, count: int) -> None:
    for number in range(count):
        await record_report(broker, project, ReportedEvent(action=f"shop.{number}", type="info", actor_id="a", data={}))


@pytest.fixture
def log(settings: Settings, clock: Clock) -> Log:
    project = asyncio.run(initialise(settings)).project_id
    made = Log(settings, project)
    made.report(4)
    clock.advance(timedelta(days=DAYS, hours=25).total_seconds())
    made.report(2)
    assert made.sequences() == list(range(1, 9))
    return made


def test_what_is_old_is_pruned_and_the_rest_still_verifies(log: Log, evergrant: Evergrant) -> None:
    assert log.prune() == BEFORE_NOW
    assert log.sequences() == [7, 8, 9]
    (row,) = evergrant(log.settings, "audit", "verify", "--json").json
    assert (row["records"], row["pruned"], row["problem"]) == (3, BEFORE_NOW, "")
    (told,) = evergrant(log.settings, "audit", "search", "--action", "audit.pruned", "--json").json
    (checkpoint,) = rows(log.settings, "audit_checkpoints")
    assert told["data"]["sequence"] == checkpoint["sequence"] == BEFORE_NOW
    assert told["data"]["hash"] == bytes(checkpoint["hash"]).hex()
    assert told["actor"] == "evergrant"


def test_pruning_is_done_once_a_day_and_never_for_its_own_sake(log: Log, clock: Clock) -> None:
    assert log.prune() == BEFORE_NOW
    assert log.prune() == 0
    clock.advance(timedelta(days=DAYS, hours=23).total_seconds())
    assert log.prune() == 0
    clock.advance(timedelta(hours=2).total_seconds())
    assert log.prune() == 2
    for _ in range(3):
        clock.advance(timedelta(days=DAYS + 2).total_seconds())
        assert log.prune() == 0, "there is nothing left but what pruning itself has written"
    assert log.verify().problem == ""


def test_nothing_is_pruned_where_the_operator_keeps_all(log: Log) -> None:
    forever = Log(log.settings.model_copy(update={"audit_retention_days": 0}), log.project)
    assert forever.prune() == 0
    assert forever.verify() == log.verify()
    assert log.prune() == BEFORE_NOW


Tampering = str | Callable[[Log], Any]


def move_the_checkpoint(log: Log) -> None:
    """Cut more off the front than evergrant has, and write the checkpoint that would belong to it."""
    execute(
        log.settings,
        "UPDATE audit_checkpoints SET sequence = 7, hash = (SELECT hash FROM audit_events WHERE sequence = 7)",
    )
    execute(log.settings, "DELETE FROM audit_events WHERE sequence = 7")


@pytest.mark.parametrize(
    ("tampering", "problem"),
    [
        ("DELETE FROM audit_events WHERE sequence = 7", "record 7 is missing"),
        ("UPDATE audit_events SET actor = 'key:innocent' WHERE sequence = 7", "record 7 is not what was written"),
        ("DELETE FROM audit_checkpoints", "record 1 is missing"),
        ("UPDATE audit_checkpoints SET sequence = 5", "record 6 is missing"),
        (
            "UPDATE audit_checkpoints SET hash = (SELECT hash FROM audit_events WHERE sequence = 8)",
            "record 7 does not continue the one before it",
        ),
        (move_the_checkpoint, "nothing in the log tells that the 7 records before it were pruned"),
        ("DELETE FROM audit_events WHERE sequence = 9", "nothing in the log tells that the 6 records before it were"),
        ("DELETE FROM audit_events", "nothing in the log tells that the 6 records before it were pruned"),
    ],
    ids=[
        "the first record is missing",
        "the first record is changed",
        "the checkpoint is missing",
        "the checkpoint is moved back",
        "the checkpoint has another hash",
        "more is cut off and the checkpoint moved",
        "the record of the pruning is missing",
        "nothing is left",
    ],
)
def test_whoever_rewrites_a_pruned_log_in_the_database_is_found_out(
    log: Log, evergrant: Evergrant, tampering: Tampering, problem: str
) -> None:
    log.prune()
    assert log.verify().problem == ""
    if isinstance(tampering, str):
        execute(log.settings, tampering)
    else:
        tampering(log)
    done = evergrant(log.settings, "audit", "verify", "--json")
    assert done.code == 1
    assert done.json[0]["problem"].startswith(problem)


def test_whoever_cuts_the_front_off_a_log_that_was_never_pruned_is_found_out(log: Log) -> None:
    assert log.verify().problem == ""
    execute(log.settings, "DELETE FROM audit_events WHERE sequence <= 6")
    assert log.verify().problem == "record 1 is missing"


def test_time_does_not_wash_away_that_a_log_was_rewritten(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    execute(log.settings, "UPDATE audit_events SET actor = 'key:innocent' WHERE sequence = 3")
    assert log.prune() == 0
    assert "an audit log does not verify and is not pruned" in caplog.text
    assert log.verify().problem == "record 3 is not what was written"


def test_no_pruning_makes_a_forged_checkpoint_good(log: Log, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    assert log.prune() == BEFORE_NOW
    move_the_checkpoint(log)
    for _ in range(2):
        clock.advance(timedelta(days=DAYS + 2).total_seconds())
        log.report(1)
        assert log.prune() == 0
    assert "an audit log does not verify and is not pruned" in caplog.text
    assert log.verify().problem.startswith("nothing in the log tells")


@pytest.mark.parametrize("was_pruned", [True, False])
def test_nobody_has_evergrant_remove_records_by_a_checkpoint_alone(log: Log, was_pruned: bool) -> None:
    """Else one row would make each new record go as soon as it is written."""
    if was_pruned:
        assert log.prune() == BEFORE_NOW
        execute(log.settings, "UPDATE audit_checkpoints SET sequence = 1000")
    else:
        columns, hash_ = "project_id, sequence, hash, created_at", "(SELECT hash FROM audit_events WHERE sequence = 2)"
        now = "(SELECT MAX(occurred_at) FROM audit_events)"
        execute(
            log.settings, f"INSERT INTO audit_checkpoints ({columns}) VALUES ('{log.project}', 1000, {hash_}, {now})"
        )
    before = log.sequences()
    assert log.prune() == 0
    assert log.sequences() == before


def test_no_backend_writes_the_record_of_a_pruning_by_itself(log: Log) -> None:
    async def forge() -> None:
        async with open_broker(log.settings) as broker:
            forged = ReportedEvent(action="audit.pruned", type="info", actor_id="a", data={"sequence": 7})
            await record_report(broker, log.project, forged)

    with pytest.raises(Exception, match="evergrant's own actions"):
        asyncio.run(forge())
    assert log.prune() == BEFORE_NOW


def test_a_pruning_that_a_crash_broke_off_verifies_and_is_finished_the_next_time(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(broker: Broker) -> int:
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(pruning, "_remove_pruned", crash)
        log.prune()
    assert log.sequences() == list(range(1, 10))
    assert log.verify().problem == ""
    monkeypatch.setattr(pruning, "BATCH", 2)
    assert log.prune() == BEFORE_NOW
    assert (log.sequences(), log.verify().problem) == ([7, 8, 9], "")
