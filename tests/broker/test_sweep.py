"""The background refresher: what is due is fresh before anybody asks."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert, select, update

from evergrant import clock as wall_clock
from evergrant import refresher
from evergrant.broker.access.authentication import authenticate
from evergrant.broker.grants import last_used
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.grants.lifetimes import lifetime
from evergrant.broker.refresh import due_apps as due_apps_module
from evergrant.broker.refresh import sweep
from evergrant.broker.refresh.claims import ClaimQuota, claim_due_grants
from evergrant.broker.refresh.due_apps import due_apps
from evergrant.broker.runtime import breaker
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.tokens import fetch
from evergrant.broker.tokens.fetch import Token, fetch_token
from evergrant.db import Grant, GrantUse, OutboundApp
from evergrant.db.types import database_now
from evergrant.practice.faults import edited, instead
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.held import HeldBack
from tests.infra.installation import APP_ID, Installation, installation, practice_provider, refreshes
from tests.infra.waiting import PATIENCE


@pytest.fixture
def here(settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setattr(sweep, "POLL_SECONDS", (0.05, 0.05))
    with installation(settings.model_copy(update={"refresher": False})) as running:
        for user in ("alice", "bob", "carol"):
            running.connected(user)
        yield running


@dataclass
class Crowd:
    """Two providers, of which only four calls are made at once: many are connected at the first, olga at the other."""

    here: Installation
    users: list[str]


@pytest.fixture
def crowd(settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crowd]:
    monkeypatch.setattr(sweep, "POLL_SECONDS", (0.05, 0.05))
    changes = {"refresher": False, "refresh_concurrency": 6, "refresh_concurrency_per_endpoint": 4}
    with (
        installation(settings.model_copy(update=changes)) as here,
        practice_provider(settings.public_url, access_token_seconds=3600) as other,
    ):
        here.backend.create_app({**other.registration, "id": "other", "name": "Other"})
        users = [f"user-{n}" for n in range(9)]
        for user in users:
            here.connected(user)
        here.connected("olga", appId="other")
        yield Crowd(here, users)


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
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await grants(broker)
            if all(found[user].token_version >= version for user in users):
                return found
            await asyncio.sleep(0.05)


async def fetched(broker: Broker, here: Installation, clock: Clock) -> Token:
    """Fetch alice's token through this very broker, as its server would."""
    backend = here.backend
    credential = f"Bearer {backend.project_id}:{backend.management_key}"
    principal = await authenticate(broker, credential, client_address="127.0.0.1", now=clock.now)
    return await fetch_token(broker, principal, fetch.FetchRequest(APP_ID, ResourceOwner("alice")), now=clock.now)


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
        async with asyncio.timeout(PATIENCE):
            while sum(grant.token_version for grant in (await grants(broker)).values()) < 5:
                await asyncio.sleep(0.05)
        failed = [grant for grant in (await grants(broker)).values() if grant.token_version == 1]
    assert len(failed) == 1
    assert "500" in failed[0].last_refresh_error
    assert failed[0].next_refresh_at is not None
    assert failed[0].next_refresh_at > clock.now


async def test_a_provider_that_hangs_does_not_hold_the_others_up(here: Installation, clock: Clock) -> None:
    clock.advance(3600 - 200)
    hanging = HeldBack()
    here.provider.state.next_token_answers.append(hanging)
    async with open_broker(here.settings) as broker, running_refresher(broker):
        try:
            async with asyncio.timeout(PATIENCE):
                while sum(grant.token_version for grant in (await grants(broker)).values()) < 5:
                    await asyncio.sleep(0.05)
        finally:
            hanging.released.set()


async def test_stopping_finishes_what_is_in_flight_and_claims_nothing_more(here: Installation, clock: Clock) -> None:
    clock.advance(3600 - 200)
    held = [HeldBack(), HeldBack()]
    here.provider.state.next_token_answers.extend(held)

    def release() -> None:
        for answer in held:
            answer.released.set()

    async with open_broker(here.settings.model_copy(update={"refresh_concurrency": 2})) as broker:
        async with running_refresher(broker):
            async with asyncio.timeout(PATIENCE):
                while here.provider.state.on_the_wire.total() < 2:
                    await asyncio.sleep(0.02)
            asyncio.get_running_loop().call_later(0.5, release)  # when it has been told to stop
        found = await grants(broker)
    assert sorted(grant.token_version for grant in found.values()) == [1, 2, 2]
    assert all(grant.lease_owner is None for grant in found.values())
    assert here.provider.state.reuse_detections == 0


