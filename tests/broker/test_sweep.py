"""The background refresher: what is due is fresh before anybody asks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import insert, select, update

from evergrant import clock as wall_clock
from evergrant import refresher
from evergrant.broker.grants import lifetime
from evergrant.broker.runtime import Broker, open_broker
from evergrant.broker.sweep import claim_due
from evergrant.db import Grant
from evergrant.practice.faults import Fault, instead
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import Installation, installation


@pytest.fixture
def here(settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setattr(refresher, "POLL_SECONDS", 0.05)
    with installation(settings.model_copy(update={"refresher": False})) as running:
        for user in ("alice", "bob", "carol"):
            running.connected(user)
        yield running


@contextlib.asynccontextmanager
async def running_refresher(broker: Broker) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    task = asyncio.create_task(refresher.refresh_until(broker, stop))
    try:
        yield task
    finally:
        stop.set()
        await task


async def grants(broker: Broker) -> dict[str, Grant]:
    async with broker.database.read() as session:
        return {grant.user_id: grant for grant in await session.scalars(select(Grant))}


async def until(broker: Broker, users: set[str], *, version: int) -> dict[str, Grant]:
    async with asyncio.timeout(10):
        while True:
            found = await grants(broker)
            if all(found[user].token_version >= version for user in users):
                return found
            await asyncio.sleep(0.05)


def refreshes(here: Installation) -> int:
    return here.provider.state.token_calls["refresh_token"]


async def test_due_grants_are_refreshed_without_anybody_fetching(here: Installation, clock: Clock) -> None:
    async with open_broker(here.settings) as broker:
        async with running_refresher(broker):
            await asyncio.sleep(0.3)
            assert refreshes(here) == 0  # nothing is due yet
            clock.advance(3600 - 250)
            found = await until(broker, {"alice", "bob", "carol"}, version=2)
        assert refreshes(here) == 3
        for grant in found.values():
            assert grant.next_refresh_at is not None
            assert grant.next_refresh_at > clock.now + timedelta(minutes=50)
    assert here.backend.token("alice")["lastRefreshError"] == ""
    assert refreshes(here) == 3


async def test_two_refreshers_share_the_work_and_repeat_none(here: Installation, clock: Clock) -> None:
    clock.advance(3601)
    here.provider.state.token_latency = 0.3
    async with (
        open_broker(here.settings) as one,
        open_broker(here.settings) as other,
        running_refresher(one),
        running_refresher(other),
    ):
        await until(one, {"alice", "bob", "carol"}, version=2)
        await asyncio.sleep(0.3)
    assert refreshes(here) == 3
    assert here.provider.state.reuse_detections == 0


async def test_a_failing_grant_does_not_stop_the_others(here: Installation, clock: Clock) -> None:
    clock.advance(3601)
    here.provider.state.next_token_answers.append(instead(500, "oops"))
    async with open_broker(here.settings) as broker, running_refresher(broker):
        async with asyncio.timeout(10):
            while sum(grant.token_version for grant in (await grants(broker)).values()) < 5:
                await asyncio.sleep(0.05)
        failed = [grant for grant in (await grants(broker)).values() if grant.token_version == 1]
    assert len(failed) == 1
    assert "500" in failed[0].last_refresh_error
    assert failed[0].next_refresh_at is not None
    assert failed[0].next_refresh_at > clock.now


async def test_a_provider_that_hangs_does_not_hold_the_others_up(here: Installation, clock: Clock) -> None:
    clock.advance(3601)
    here.provider.state.next_token_answers.append(Fault(delay=3.0))
    async with open_broker(here.settings) as broker, running_refresher(broker):
        async with asyncio.timeout(2.5):
            while sum(grant.token_version for grant in (await grants(broker)).values()) < 5:
                await asyncio.sleep(0.05)


async def test_stopping_finishes_what_is_in_flight_and_claims_nothing_more(here: Installation, clock: Clock) -> None:
    clock.advance(3601)
    here.provider.state.token_latency = 0.6
    async with open_broker(here.settings) as broker:
        async with running_refresher(broker):
            async with asyncio.timeout(5):
                while refreshes(here) < 3:
                    await asyncio.sleep(0.02)
        found = await grants(broker)
    assert [grant.token_version for grant in found.values()] == [2, 2, 2]
    assert all(grant.lease_owner is None for grant in found.values())
    assert here.provider.state.reuse_detections == 0


async def test_claims_take_the_longest_overdue_first_and_never_twice(here: Installation, clock: Clock) -> None:
    async with open_broker(here.settings) as broker:
        async with broker.database.write() as session:
            for user, age in (("alice", 10), ("bob", 30), ("carol", 20)):
                due = clock.now - timedelta(seconds=age)
                await session.execute(update(Grant).where(Grant.user_id == user).values(next_refresh_at=due))
        owners = {grant.id: user for user, grant in (await grants(broker)).items()}
        first = await claim_due(broker, limit=2, now=clock.now)
        second = await claim_due(broker, limit=2, now=clock.now)
    assert {owners[claim.grant_id] for claim in first} == {"bob", "carol"}
    assert [owners[claim.grant_id] for claim in second] == ["alice"]


async def test_finding_due_work_uses_the_index_alone(here: Installation, clock: Clock) -> None:
    async with open_broker(here.settings) as broker:
        explain = "EXPLAIN QUERY PLAN " if broker.database.is_sqlite else "EXPLAIN "
        async with broker.database.write() as session:
            template = (await session.scalars(select(Grant).limit(1))).one()
            columns = {column.key: getattr(template, column.key) for column in Grant.__mapper__.columns}
            await session.execute(
                insert(Grant), [{**columns, "id": f"{n:032d}", "next_refresh_at": None} for n in range(2000)]
            )
        async with broker.database.engine.connect() as connection:
            await connection.exec_driver_sql("ANALYZE")
            plan = await connection.exec_driver_sql(
                explain
                + "SELECT id FROM grants WHERE next_refresh_at <= '2026-01-01' ORDER BY next_refresh_at LIMIT 50"
            )
            text = "\n".join(str(row) for row in plan)
    assert "ix_grants_due" in text


def test_the_background_comes_before_a_fetch_would_have_to_wait() -> None:
    now = wall_clock.utcnow()
    for seconds in (10, 60, 3600, 86_400):
        for _ in range(50):
            times = lifetime(seconds, refreshable=True, now=now)
            assert times.expires_at == now + timedelta(seconds=seconds)
            assert times.fresh_until is not None
            assert times.next_refresh_at is not None
            assert now < times.next_refresh_at <= times.fresh_until < times.expires_at
    assert lifetime(3600, refreshable=False, now=now).next_refresh_at is None
    assert lifetime(None, refreshable=True, now=now).expires_at is None
