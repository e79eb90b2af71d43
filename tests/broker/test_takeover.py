"""Who may take a lease that somebody holds: nobody, while its holder is alive or may come back."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, update

from evergrant import clock as wall_clock
from evergrant import pace
from evergrant.broker.refresh import lease, refresh
from evergrant.broker.refresh.claims import ClaimQuota, claim_due_grants
from evergrant.broker.refresh.lease import LeasedGrant
from evergrant.broker.refresh.refresh import refresh_grant
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.db import Grant, Holder
from evergrant.db.types import database_now
from evergrant.errors import Unavailable, UpstreamUnavailable
from evergrant.pace import Pace
from evergrant.settings import Settings
from tests.infra.installation import Installation, installation, refreshes
from tests.infra.waiting import until

DEAD = "deaddeaddeaddead" + "0" * 16
"""A lease of a holder that no process is."""


@pytest.fixture(autouse=True)
def _steady_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has seen the database once is steady, and beats seldom, so that a test says when a holder was last there."""
    monkeypatch.setattr(pace, "PACE", Pace(settle=0, beat=60))


@pytest.fixture
def here(settings: Settings) -> Iterator[Installation]:
    """alice is connected, and her access token has just ended."""
    with installation(settings.model_copy(update={"refresher": False}), access_token_seconds=3600) as running:
        running.connected("alice")
        yield running


async def the_grant(broker: Broker) -> Grant:
    async with broker.database.read() as session:
        return (await session.scalars(select(Grant))).one()


async def holders(broker: Broker) -> set[str]:
    async with broker.database.read() as session:
        return set(await session.scalars(select(Holder.id)))


async def change(broker: Broker, **values: Any) -> None:
    async with broker.database.write() as session:
        await session.execute(update(Grant).values(**values).execution_options(synchronize_session=False))


async def held_by_the_dead(
    broker: Broker, *, seen: float | None, over_for: float = 10_000, token_ended_for: float = 60
) -> None:
    """Let somebody hold alice's lease who was last there so many seconds ago; None where nobody knows."""
    await change(
        broker,
        lease_owner=DEAD,
        lease_until=database_now(-over_for),
        expires_at=database_now(-token_ended_for),
        fresh_until=database_now(-token_ended_for),
    )
    if seen is not None:
        async with broker.database.write() as session:
            session.add(Holder(id=DEAD[:16], name="dead", started_at=database_now(), beat_at=database_now(-seen)))
    broker.holder.shown.set()
    async with asyncio.timeout(60):
        while broker.holder.id not in await holders(broker):
            await asyncio.sleep(0.01)


async def take(broker: Broker) -> LeasedGrant | None:
    grant = await the_grant(broker)
    return await lease.take(broker, grant.project_id, grant.id)


GONE = {
    "not seen for long": {"seen": 400},
    "not seen for hours, and the token still works": {"seen": 4000, "token_ended_for": -9000},
    "never seen, and the lease is over for long": {"seen": None, "over_for": 400},
}
NOT_GONE = {
    "seen just now, whatever the lease says": {"seen": 0},
    "seen less than the operator's patience ago": {"seen": 290},
    "not seen for long, but the token still works": {"seen": 1000, "token_ended_for": -600},
    "not seen for long, but the lease is not over": {"seen": 1000, "over_for": -50},
    "never seen, and the lease has just ended": {"seen": None, "over_for": 200},
}


@pytest.mark.parametrize("case", GONE.values(), ids=GONE)
async def test_the_lease_of_a_holder_that_is_gone_is_taken_over_as_an_interrupted_refresh(
    here: Installation, case: dict[str, float | None]
) -> None:
    async with open_broker(here.settings) as broker:
        await held_by_the_dead(broker, **case)  # type: ignore[arg-type]
        assert await take(broker) is not None
        assert (await the_grant(broker)).interrupted_at is not None


@pytest.mark.parametrize("case", NOT_GONE.values(), ids=NOT_GONE)
async def test_the_lease_of_a_holder_that_may_come_back_is_left_to_it(
    here: Installation, case: dict[str, float | None]
) -> None:
    async with open_broker(here.settings) as broker:
        await held_by_the_dead(broker, **case)  # type: ignore[arg-type]
        assert await take(broker) is None
        assert (await the_grant(broker)).interrupted_at is None