async def due_since(broker: Broker, ages: dict[str, timedelta], *, now: datetime) -> None:
    """Make users' grants due since so long."""
    async with broker.database.write() as session:
        for user, age in ages.items():
            await session.execute(update(Grant).where(Grant.user_id == user).values(next_refresh_at=now - age))


async def the_app(broker: Broker) -> OutboundApp:
    async with broker.database.read() as session:
        return (await session.scalars(select(OutboundApp))).one()


async def test_claims_take_what_expires_first_and_never_twice(here: Installation, clock: Clock) -> None:
    async with open_broker(here.settings) as broker:
        app = await the_app(broker)
        ages = {"alice": timedelta(seconds=10), "bob": timedelta(seconds=30), "carol": timedelta(seconds=20)}
        await due_since(broker, ages, now=clock.now)
        first = await claim_due_grants(broker, [ClaimQuota((app.project_id, app.id), due=2, overdue=0)], now=clock.now)
        second = await claim_due_grants(broker, [ClaimQuota((app.project_id, app.id), due=2, overdue=0)], now=clock.now)
    assert [claim.leased.grant.user_id for claim in first] == ["bob", "carol"]
    assert [claim.leased.grant.user_id for claim in second] == ["alice"]


async def test_what_is_about_to_expire_goes_before_what_has_been_expired_for_long(
    here: Installation, clock: Clock
) -> None:
    async with open_broker(here.settings) as broker:
        app = await the_app(broker)
        ages = {"alice": timedelta(days=3), "bob": timedelta(minutes=1), "carol": timedelta(hours=1)}
        await due_since(broker, ages, now=clock.now)
        claims = await claim_due_grants(broker, [ClaimQuota((app.project_id, app.id), due=5, overdue=1)], now=clock.now)
    assert [claim.leased.grant.user_id for claim in claims] == ["bob", "carol"]


async def test_a_start_with_much_overdue_work_begins_slowly(crowd: Crowd, clock: Clock) -> None:
    here, users = crowd.here, crowd.users[:6]
    here.provider.state.token_latency = 0.2
    async with open_broker(here.settings) as broker:
        await due_since(broker, dict.fromkeys(users, timedelta(hours=3)), now=clock.now)
        async with running_refresher(broker):
            most = 0
            async with asyncio.timeout(PATIENCE):
                while refreshes(here) < 6:
                    under_way = sum(grant.lease_owner is not None for grant in (await grants(broker)).values())
                    most = max(most, under_way)
                    await asyncio.sleep(0.02)
            await until(broker, set(users), version=2)
    assert most == 1, "one at a time in the first seconds, instead of a stampede"


async def test_one_endpoint_gets_no_more_than_its_share_and_the_others_theirs(crowd: Crowd, clock: Clock) -> None:
    here, users = crowd.here, crowd.users
    here.provider.state.held = True
    clock.advance(3600 - 200)
    async with open_broker(here.settings) as broker, running_refresher(broker):
        found = await until(broker, {"olga"}, version=2)  # she does not wait for the provider that hangs
        assert sum(found[user].lease_owner is not None for user in users) <= 4
        here.provider.state.held = False
        await until(broker, set(users), version=2)
    assert refreshes(here) == len(users)


