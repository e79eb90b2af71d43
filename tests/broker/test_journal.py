"""The journal: an answer that could not be stored, for an outage or a kill, still lands."""

import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from evergrant.broker.refresh.replay import replay_journal
from evergrant.broker.runtime.broker import open_broker
from evergrant.broker.runtime.journal import Journal
from evergrant.broker.runtime.journal_entry import Entry
from evergrant.crypto.sealed import Sealed
from evergrant.db import Grant, GrantStatus
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import Installation, installation

ENTRY = Entry(
    project_id="P1",
    grant_id="g1",
    lease_owner="owner",
    seen_version=3,
    values={
        "access_token": Sealed(b"\x01ciphertext"),
        "expires_at": datetime(2026, 11, 24, 12, 0, 0, 123, UTC),
        "fresh_until": None,
        "scopes": ["a", "b"],
        "token_version": 4,
        "details": {"sealed": "a name like ours", "at": "and another"},
    },
)


async def test_an_entry_is_read_as_it_was_written_and_only_by_its_owner(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert await journal.read() == []
    file = await journal.keep(ENTRY)
    assert file is not None
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    next_life = Journal(tmp_path / "journal")
    assert await next_life.read() == [(file, ENTRY)]
    assert await journal.drop(ENTRY, file)
    assert await next_life.read() == []
    assert await next_life.drop(ENTRY, file), "somebody else was faster"


async def test_what_a_process_is_landing_is_not_taken_up_by_the_same_process_until_it_leaves_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    file = await journal.keep(ENTRY)
    assert file is not None
    assert await journal.read() == []
    assert await journal.waiting_for(*ENTRY.key) == []
    journal.leave(ENTRY, file)
    assert await journal.read() == [(file, ENTRY)]
    assert await journal.waiting_for(*ENTRY.key) == [(file, ENTRY)]


async def test_what_earlier_lives_left_is_known_without_looking_at_the_disk_each_time(tmp_path: Path) -> None:
    file = Journal(tmp_path).write(ENTRY)
    journal = Journal(tmp_path)
    assert await journal.waiting_for(*ENTRY.key) == [(file, ENTRY)]
    assert await journal.waiting_for("P1", "another grant") == []
    assert file is not None
    file.unlink()  # another process has landed it
    assert await journal.waiting_for(*ENTRY.key) == [(file, ENTRY)]
    assert await journal.read() == []
    assert await journal.waiting_for(*ENTRY.key) == []


async def test_only_what_is_old_enough_is_taken_up_while_others_are_still_trying(tmp_path: Path) -> None:
    Journal(tmp_path).write(ENTRY)
    journal = Journal(tmp_path)
    assert await journal.read(older_than=time.time() - 60) == []
    assert len(await journal.read(older_than=time.time() + 60)) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"values": {}}', '{"values": {"access_token": {"sealed": "%"}}}'])
async def test_a_file_that_cannot_be_read_is_put_aside_and_stops_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "0.json").write_text(text)
    file = Journal(tmp_path).write(ENTRY)
    assert [found for found, _ in await Journal(tmp_path).read()] == [file]
    assert [path.name for path in tmp_path.glob("*.broken")] == ["0.broken"]


def test_where_the_journal_cannot_be_written_the_landing_goes_on_without(settings: Settings, clock: Clock) -> None:
    with installation(settings.model_copy(update={"refresher": False})) as here:
        here.connected("alice")
        (settings.data_dir / "journal").write_text("a file where the folder should be")
        clock.advance(3601)
        assert here.backend.token("alice")["lastRefreshTime"] == str(int(clock.now.timestamp()))


@pytest.fixture
def here(settings: Settings) -> Iterator[Installation]:
    with installation(settings.model_copy(update={"refresher": False})) as running:
        running.connected("alice")
        yield running


async def test_an_entry_lands_once_and_on_the_row_that_it_was_got_with(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        async with broker.database.read() as session:
            grant = (await session.scalars(select(Grant))).one()
        entry = Entry(
            grant.project_id,
            grant.id,
            "a process that is dead",
            grant.token_version,
            {"token_version": grant.token_version + 1, "last_refresh_error": "landed"},
        )

        async def state() -> tuple[int, str, str | None]:
            async with broker.database.read() as session:
                row = (await session.scalars(select(Grant))).one()
            return row.token_version, row.last_refresh_error, row.lease_owner

        async def set_row(**values: Any) -> None:
            async with broker.database.write() as session:
                await session.execute(update(Grant).values(**values))

        # its own lease goes with it
        await set_row(lease_owner="a process that is dead")
        Journal(here.settings.data_dir / "journal").write(entry)
        assert await replay_journal(broker) == 1
        assert await state() == (grant.token_version + 1, "landed", None)
        # the same again is out of date, and is forgotten
        await set_row(last_refresh_error="")
        Journal(here.settings.data_dir / "journal").write(entry)
        assert await replay_journal(broker) == 0
        assert await state() == (grant.token_version + 1, "", None)
        # somebody who is refreshing now keeps the lease, and will find the newer tokens
        await set_row(lease_owner="somebody else")
        fitting = replace(entry, seen_version=grant.token_version + 1)
        Journal(here.settings.data_dir / "journal").write(fitting)
        assert await replay_journal(broker) == 1
        assert (await state())[2] == "somebody else"
        # an ended consent is not revived, even if nothing else on the row has moved on
        await set_row(status=GrantStatus.REAUTHORIZATION_REQUIRED, last_refresh_error="dead")
        Journal(here.settings.data_dir / "journal").write(fitting)
        assert await replay_journal(broker) == 0
        assert (await state())[1] == "dead"
        assert await broker.journal.read() == []
