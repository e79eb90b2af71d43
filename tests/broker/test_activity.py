"""What is counted: by each process in memory, and written once a minute so that replicas add up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import select

from evergrant import clock as wall_clock
from evergrant.broker.access.authentication import authenticate
from evergrant.broker.activity import folding, writing
from evergrant.broker.activity.folding import fold_days
from evergrant.broker.activity.series import ActivityOf, Sum, read_activity
from evergrant.broker.activity.writing import note_refresher, prune_activity, write_activity
from evergrant.broker.operations.setup import initialise
from evergrant.broker.projects.trusted_issuers import create_issuer
from evergrant.broker.runtime import unwritten_activity
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.principal import ALL_PERMISSIONS, Principal
from evergrant.broker.runtime.unwritten_activity import UnwrittenActivity
from evergrant.db import Activity, TrustedIssuer
from evergrant.errors import AuthenticationFailed, Unavailable
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import installation
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.rows import rows
from tests.infra.scripted import serving

ONE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@asynccontextmanager
async def brokers(settings: Settings) -> AsyncIterator[tuple[Broker, Broker, str]]:
    """Two replicas without a face, and the id of a project."""
    made = await initialise(settings, project_name="Shop", redirect_origins=["https://app.example.com"])
    async with open_broker(settings) as one, open_broker(settings) as other:
        yield one, other, made.project_id


async def written(broker: Broker) -> dict[tuple[str, str], tuple[int, int, int]]:
    async with broker.database.read() as session:
        rows = list(await session.scalars(select(Activity).order_by(Activity.hour)))
    return {(row.app_id, row.counter): (row.n, row.ms_sum, row.ms_max) for row in rows}


async def test_replicas_add_up_whichever_writes_first(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "AT_ONCE", 3)
    async with brokers(settings) as (one, other, project):
        for broker, ms in ((one, 10.4), (other, 30.0)):
            for app in "abcdefgh":
                broker.activity.note(project, app, "refresh:ok", ms)
        one.activity.note("Pgone", "a", "refresh:ok")
        await asyncio.gather(write_activity(one), write_activity(other))
        one.activity.note(project, "a", "refresh:ok", 1)
        await write_activity(one)
        found = await written(one)
        assert found["a", "refresh:ok"] == (3, 41, 30)
        assert {found[app, "refresh:ok"] for app in "bcdefgh"} == {(2, 40, 30)}
        assert len(one.activity) == len(other.activity) == 0


@ONE
async def test_what_the_database_does_not_take_waits_and_loses_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with brokers(settings) as (broker, _, project):
        broker.activity.note(project, "a", "refresh:ok", 5)

        async def away(*_: object) -> None:
            broker.activity.note(project, "a", "refresh:ok", 7)
            raise Unavailable

        with monkeypatch.context() as patch:
            patch.setattr(writing, "_add", away)
            with pytest.raises(Unavailable):
                await write_activity(broker)
        await write_activity(broker)
        assert (await written(broker))["a", "refresh:ok"] == (2, 12, 7)


@ONE
async def test_hours_stand_apart_and_old_ones_are_forgotten(settings: Settings, clock: Clock) -> None:
    async with brokers(settings) as (broker, _, project):
        for _ in range(2):
            broker.activity.note(project, "a", "refresh:ok")
            clock.advance(3_600)
        await write_activity(broker)
        async with broker.database.read() as session:
            hours = list(await session.scalars(select(Activity.hour).where(Activity.app_id == "a")))
        assert len(hours) == 2
        assert await prune_activity(broker, now=clock.now + timedelta(days=89)) == 0
        assert await prune_activity(broker, now=clock.now + timedelta(days=91)) >= 2
        assert await written(broker) == {}


def told(found: ActivityOf) -> tuple[object, ...]:
    """What charts tell; of a refresher, when it was here."""
    for sums in (found.total, *found.by_app.values(), *(step.sums for step in found.steps)):
        if refresher := sums.pop(writing.REFRESHER, None):
            sums[writing.REFRESHER] = Sum(refresher.n)
    return found.steps, found.by_app, found.total, found.refresher_seen_at


async def test_days_that_are_over_are_folded_and_read_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "AT_ONCE", 2)
    now = wall_clock.now().replace(hour=9, minute=30)
    async with brokers(settings) as (one, other, project):
        async with one.database.write() as session:
            for n in range(4 * 24):
                at = (now - timedelta(hours=n)).replace(minute=0, second=0, microsecond=0)
                counters = [("a", "refresh:ok", n), ("a", "refresh:ended", n), ("b", "refresh:ok", 1)]
                counters += [("", "refresher", 7)] if n > 50 else []  # none was here lately
                for app, counter, ms in counters:
                    of = {"project_id": project, "hour": at, "app_id": app, "counter": counter}
                    session.add(Activity(**of, n=2, ms_sum=ms, ms_max=ms))
        who = Principal(project, "k", ALL_PERMISSIONS, frozenset(), (), None)
        periods = ("24h", "7d")
        before = [told(await read_activity(one, who, period, now=now)) for period in periods]
        folded = await asyncio.gather(fold_days(one, now=now), fold_days(other, now=now))
        assert [told(await read_activity(one, who, period, now=now)) for period in periods] == before
        async with one.database.read() as session:
            hours = list(await session.scalars(select(Activity.hour).where(Activity.app_id == "b")))
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        kept = [today + timedelta(hours=n) for n in range(-24, 10)]
        assert sorted(hours) == [today - timedelta(days=n) for n in (4, 3, 2)] + kept
        assert sum(folded) > 0
        assert await fold_days(one, now=now) == 0


@ONE
async def test_a_refresher_leaves_a_sign_in_each_open_project(settings: Settings) -> None:
    async with brokers(settings) as (broker, _, _):
        await note_refresher(broker)
        await write_activity(broker)
        n, _, latest = (await written(broker))["", "refresher"]
        assert (n, 0 <= latest < 3_600_000) == (1, True)


def test_memory_is_bounded_whatever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwritten_activity, "MOST", 2)
    counts = UnwrittenActivity()
    for app in "abcd":
        counts.note("P", app, "refresh:ok")
    counts.note("P", "a", "refresh:ok")
    assert sorted(tally.n for tally in counts.take().values()) == [1, 2]


def test_what_happens_is_counted_and_a_stop_writes_it_down(settings: Settings) -> None:
    body = {"appId": "practice", "userId": "alice"}
    with installation(settings) as here:
        here.connected("alice")
        here.backend.connect_url("bob")
        for change, status in (
            ({}, 200),
            ({"options": {"forceRefresh": True}}, 200),
            ({"userId": "nobody"}, 404),
            ({"appId": "made-up"}, 404),
        ):
            assert here.backend.post("app/user/token/latest", {**body, **change}).status_code == status
    counts = {(row["app_id"], row["counter"]): row["n"] for row in rows(settings, "activity")}
    assert (counts["practice", "connect:started"], counts["practice", "connect:finished"]) == (2, 1)
    assert counts["practice", "refresh:ok"] == 1
    assert sum(n for (_, counter), n in counts.items() if counter.startswith("call:")) == 1
    fetches = {(app, name.rpartition(":")[0]): n for (app, name), n in counts.items() if name.startswith("fetch:")}
    # An app that nobody made becomes no row: a caller may name whatever comes to mind.
    assert fetches == {("practice", "fetch:answered"): 2, ("practice", "fetch:refused"): 1, ("", "fetch:refused"): 1}


@ONE
async def test_the_tokens_of_an_issuer_are_counted_and_the_last_key_is_remembered(settings: Settings) -> None:
    with serving(Issuer()) as idp:
        async with brokers(settings) as (broker, other, project):
            trusted = await create_issuer(broker, project, issuer=idp.url, audience=AUDIENCE, now=wall_clock.now())

            async def bring(token: str) -> None:
                await authenticate(
                    broker, f"Bearer {project}:{token}", client_address="192.0.2.1", now=wall_clock.now()
                )

            await bring(idp.session("alice"))
            with pytest.raises(AuthenticationFailed):
                await bring(idp.session("bob", aud="somebody else"))
            for one in (broker, other):
                one.activity.note_issuer(project, trusted.id, "an older key", at=wall_clock.now() - timedelta(days=1))
            await bring(idp.session("carol"))
            await write_activity(broker)
            await write_activity(other)
            counts = await written(broker)
            assert counts["", f"issuer:{trusted.id}:refused"][0] == 1
            assert counts["", f"issuer:{trusted.id}:accepted"][0] == 4
            async with broker.database.read() as session:
                row = await session.get_one(TrustedIssuer, (project, trusted.id))
            assert row.last_kid == "key-1"
            assert row.last_seen_at is not None