async def test_a_dead_provider_is_neither_hammered_nor_in_the_way(
    crowd: Crowd, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PAUSE", (600.0, 600.0))  # longer than this takes on any machine
    here, users = crowd.here, crowd.users
    here.provider.state.next_token_answers.extend(instead(503) for _ in range(100))
    clock.advance(3600 - 200)
    async with open_broker(here.settings) as broker:
        async with running_refresher(broker):
            await until(broker, {"olga"}, version=2)
            await asyncio.sleep(1.0)
        assert 5 <= refreshes(here) <= 8, "what was under way when the fifth failed, and then no more for a while"
    here.provider.state.next_token_answers.clear()
    clock.advance(11)  # over the pause of those that failed
    async with open_broker(here.settings) as broker, running_refresher(broker):
        await until(broker, set(users), version=2)
    assert here.provider.state.reuse_detections == 0


async def test_what_cannot_be_opened_does_not_stay_first_in_its_queue(crowd: Crowd, clock: Clock) -> None:
    here, users = crowd.here, crowd.users
    clock.advance(3600 - 200)
    async with open_broker(here.settings) as broker:
        sealed = (await grants(broker))["olga"].refresh_token  # somebody else's, which opens for nobody but her
        async with broker.database.write() as session:
            broken = update(Grant).where(Grant.user_id.in_(users[:4]))
            await session.execute(broken.values(refresh_token=sealed, next_refresh_at=clock.now - timedelta(minutes=4)))
        async with running_refresher(broker):
            found = await until(broker, set(users[4:]), version=2)
    assert {found[user].token_version for user in users[:4]} == {1}
    assert {found[user].status for user in users[:4]} == {"active"}
    assert "evergrant could not refresh" in found[users[0]].last_refresh_error


async def test_on_demand_apps_are_left_to_the_fetch(here: Installation, clock: Clock) -> None:
    here.backend.change_app(refreshPolicy="on_demand")
    clock.advance(3600 - 250)
    async with open_broker(here.settings) as broker, running_refresher(broker):
        async with asyncio.timeout(PATIENCE):
            while any(grant.next_refresh_at is not None for grant in (await grants(broker)).values()):
                await asyncio.sleep(0.05)
        assert refreshes(here) == 0
        # In threads: a call that blocks this loop can wait for a write of its own refresher, which then never ends.
        await asyncio.to_thread(here.connected, "dora")
        assert (await grants(broker))["dora"].next_refresh_at is None
        clock.advance(3600)
        assert (await asyncio.to_thread(here.backend.fetch, "alice")).status_code == 200  # the fetch refreshes
        assert refreshes(here) == 1
        assert (await grants(broker))["alice"].next_refresh_at is None
        # and back: those that expired meanwhile are taken up
        await asyncio.to_thread(here.backend.change_app, refreshPolicy="proactive")
        await until(broker, {"bob", "carol", "dora"}, version=2)


async def test_refresh_tokens_that_die_of_disuse_are_kept_alive_whatever_the_policy(
    here: Installation, clock: Clock
) -> None:
    here.backend.change_app(refreshPolicy="on_demand", refreshTokenIdleSeconds=60 * 86_400)
    here.connected("dora")
    async with open_broker(here.settings) as broker:
        due = (await grants(broker))["dora"].next_refresh_at
        assert due is not None
        assert timedelta(days=30) <= due - clock.now <= timedelta(days=40)
        async with running_refresher(broker):
            clock.advance(20 * 86_400)
            await asyncio.sleep(0.3)
            assert refreshes(here) == 0
            clock.advance(20 * 86_400)
            await until(broker, {"alice", "bob", "carol", "dora"}, version=2)
    assert refreshes(here) == 4


@pytest.mark.parametrize(("policy", "days"), [("on_demand", (30, 40)), ("proactive", (0.9, 1.0))])
async def test_a_token_whose_end_nobody_knows_is_kept_alive_and_by_policy_looked_at_daily(
    here: Installation, clock: Clock, policy: str, days: tuple[float, float]
) -> None:
    here.backend.change_app(refreshTokenIdleSeconds=60 * 86_400, refreshPolicy=policy)
    here.provider.state.next_token_answers.append(edited(expires_in=None))
    here.connected("dora")
    async with open_broker(here.settings) as broker:
        dora = (await grants(broker))["dora"]
    assert dora.expires_at is None
    assert dora.next_refresh_at is not None
    earliest, latest = (timedelta(days=number) for number in days)
    assert earliest <= dora.next_refresh_at - clock.now <= latest


DAY = 86_400


@pytest.mark.parametrize(
    ("policy", "ends_in", "earliest", "latest"),
    [
        ("proactive", 10 * DAY, 5 * DAY, 6.5 * DAY),
        ("proactive", 1800, 900, 1170),
        ("proactive", 90 * DAY, 29 * DAY, 30 * DAY),
        ("proactive", 600, 29 * DAY, 30 * DAY),  # nearer than anything could move it
        ("on_demand", 10 * DAY, None, None),
    ],
)
async def test_a_refresh_token_that_says_when_it_ends_is_used_well_before(
    here: Installation, clock: Clock, policy: str, ends_in: int, earliest: float | None, latest: float | None
) -> None:
    here.backend.change_app(refreshPolicy=policy)
    ends = edited(expires_in=30 * DAY, refresh_token_expires_in=ends_in)
    here.provider.state.next_token_answers.append(ends)
    here.connected("dora")
    async with open_broker(here.settings) as broker:
        dora = (await grants(broker))["dora"]
    if earliest is None or latest is None:
        assert dora.next_refresh_at is None
    else:
        assert dora.next_refresh_at is not None
        assert timedelta(seconds=earliest) <= dora.next_refresh_at - clock.now <= timedelta(seconds=latest)


async def test_an_idle_grant_is_refreshed_in_time_for_the_end_of_its_refresh_token(
    here: Installation, clock: Clock
) -> None:
    ends = edited(expires_in=600, refresh_token_expires_in=2 * DAY)
    here.provider.state.next_token_answers += [ends] * 20
    here.connected("dora")
    async with open_broker(here.settings) as broker, running_refresher(broker):
        clock.advance(31 * DAY)
        first = (await until(broker, {"dora"}, version=2))["dora"]
        assert first.next_refresh_at is not None
        assert timedelta(days=1) <= first.next_refresh_at - clock.now <= timedelta(days=1.3)
        clock.advance(1.4 * DAY)
        second = (await until(broker, {"dora"}, version=3))["dora"]
    assert second.refresh_token_expires_at is not None
    assert second.refresh_token_expires_at > clock.now


async def test_who_is_not_fetched_for_long_is_only_kept_alive_until_the_next_fetch(
    here: Installation, clock: Clock
) -> None:
    async with open_broker(here.settings) as broker:
        clock.advance(31 * 86_400)
        async with running_refresher(broker):  # refreshed a last time, as they are: a week is over
            found = await until(broker, {"alice", "bob", "carol"}, version=2)
        for grant in found.values():
            assert grant.next_refresh_at is not None
            assert timedelta(days=6) <= grant.next_refresh_at - clock.now <= timedelta(days=8)
        # somebody fetches while the token is fresh, and that is enough to be kept fresh again
        token = await fetched(broker, here, clock)
        await last_used.write_last_uses(broker)
        found = await grants(broker)
        async with broker.database.read() as session:
            assert [use.fetched_at for use in await session.scalars(select(GrantUse))] == [clock.now]
        assert found["alice"].next_refresh_at == token.grant.fresh_until
        clock.advance(3600 - 200)
        async with running_refresher(broker):
            found = await until(broker, {"alice"}, version=3)
        assert found["alice"].next_refresh_at is not None
        assert found["alice"].next_refresh_at - clock.now < timedelta(hours=1)
        assert found["bob"].token_version == 2


async def test_fetching_is_written_down_once_a_day_at_most(here: Installation, clock: Clock) -> None:
    async with open_broker(here.settings) as broker:
        await fetched(broker, here, clock)
        assert len(broker.uses.grants) == 1
        await last_used.write_last_uses(broker)
        clock.advance(60)
        await fetched(broker, here, clock)
        assert len(broker.uses.grants) == 0


async def test_finding_and_claiming_due_work_reads_the_index_and_never_every_grant(
    here: Installation, clock: Clock
) -> None:
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "grants" in statement:
            sent.append((statement, parameters))

    async with open_broker(here.settings) as broker:
        app, engine = await the_app(broker), broker.database.engine
        async with broker.database.write() as session:
            template = (await session.scalars(select(Grant).limit(1))).one()
            columns = {column.key: getattr(template, column.key) for column in Grant.__mapper__.columns}
            await session.execute(
                insert(Grant), [{**columns, "id": f"{n:032d}", "next_refresh_at": None} for n in range(2000)]
            )
        async with engine.connect() as connection:
            await connection.exec_driver_sql("ANALYZE")
        event.listen(engine.sync_engine, "before_cursor_execute", note)
        await due_apps(broker, now=clock.now)
        await claim_due_grants(broker, [ClaimQuota((app.project_id, app.id), due=5, overdue=5)], now=clock.now)
        event.remove(engine.sync_engine, "before_cursor_execute", note)
        assert len(sent) == 3, "which apps, what fell due lately, and what is overdue"
        explain = "EXPLAIN QUERY PLAN " if broker.database.is_sqlite else "EXPLAIN "
        async with engine.connect() as connection:
            for statement, parameters in sent:
                plan = str((await connection.exec_driver_sql(explain + statement, parameters)).all())
                assert "ix_grants_due" in plan, plan
                assert "SCAN grants" not in plan, plan
                assert "Seq Scan on grants" not in plan, plan


def test_the_background_comes_before_a_fetch_would_have_to_wait() -> None:
    now = wall_clock.now()
    for seconds in (10, 60, 3600, 86_400):
        for _ in range(50):
            times = lifetime(seconds, now=now)
            assert times.expires_at == now + timedelta(seconds=seconds)
            assert times.fresh_until is not None
            assert times.due is not None
            assert now < times.due <= times.fresh_until < times.expires_at
    assert lifetime(None, now=now).expires_at is None


def test_where_the_provider_refuses_to_refresh_earlier_the_background_comes_no_earlier() -> None:
    now = wall_clock.now()
    times = lifetime(600, now=now, margin_seconds=30)
    assert times.fresh_until == times.due == now + timedelta(seconds=570)
    short = lifetime(20, now=now, margin_seconds=30)  # such a margin cannot be meant
    assert short.fresh_until is not None
    assert short.fresh_until > now


async def test_a_claim_leaves_alone_what_the_database_says_must_wait(here: Installation, clock: Clock) -> None:
    async with open_broker(here.settings) as broker:
        app = await the_app(broker)
        await due_since(broker, dict.fromkeys(("alice", "bob", "carol"), timedelta(minutes=1)), now=clock.now)
        async with broker.database.write() as session:
            paused = update(Grant).where(Grant.user_id == "bob").values(refresh_not_before=database_now(600))
            await session.execute(paused)
        wanted = ClaimQuota((app.project_id, app.id), due=5, overdue=0)
        claims = await claim_due_grants(broker, [wanted], now=clock.now)
    assert {claim.leased.grant.user_id for claim in claims} == {"alice", "carol"}


async def test_one_claim_takes_of_each_app_no_more_than_its_number(crowd: Crowd, clock: Clock) -> None:
    async with open_broker(crowd.here.settings) as broker:
        ages = dict.fromkeys(crowd.users[:5], timedelta(minutes=1)) | dict.fromkeys(crowd.users[5:], timedelta(hours=1))
        await due_since(broker, ages | {"olga": timedelta(minutes=1)}, now=clock.now)
        found = await due_apps(broker, now=clock.now)
        assert {one.app_id: (one.due, one.overdue) for one in found} == {APP_ID: (5, 4), "other": (1, 0)}
        wanted = [ClaimQuota((one.project_id, one.app_id), due=3, overdue=2) for one in found]
        claims = await claim_due_grants(broker, wanted, now=clock.now)
        assert Counter(claim.app.id for claim in claims) == {APP_ID: 5, "other": 1}
        assert sum(claim.leased.grant.user_id in crowd.users[:5] for claim in claims) == 3


async def test_apps_whose_endpoints_have_no_room_hide_no_others(
    crowd: Crowd, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_apps_module, "PAGE", 1)
    monkeypatch.setattr(sweep, "PAGE", 1)
    monkeypatch.setattr(sweep, "POLL_SECONDS", (600.0, 600.0))  # all of it happens in one sweep
    crowd.here.provider.state.held = True
    async with open_broker(crowd.here.settings) as broker:
        await due_since(broker, dict.fromkeys(crowd.users, timedelta(minutes=4)), now=clock.now)
        await due_since(broker, {"olga": timedelta(minutes=1)}, now=clock.now)
        async with running_refresher(broker):
            await until(broker, {"olga"}, version=2)
            crowd.here.provider.state.held = False
            await until(broker, set(crowd.users), version=2)


async def test_what_waits_for_its_confirmation_is_due_when_that_has_come(here: Installation, clock: Clock) -> None:
    here.backend.create_app({**here.provider.registration, "id": "asks", "name": "Asks", "requireConfirmation": True})
    back = here.browser().connect(here.backend.connect_url("dora", appId="asks"))
    async with open_broker(here.settings) as broker:
        pending = (await grants(broker))["dora"]
        assert (pending.status, pending.next_refresh_at) == ("pending", None)
        confirmed = here.backend.post("app/connect/confirm", {"confirmation": back["confirmation"], "userId": "dora"})
        assert confirmed.status_code == 200, confirmed.text
        assert (await grants(broker))["dora"].next_refresh_at == pending.fresh_until
