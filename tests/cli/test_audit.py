"""`evergrant audit`: searching, exporting, and finding out that somebody rewrote the log."""

import asyncio
import json

import pytest
from sqlalchemy import select

from evergrant.broker.audit.record import hash_of
from evergrant.broker.runtime.broker import open_broker
from evergrant.db import AuditEvent
from evergrant.settings import Settings
from tests.cli.conftest import Evergrant
from tests.infra.rows import execute


@pytest.fixture
def project(evergrant: Evergrant, settings: Settings) -> str:
    """A project with six records: `init` made it and a key, and of two more keys one was disabled and enabled again."""
    project_id = str(evergrant(settings, "init", "--json").json["projectId"])
    evergrant(settings, "keys", "create", "--name", "first")
    key_id = evergrant(settings, "keys", "create", "--name", "sécond", "--json").json["id"]
    evergrant(settings, "keys", "disable", key_id)
    evergrant(settings, "keys", "enable", key_id)
    return project_id


FIRST_HASH = "SELECT hash FROM audit_events WHERE sequence = 1"
ACTIONS = ["project.created", "key.created", "key.created", "key.created", "key.disabled", "key.enabled"]


def test_what_the_command_line_did_is_found(evergrant: Evergrant, settings: Settings, project: str) -> None:
    records = evergrant(settings, "audit", "search", "--json").json
    assert [record["action"] for record in records] == ACTIONS[::-1]
    assert {record["actor"] for record in records} == {"cli"}
    (disabled,) = evergrant(settings, "audit", "search", "--action", "key.disabled", "--json").json
    assert disabled["data"]["name"] == "sécond"
    assert len(evergrant(settings, "audit", "search", "--text", "SéCOND", "--json").json) == 3
    assert evergrant(settings, "audit", "search", "--text", "nowhere").out == "none\n"
    assert len(evergrant(settings, "audit", "search", "--limit", "2", "--json").json) == 2


def test_other_changes_of_the_command_line_are_recorded(evergrant: Evergrant, settings: Settings, project: str) -> None:
    evergrant(settings, "projects", "allow-redirect", project, "https://app.example.com")
    evergrant(settings, "keyring", "rotate", "--rewrap-only")
    newest, before = evergrant(settings, "audit", "search", "--limit", "2", "--json").json
    assert newest["action"] == "keyring.rewrapped"
    assert before["action"] == "project.redirect_origins_changed"
    assert before["data"] == {"redirectOrigins": ["https://app.example.com"]}


def test_records_are_exported_oldest_first_as_json_lines(
    evergrant: Evergrant, settings: Settings, project: str
) -> None:
    lines = [json.loads(line) for line in evergrant(settings, "audit", "export").out.splitlines()]
    assert [line["action"] for line in lines] == ACTIONS
    assert [line["sequence"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {line["projectId"] for line in lines} == {project}
    assert [line["previousHash"] for line in lines] == ["0" * 64, *(line["hash"] for line in lines[:-1])]


def test_an_export_keeps_to_its_times(evergrant: Evergrant, settings: Settings, project: str) -> None:
    assert evergrant(settings, "audit", "export", "--to", "2020-01-01").out == ""
    assert len(evergrant(settings, "audit", "export", "--from", "2020-01-01").out.splitlines()) == 6
    assert evergrant(settings, "audit", "export", "--from", "2999-01-01T00:00:00").out == ""


def test_an_untouched_log_verifies_for_every_project(evergrant: Evergrant, settings: Settings, project: str) -> None:
    other = evergrant(settings, "init", "--json").json["projectId"]
    done = evergrant(settings, "audit", "verify", "--json")
    assert done.code == 0
    assert {row["project"]: (row["records"], row["problem"]) for row in done.json} == {project: (6, ""), other: (2, "")}
    last = json.loads(evergrant(settings, "audit", "export", "--project", project).out.splitlines()[-1])
    (only,) = evergrant(settings, "audit", "verify", "--project", project, "--json").json
    assert only["head"] == last["hash"]


@pytest.mark.parametrize(
    ("tampering", "intact", "problem"),
    [
        ("UPDATE audit_events SET actor = 'key:innocent' WHERE sequence = 3", 2, "record 3 is not what was written"),
        ("UPDATE audit_events SET data = '{}' WHERE sequence = 1", 0, "record 1 is not what was written"),
        ("DELETE FROM audit_events WHERE sequence = 2", 1, "record 2 is missing"),
        ("DELETE FROM audit_events WHERE sequence = 1", 0, "record 1 is missing"),
        (
            f"UPDATE audit_events SET previous_hash = ({FIRST_HASH}) WHERE sequence = 4",
            3,
            "record 4 does not continue the one before it",
        ),
    ],
)
def test_a_rewritten_log_is_found_out_at_the_first_wrong_record(
    evergrant: Evergrant, settings: Settings, project: str, tampering: str, intact: int, problem: str
) -> None:
    execute(settings, tampering)
    done = evergrant(settings, "audit", "verify", "--json")
    assert done.code == 1
    (row,) = done.json
    assert (row["records"], row["problem"]) == (intact, problem)


def test_a_record_that_is_rewritten_with_a_hash_that_fits_is_found_out_at_the_next(
    evergrant: Evergrant, settings: Settings, project: str
) -> None:
    async def forge() -> None:
        async with open_broker(settings) as broker, broker.database.write() as session:
            second, third = await session.scalars(
                select(AuditEvent).where(AuditEvent.sequence.in_((2, 3))).order_by(AuditEvent.sequence)
            )
            second.actor = "key:innocent"
            second.hash = third.previous_hash = hash_of(second)

    asyncio.run(forge())
    (row,) = evergrant(settings, "audit", "verify", "--json").json
    assert (row["records"], row["problem"]) == (2, "record 3 is not what was written")