async def test_nobody_takes_over_before_it_is_known_that_the_database_was_there_all_the_while(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PACE", Pace(settle=20, beat=60))
    async with open_broker(here.settings) as broker:
        await held_by_the_dead(broker, seen=100_000)
        assert await take(broker) is None


async def test_after_an_outage_nobody_takes_over(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        await held_by_the_dead(broker, seen=100_000)
        broker.holder.note_gap()
        assert await take(broker) is None


async def test_for_some_seconds_after_an_outage_nobody_takes_anything(here: Installation) -> None:
    """It may have cost the last commits, and with them who holds what: whoever has an answer lands it first."""
    async with open_broker(here.settings) as broker:
        broker.holder.note_gap()
        broker.holder.note_beat(wall_clock.now())
        grant = await the_grant(broker)
        quota = ClaimQuota((grant.project_id, grant.app_id), due=1, overdue=1)
        tries = [
            asyncio.ensure_future(one)
            for one in (take(broker), claim_due_grants(broker, [quota], now=wall_clock.now() + timedelta(days=1)))
        ]
        done, _ = await asyncio.wait(tries, timeout=1)
        assert not done
        assert (await the_grant(broker)).lease_owner is None
        for one in tries:
            one.cancel()


async def test_a_process_that_stood_still_takes_nothing_over_before_it_has_seen_the_database_again(
    here: Installation,
) -> None:
    async with open_broker(here.settings) as broker:
        await held_by_the_dead(broker, seen=100_000)
        async with broker.database.write() as session:
            await session.execute(update(Holder).values(beat_at=database_now(-100_000)))
        assert broker.holder.is_steady, "as far as it knows itself"
        assert await take(broker) is None


async def test_a_holder_that_is_alive_is_not_robbed_however_long_its_lease_is_over(here: Installation) -> None:
    async with open_broker(here.settings) as holder, open_broker(here.settings) as other:
        assert await take(holder) is not None
        await held_by_the_dead(other, seen=100_000)  # so that the other is steady
        await change(other, lease_owner=holder.holder.new_owner())
        async with asyncio.timeout(60):
            while holder.holder.id not in await holders(other):
                await asyncio.sleep(0.01)
        assert await take(other) is None


async def test_a_lease_that_nothing_in_its_own_process_uses_any_more_is_free_for_it(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        first = await take(broker)
        assert first is not None
        assert await take(broker) is None, "it is in use"
        broker.holder.put_down(first.held)
        assert await take(broker) is not None
        assert (await the_grant(broker)).interrupted_at is None


async def test_a_lease_that_could_not_be_given_back_is_given_back_when_the_database_is_there_again(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PACE", Pace().faster(20))
    async with open_broker(here.settings) as broker:
        leased = await take(broker)
        assert leased is not None
        fails = True

        def fail(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if fails and "UPDATE grants" in statement:
                raise ConnectionResetError("away")

        event.listen(broker.database.engine.sync_engine, "before_cursor_execute", fail)
        with pytest.raises(Unavailable):
            await lease.release(broker, leased, last_refresh_error="what was to be noted")
        fails = False
        await until(lambda: not broker.holder.to_give_back, "it is given back")
        now = await the_grant(broker)
    assert (now.lease_owner, now.last_refresh_error) == (None, "what was to be noted")


@pytest.mark.parametrize("error", [Unavailable(), RuntimeError("a bug")], ids=["the database blinks", "a bug"])
async def test_what_fails_between_lease_and_call_leaves_no_lease_behind(
    here: Installation, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fails(*_: object) -> None:
        raise error

    async with open_broker(here.settings) as broker:
        grant = await the_grant(broker)
        arguments = (broker, grant.project_id, grant.id)
        with monkeypatch.context() as patched:
            patched.setattr(refresh, "load_app", fails)
            with pytest.raises(type(error)):
                await refresh_grant(*arguments, seen_version=grant.token_version)
        now = await the_grant(broker)
        assert (now.lease_owner, now.interrupted_at) == (None, None)
        async with asyncio.timeout(60):
            assert (await refresh_grant(*arguments, seen_version=grant.token_version)).interrupted_at is None
    assert refreshes(here) == 1


async def test_who_waits_for_a_holder_that_is_gone_is_told_when_to_come_back(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        await held_by_the_dead(broker, seen=280)
        grant = await the_grant(broker)
        with pytest.raises(UpstreamUnavailable, match="is gone") as told:
            async with asyncio.timeout(60):
                await refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version)
    assert told.value.retry_after == 30, "the patience is 360 seconds here, and a holder may come back any moment"
    assert refreshes(here) == 0


async def test_those_who_wait_look_together_and_take_nothing_that_is_not_free(here: Installation) -> None:
    for user in (f"user-{n}" for n in range(12)):
        here.connected(user)
    async with open_broker(here.settings) as broker:
        await held_by_the_dead(broker, seen=0)
        statements: list[str] = []
        event.listen(
            broker.database.engine.sync_engine,
            "before_cursor_execute",
            lambda _connection, _cursor, statement, *_: statements.append(statement),
        )
        async with broker.database.read() as session:
            grants = list(await session.scalars(select(Grant)))
        waiting = [
            asyncio.create_task(refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version))
            for grant in grants
        ]

        def looks() -> int:
            return sum(one.startswith("SELECT") and "holders" in one for one in statements)

        await until(lambda: looks() >= 4, "they have looked a few times")
        takes = [one for one in statements if one.startswith("UPDATE grants")]
        assert len(takes) == len(grants), "each tried once, and from then on they looked"
        await change(broker, lease_owner=None, lease_until=None)
        async with asyncio.timeout(60):
            await asyncio.gather(*waiting)
        assert looks() < len(grants) * 2, "one look is for all of them"
