"""What dead processes left behind in a data folder: who is dead, what they held, and giving it back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from evergrant.broker.grants.grants import owner_of, token_slot
from evergrant.broker.refresh import lease
from evergrant.broker.refresh.left_behind import give_back_left_behind
from evergrant.broker.runtime import holder_files
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.holder_files import HOLDERS_FOLDER, HeldLease, HolderFiles, dead_holders
from evergrant.broker.runtime.journal_entry import Entry
from evergrant.db import Grant, Holder
from evergrant.db.types import database_now
from evergrant.settings import Settings
from tests.infra.installation import Installation, installation

ONE, TWO = HeldLease("project", "one", "a" * 32), HeldLease("project", "two", "a" * 32)


def dead(folder: Path) -> dict[str, list[HeldLease]]:
    return {holder.id: list(holder.leases) for holder in dead_holders(folder)}


def test_who_holds_nothing_leaves_nothing(tmp_path: Path) -> None:
    files = HolderFiles(tmp_path, "holder")
    assert list(tmp_path.iterdir()) == []
    files.add([ONE, TWO])
    files.remove(ONE)
    files.remove(TWO)
    files.close()
    assert list(tmp_path.iterdir()) == []


def test_who_is_alive_is_not_dead_and_who_has_ended_is_with_all_that_it_held(tmp_path: Path) -> None:
    files = HolderFiles(tmp_path, "holder")
    files.add([ONE, TWO])
    files.remove(ONE)
    assert dead(tmp_path) == {}
    files.close()
    assert dead(tmp_path) == {"holder": [TWO]}


def test_two_who_find_the_same_dead_one_do_not_both_get_it(tmp_path: Path) -> None:
    files = HolderFiles(tmp_path, "holder")
    files.add([ONE])
    files.close()
    for found in dead_holders(tmp_path):
        assert dead(tmp_path) == {}
        found.forget()
    assert dead(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_list_is_written_anew_before_it_is_long_and_forgets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holder_files, "SHORTEN_AT", 20)
    files = HolderFiles(tmp_path, "holder")
    files.add([ONE])
    for _ in range(100):
        files.add([TWO])
        files.remove(TWO)
    assert len((tmp_path / "holder.leases").read_text().splitlines()) < 50
    files.add([TWO])
    files.close()
    assert dead(tmp_path) == {"holder": [ONE, TWO]}


def test_a_list_that_was_cut_short_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    files = HolderFiles(tmp_path, "holder")
    files.add([ONE])
    files.close()
    with (tmp_path / "holder.leases").open("a") as file:
        file.write("+ project tw")
    assert dead(tmp_path) == {"holder": [ONE]}


def test_a_folder_that_cannot_be_written_is_said_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a file").touch()
    files = HolderFiles(tmp_path / "a file", "holder")
    for _ in range(3):
        files.add([ONE])
        files.remove(ONE)
    files.close()
    assert [record.message for record in caplog.records] == ["cannot keep the list of leases"]


@pytest.fixture
def here(settings: Settings) -> Iterator[Installation]:
    with installation(settings.model_copy(update={"refresher": False}), access_token_seconds=3600) as running:
        running.connected("alice")
        yield running


async def killed_with_alices_lease(broker: Broker) -> HeldLease:
    """Let a process of this data folder have been killed that held alice's lease."""
    holder_id = "0123456789abcdef"
    async with broker.database.write() as session:
        grant = (await session.scalars(select(Grant))).one()
        held = HeldLease(grant.project_id, grant.id, holder_id * 2)
        held_until = {"lease_owner": held.owner, "lease_until": database_now(60)}
        await session.execute(update(Grant).values(held_until).execution_options(synchronize_session=False))
        session.add(Holder(id=holder_id, name="killed", started_at=database_now(), beat_at=database_now()))
    files = HolderFiles(broker.settings.data_dir / HOLDERS_FOLDER, holder_id)
    files.add([held])
    files.close()
    return held


async def the_grant(broker: Broker) -> Grant:
    async with broker.database.read() as session:
        return (await session.scalars(select(Grant))).one()


async def holders(broker: Broker) -> list[str]:
    async with broker.database.read() as session:
        return list(await session.scalars(select(Holder.name)))


async def test_what_a_dead_process_held_is_given_back_as_an_interrupted_refresh(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        await killed_with_alices_lease(broker)
        assert await give_back_left_behind(broker) == 1
        grant = await the_grant(broker)
        assert (grant.lease_owner, grant.interrupted_at is not None) == (None, True)
        assert await holders(broker) == []
        assert await give_back_left_behind(broker) == 0


async def test_an_answer_of_a_dead_process_lands_before_its_lease_is_given_back(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        held = await killed_with_alices_lease(broker)
        slot = token_slot(owner_of(await the_grant(broker)), held.grant_id, "access_token")
        values = {"access_token": await broker.vault.seal(slot, SecretStr("landed")), "token_version": 2}
        broker.journal.write(Entry(*held, seen_version=1, values=values))
        assert await give_back_left_behind(broker) == 0, "landing gave it back"
        grant = await the_grant(broker)
        assert (grant.lease_owner, grant.interrupted_at, grant.token_version) == (None, None, 2)
        assert dead(broker.settings.data_dir / HOLDERS_FOLDER) == {}


async def test_where_locks_may_not_count_a_holder_that_was_there_just_now_is_not_dead(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that machines share: another one's kernel has the lock, and ours does not know."""
    async with open_broker(here.settings) as broker:
        await killed_with_alices_lease(broker)
        monkeypatch.setattr(holder_files, "_kernel", lambda: "another")
        assert await give_back_left_behind(broker) == 0
        assert (await the_grant(broker)).lease_owner is not None
        async with broker.database.write() as session:
            await session.execute(update(Holder).values(beat_at=database_now(-60)))
        assert await give_back_left_behind(broker) == 1


async def test_a_process_that_ends_in_order_leaves_neither_row_nor_files(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        grant = await the_grant(broker)
        leased = await lease.take(broker, grant.project_id, grant.id)
        assert leased is not None
        assert list((broker.settings.data_dir / HOLDERS_FOLDER).iterdir()) != []
        await lease.release(broker, leased)
    async with open_broker(here.settings) as broker:
        assert await holders(broker) == []
    assert list((here.settings.data_dir / HOLDERS_FOLDER).iterdir()) == []
