"""Uses of grants: written beside them, by replicas at the same time, with no row that a landing could wait for."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import event, insert, select, update

from evergrant.broker.activity.writing import write_activity
from evergrant.broker.grants.events import write_fetches
from evergrant.broker.grants.last_used import write_last_uses
from evergrant.broker.runtime import unwritten_uses
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.db import Grant, GrantUse
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import Installation, installation


@pytest.fixture
def here(settings: Settings, clock: Clock) -> Iterator[Installation]:
    with installation(settings.model_copy(update={"refresher": False})) as running:
        running.connected("alice")
        yield running


async def crowd(broker: Broker, size: int) -> list[tuple[str, str]]:
    """Make more grants of alice's kind, and return their keys."""
    async with broker.database.write() as session:
        one = (await session.scalars(select(Grant))).one()
        columns = {column.key: getattr(one, column.key) for column in Grant.__mapper__.columns}
        await session.execute(insert(Grant), [{**columns, "id": f"{n:032d}"} for n in range(size)])
    return [(one.project_id, f"{n:032d}") for n in range(size)]


async def uses(broker: Broker) -> dict[str, object]:
    async with broker.database.read() as session:
        return {use.grant_id: use.fetched_at for use in await session.scalars(select(GrantUse))}


async def test_replicas_write_the_same_uses_at_once_in_whatever_order(here: Installation, clock: Clock) -> None:
    async with open_broker(here.settings) as one, open_broker(here.settings) as other:
        keys = await crowd(one, 400)
        for _ in range(4):
            clock.advance(2 * 86_400)
            for forth, back in zip(keys, reversed(keys), strict=True):
                one.uses.note_grant(forth, at=clock.now)
                other.uses.note_grant(back, at=clock.now)
            await asyncio.gather(write_last_uses(one), write_last_uses(other))
            assert set((await uses(one)).values()) == {clock.now}
        assert len(await uses(one)) == len(keys)


async def test_who_is_awake_is_left_alone_by_its_use(here: Installation, clock: Clock) -> None:
    sent: list[str] = []
    async with open_broker(here.settings) as broker:
        for key in await crowd(broker, 3):
            broker.uses.note_grant(key, at=clock.now)
        event.listen(
            broker.database.engine.sync_engine,
            "before_cursor_execute",
            lambda _connection, _cursor, statement, *_: sent.append(statement),
        )
        await write_last_uses(broker)
    assert sent
    assert not [statement for statement in sent if "UPDATE grants" in statement]


async def test_what_is_noted_is_written_by_the_same_statements_however_much_it_is(
    here: Installation, clock: Clock
) -> None:
    """One for many rows has to be made anew each time, and meanwhile the process answers nobody."""
    sent: list[set[str]] = []
    async with open_broker(here.settings) as broker:
        keys = await crowd(broker, 200)
        event.listen(
            broker.database.engine.sync_engine,
            "before_cursor_execute",
            lambda _connection, _cursor, statement, *_: sent[-1].add(statement),
        )
        for some in (keys[:2], keys):
            clock.advance(2 * 86_400)
            sent.append(set())
            for number, (project_id, grant_id) in enumerate(some):
                broker.uses.note_grant((project_id, grant_id), at=clock.now)
                broker.timelines.note_fetch(project_id, grant_id, "somebody", at=clock.now)
                broker.activity.note(project_id, f"app-{number}", "fetch:answered:key")
            await write_last_uses(broker)
            await write_fetches(broker)
            await write_activity(broker)
    few, many = ({statement for statement in one if not statement.startswith("SELECT")} for one in sent)
    assert len(few) == len(many) == 4 + ("BEGIN IMMEDIATE" in few) + ("BEGIN" in few)
    assert few == many


async def test_what_is_written_already_is_not_written_again_by_who_does_not_know_it(
    here: Installation, clock: Clock
) -> None:
    async with open_broker(here.settings) as one, open_broker(here.settings) as other:
        (key,) = await crowd(one, 1)
        first = clock.now
        one.uses.note_grant(key, at=first)
        await write_last_uses(one)
        clock.advance(3600)
        other.uses.note_grant(key, at=clock.now)
        await write_last_uses(other)
        assert list((await uses(one)).values()) == [first]
        assert len(other.uses.grants) == 0


async def test_a_use_of_a_grant_that_is_gone_is_forgotten(here: Installation, clock: Clock) -> None:
    async with open_broker(here.settings) as broker:
        broker.uses.note_grant((here.backend.project_id, "gone"), at=clock.now)
        await write_last_uses(broker)
        assert len(broker.uses.grants) == 0
        assert await uses(broker) == {}


async def test_the_next_use_wakes_a_grant_whose_row_was_being_changed(here: Installation, clock: Clock) -> None:
    async with open_broker(here.settings) as broker:
        (key,) = await crowd(broker, 1)
        asleep = clock.now + timedelta(days=7)
        async with broker.database.write() as session:
            await session.execute(update(Grant).where(Grant.id == key[1]).values(next_refresh_at=asleep))
        if not broker.database.is_sqlite:  # which has one writer
            broker.uses.note_grant(key, at=clock.now)
            async with broker.database.write() as session:
                await session.execute(select(Grant).where(Grant.id == key[1]).with_for_update(key_share=True))
                await write_last_uses(broker)  # waits for nobody
        broker.uses.note_grant(key, at=clock.now)
        await write_last_uses(broker)
        async with broker.database.read() as session:
            grant = await session.get_one(Grant, key)
    assert grant.next_refresh_at == grant.fresh_until


def test_the_memory_of_what_is_noted_has_a_bound(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwritten_uses, "MAX_KNOWN_GRANTS", 10)
    uses = unwritten_uses.UnwrittenUses()
    for number in range(25):
        uses.note_grant(("P", str(number)), at=clock.now)
    assert len(uses._known_grants) <= 10
