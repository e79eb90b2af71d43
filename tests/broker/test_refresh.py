"""Refreshing when a fetch needs it: who calls the provider, what is believed, what is kept."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, event, select, update

from evergrant import pace
from evergrant.broker.apps.apps import load_app
from evergrant.broker.refresh import failures, lease, refresh
from evergrant.broker.refresh.attempt import send_refresh_token
from evergrant.broker.refresh.lease import LeasedGrant
from evergrant.broker.refresh.refresh import ClaimedGrant, refresh_grant
from evergrant.broker.runtime import breaker, endpoints
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.db import Grant, GrantEvent
from evergrant.db.types import database_now
from evergrant.errors import ReauthorizationRequired, UpstreamError, UpstreamUnavailable
from evergrant.oauth2 import sending
from evergrant.oauth2.token_response import TokenResponse
from evergrant.pace import Pace
from evergrant.practice.faults import Fault, dropped, edited, half_a_body, html, instead
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.held import HeldBack
from tests.infra.installation import APP_ID, SCOPES, Installation, installation, refreshes
from tests.infra.rows import execute
from tests.infra.waiting import PATIENCE, wait_until

LIFETIME = 3600
EXPIRED = LIFETIME + 1
STALE = LIFETIME - 200
"""Within the margin of five minutes, but still valid."""


@pytest.fixture
def here(settings: Settings, clock: Clock) -> Iterator[Installation]:
    """alice is connected; time stands still until a test moves it."""
    settings = settings.model_copy(update={"refresher": False})
    with installation(settings, access_token_seconds=LIFETIME) as running:
        running.connected("alice")
        yield running


def works(here: Installation, token: dict[str, Any]) -> bool:
    return here.provider.lets_in(token)


def works_at_userinfo(here: Installation, token: dict[str, Any]) -> bool:
    return here.provider.lets_in(token, path="/userinfo")


def nothing_was_lost(here: Installation) -> bool:
    state = here.provider.state
    return state.reuse_detections == 0 and not state.revoked_families


def test_a_fresh_token_is_handed_out_without_asking_the_provider(here: Installation) -> None:
    assert here.backend.token() == here.backend.token()
    assert refreshes(here) == 0


@pytest.mark.parametrize("age", [STALE, EXPIRED])
def test_a_token_at_its_end_is_refreshed_first(here: Installation, clock: Clock, age: int) -> None:
    first = here.backend.token()
    clock.advance(age)
    second = here.backend.token()
    assert second["accessToken"] != first["accessToken"]
    assert second["id"] == first["id"]
    assert second["lastRefreshTime"] == str(int(clock.now.timestamp()))
    assert works(here, second)
    assert list((here.settings.data_dir / "journal").iterdir()) == [], "what has landed is forgotten"


def test_many_callers_at_once_cost_one_call(here: Installation, clock: Clock) -> None:
    clock.advance(EXPIRED)
    here.provider.state.token_latency = 0.3
    with ThreadPoolExecutor(40) as pool:
        tokens = list(pool.map(lambda _: here.backend.token(), range(40)))
    assert len({token["accessToken"] for token in tokens}) == 1
    assert refreshes(here) == 1
    assert nothing_was_lost(here)


def test_a_caller_that_hangs_up_does_not_cancel_the_refresh(here: Installation, clock: Clock) -> None:
    clock.advance(EXPIRED)
    here.provider.state.held = True
    while not here.provider.state.on_the_wire.total():  # a caller can be gone before it has been heard
        with pytest.raises(httpx2.ReadTimeout):
            here.backend.http.post(
                "/v1/mgmt/outbound/app/user/token",
                json={"appId": APP_ID, "userId": "alice", "scopes": SCOPES},
                timeout=httpx2.Timeout(PATIENCE, read=0.2),
            )
    here.provider.state.held = False
    assert works(here, here.backend.token())
    assert refreshes(here) == 1
    assert nothing_was_lost(here)


TRANSIENT = {
    "500": instead(500, "oops", media_type="text/plain"),
    "503 with JSON": instead(503, {"error": "temporarily_unavailable"}),
    "429 with a JSON body": instead(429, {"error": "slow_down"}),
    "a web page": html(),
    "an empty object": instead(200, {}),
    "text that is not JSON": instead(200, "access_token", media_type="application/json"),
    "half a body": half_a_body(lands=False),
    "a reset": dropped(lands=False),
}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
def test_while_the_provider_fails_a_valid_token_is_still_handed_out(
    here: Installation, clock: Clock, fault: Fault
) -> None:
    first = here.backend.token()
    clock.advance(STALE)
    here.provider.state.next_token_answers.append(fault)
    again = here.backend.token()
    assert again["accessToken"] == first["accessToken"]
    assert again["lastRefreshError"] == ""  # as it was when the token was read; the row has the error now
    assert here.backend.token()["lastRefreshError"] != ""


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
def test_while_the_provider_fails_an_expired_token_is_never_handed_out(
    here: Installation, clock: Clock, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "ON_DEMAND_PAUSE", (0.05, 0.05))
    clock.advance(EXPIRED)
    here.provider.state.next_token_answers.append(fault)
    answer = here.backend.fetch()
    assert (answer.status_code, answer.json()["errorCode"]) == (503, "E111505")
    assert int(answer.headers["retry-after"]) >= 1
    # and nothing is wrong with the grant: it recovers by itself
    assert _eventually_works(here)
    assert nothing_was_lost(here)


def test_a_token_endpoint_that_has_moved_is_the_apps_to_correct(here: Installation, clock: Clock) -> None:
    clock.advance(EXPIRED)
    here.provider.state.next_token_answers.append(
        instead(308, "", headers={"Location": "http://169.254.169.254/v2?x=1"})
    )
    answer = here.backend.fetch()
    assert (answer.status_code, answer.json()["errorCode"]) == (502, "E111506")
    told = "has moved to http://169.254.169.254/v2. Redirects are not followed; update the app's URLs."
    assert told in answer.json()["message"]
    assert told in here.backend.app()["health"]["reason"]
    here.backend.change_app()  # by which whatever was failing is tried again at once
    assert works(here, here.backend.token())
    assert nothing_was_lost(here)


def _eventually_works(here: Installation) -> bool:
    wait_until(lambda: here.backend.fetch().status_code == 200, "the provider's bad moment is over")
    return works(here, here.backend.token())


def test_a_provider_that_hangs_is_given_up_on(
    here: Installation, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PACE", pace.Pace(call=0.3))
    clock.advance(EXPIRED)
    too_late = instead(200, {"access_token": "too late", "token_type": "Bearer"}, delay=5.0)
    here.provider.state.next_token_answers.append(too_late)
    answer = here.backend.fetch()
    assert (answer.status_code, answer.json()["errorCode"]) == (503, "E111505")
    assert answer.json()["message"] == "127.0.0.1 did not answer in time."


def test_the_call_always_ends_before_the_lease_does() -> None:
    assert Pace().call * refresh.CALL_MARGIN < Pace().lease


def test_retry_after_is_obeyed_even_for_waiting_callers(here: Installation, clock: Clock) -> None:
    clock.advance(EXPIRED)
    here.provider.state.next_token_answers.append(instead(429, "", headers={"Retry-After": "120"}))
    first, second = here.backend.fetch(), here.backend.fetch()
    assert (first.status_code, second.status_code) == (503, 503)
    assert int(first.headers["retry-after"]) in range(115, 125)
    assert int(second.headers["retry-after"]) in range(115, 125)
    assert refreshes(here) == 1


def test_a_failing_provider_is_not_hammered_by_many_callers(here: Installation, clock: Clock) -> None:
    clock.advance(EXPIRED)
    here.provider.state.next_token_answers.extend([instead(500, "")] * 50)
    for _ in range(10):
        assert here.backend.fetch().status_code == 503
    assert refreshes(here) <= 2


def test_invalid_grant_ends_the_consent_and_says_what_to_do(here: Installation, clock: Clock) -> None:
    for family in here.provider.state.families:
        family.revoked_because = "the user's own wish"
    clock.advance(STALE)
    for _ in range(3):
        answer = here.backend.fetch()
        assert (answer.status_code, answer.json()["errorCode"]) == (404, "E111504")
        details = answer.json()["details"]
        assert details["reason"] == "reauthorization_required"
        assert "Practice contacts" in details["lastRefreshError"]
        assert "invalid_grant" in details["lastRefreshError"]
    [token] = here.backend.get("tokens?userId=alice").json()["tokens"]
    forced = here.backend.post("token/refresh", {"id": token["id"]})
    assert (forced.status_code, forced.json()["details"]["reason"]) == (404, "reauthorization_required")
    assert refreshes(here) == 1  # a dead consent is not tried again
    here.connected("alice")
    assert works(here, here.backend.token())


def test_a_refused_registration_is_the_operators_to_mend_and_the_consent_stays(
    here: Installation, clock: Clock
) -> None:
    here.backend.post("app/update", {"app": {**here.provider.registration, "clientSecret": "wrong"}})
    clock.advance(EXPIRED)
    answer = here.backend.fetch()
    assert (answer.status_code, answer.json()["errorCode"]) == (502, "E111506")
    assert answer.json()["details"]["providerError"] == "invalid_client"
    app = here.backend.get(f"app/{APP_ID}").json()["app"]
    assert app["health"]["status"] == "unhealthy"
    assert "invalid_client" in app["health"]["reason"]

    here.backend.post("app/update", {"app": here.provider.registration})
    assert works(here, here.backend.token())
    assert here.backend.get(f"app/{APP_ID}").json()["app"]["health"]["status"] == "ok"


def test_no_new_refresh_token_keeps_the_old_one(here: Installation, clock: Clock) -> None:
    before = here.backend.token(options={"withRefreshToken": True})
    # a provider that does not rotate: the old token is still good there, and no other is known to us
    here.provider.state.next_token_answers.append(
        instead(200, {"access_token": "another", "token_type": "Bearer", "expires_in": 3600})
    )
    clock.advance(EXPIRED)
    after = here.backend.token(options={"withRefreshToken": True})
    assert (after["accessToken"], after["refreshToken"]) == ("another", before["refreshToken"])
    clock.advance(EXPIRED)
    assert works(here, here.backend.token())


def test_an_answer_without_a_lifetime_means_the_lifetime_it_had_before(here: Installation, clock: Clock) -> None:
    here.provider.state.next_token_answers.append(edited(expires_in=None))
    clock.advance(EXPIRED)
    assert here.backend.token()["accessTokenExpiry"] == str(int(clock.now.timestamp()) + LIFETIME)
    clock.advance(EXPIRED)
    assert works(here, here.backend.token())


@pytest.mark.parametrize("scope", ["", None])
def test_an_answer_without_scopes_leaves_them_as_they_were(here: Installation, clock: Clock, scope: str | None) -> None:
    here.provider.state.next_token_answers.append(edited(scope=scope))
    clock.advance(EXPIRED)
    assert sorted(here.backend.token()["scopes"]) == sorted(SCOPES)


def test_scopes_that_the_provider_took_away_are_gone(here: Installation, clock: Clock) -> None:
    here.provider.state.next_token_answers.append(edited(scope="openid"))
    clock.advance(EXPIRED)
    for _ in range(2):  # the fetch that finds it out, and every one after
        answer = here.backend.fetch()
        assert (answer.status_code, answer.json()["details"]["missingScopes"]) == (404, ["contacts.readonly"])
    assert works_at_userinfo(here, here.backend.token(scopes=["openid"]))
    assert refreshes(here) == 1


def test_a_forced_refresh_brings_a_new_token(here: Installation) -> None:
    first = here.backend.token()
    second = here.backend.token(options={"forceRefresh": True})
    assert second["accessToken"] != first["accessToken"]
    assert works(here, second)


def test_forced_refreshes_within_a_few_seconds_share_one(here: Installation, clock: Clock) -> None:
    first = here.backend.token(options={"forceRefresh": True})
    assert here.backend.token(options={"forceRefresh": True}) == first
    clock.advance(10)
    assert here.backend.token(options={"forceRefresh": True})["accessToken"] != first["accessToken"]
    assert refreshes(here) == 2


def test_a_forced_refresh_never_answers_with_the_old_token(here: Installation) -> None:
    here.provider.state.next_token_answers.append(instead(500, ""))
    answer = here.backend.fetch(options={"forceRefresh": True})
    assert answer.status_code == 503
    assert here.backend.fetch().status_code == 200  # who does not force still gets the valid one


def test_a_token_lives_at_least_as_long_as_asked_or_is_refreshed(here: Installation, clock: Clock) -> None:
    first = here.backend.token(options={"minimumSeconds": 1800})
    clock.advance(1000)
    assert here.backend.token(options={"minimumSeconds": 1800}) == first
    clock.advance(1000)
    second = here.backend.token(options={"minimumSeconds": 1800})
    assert second["accessToken"] != first["accessToken"]


def test_a_token_that_cannot_be_refreshed_is_handed_out_to_its_end_and_then_needs_the_user(
    here: Installation, clock: Clock
) -> None:
    app = {**here.provider.registration, "accessType": "online"}
    assert here.backend.post("app/update", {"app": app}).status_code == 200
    here.connected("bob")
    token = here.backend.token("bob")
    assert token["hasRefreshToken"] is False
    clock.advance(LIFETIME - 1)
    assert here.backend.token("bob", options={"forceRefresh": True}) == token
    clock.advance(2)
    answer = here.backend.fetch("bob")
    assert answer.json()["details"]["reason"] == "reauthorization_required"
    assert refreshes(here) == 0


async def _grant(broker: Broker) -> Grant:
    async with broker.database.read() as session:
        return (await session.scalars(select(Grant))).one()


async def _take_over(broker: Broker, **values: Any) -> None:
    async with broker.database.write() as session:
        await session.execute(update(Grant).values(**values).execution_options(synchronize_session=False))


async def test_callers_in_one_process_share_a_refresh_and_none_waits_for_the_lease(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        grant = await _grant(broker)
        results = await asyncio.gather(
            *(refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version) for _ in range(20))
        )
        assert broker.metrics.registry.get_sample_value("evergrant_lease_conflicts_total") == 0
    assert {result.token_version for result in results} == {grant.token_version + 1}
    assert refreshes(here) == 1


async def test_two_processes_refresh_a_grant_once(here: Installation, clock: Clock) -> None:
    clock.advance(EXPIRED)
    here.provider.state.token_latency = 0.5
    async with open_broker(here.settings) as one, open_broker(here.settings) as other:
        grant = await _grant(one)
        results = await asyncio.gather(
            *(
                refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version)
                for broker in (one, other) * 10
            )
        )
    assert {result.token_version for result in results} == {grant.token_version + 1}
    assert refreshes(here) == 1


@contextlib.asynccontextmanager
async def on_the_wire(
    here: Installation, broker: Broker, answer: Fault | None = None
) -> AsyncIterator[tuple[Grant, asyncio.Task[Grant]]]:
    """Refresh alice's grant, and let the provider answer when the block has ended: this, or what it always does."""
    state, held, grant = here.provider.state, HeldBack(fault=answer or Fault()), await _grant(broker)
    state.next_token_answers.append(held)
    refreshing = refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version)
    task = asyncio.create_task(refreshing)
    try:
        async with asyncio.timeout(PATIENCE):
            while not state.on_the_wire.total():
                await asyncio.sleep(0.01)
        yield grant, task
    finally:
        held.released.set()


async def test_a_holder_that_lost_its_lease_does_not_overwrite_newer_tokens(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        async with on_the_wire(here, broker) as (grant, paused):
            # meanwhile another process took the lease over and landed newer tokens
            await _take_over(
                broker,
                lease_owner=None,
                lease_until=None,
                token_version=grant.token_version + 5,
                last_refresh_error="the newer state",
            )
        assert (await paused).token_version == grant.token_version + 5
        now = await _grant(broker)
    assert (now.access_token, now.last_refresh_error) == (grant.access_token, "the newer state")


@pytest.mark.parametrize("answer", [instead(500, ""), instead(401, {"error": "invalid_client"}), dropped(lands=False)])
async def test_a_holder_that_lost_its_lease_notes_no_failure_on_its_successors_row(
    here: Installation, answer: Fault
) -> None:
    async with open_broker(here.settings) as broker:
        async with on_the_wire(here, broker, answer) as (_, paused):
            await _take_over(broker, lease_owner="the next", lease_until=database_now(60))
        with pytest.raises(UpstreamError):
            await paused
        now = await _grant(broker)
    assert (now.lease_owner, now.refresh_failures, now.last_refresh_error) == ("the next", 0, "")


async def test_invalid_grant_is_not_believed_when_another_holder_has_rotated_the_token(
    here: Installation, clock: Clock
) -> None:
    async with open_broker(here.settings) as broker:
        async with on_the_wire(here, broker, instead(400, {"error": "invalid_grant"})) as (grant, refused):
            await _take_over(broker, token_version=grant.token_version + 1)
        assert (await refused).token_version == grant.token_version + 1
        now = await _grant(broker)
    assert now.lease_owner is None
    # The provider may have taken the refused copy for a theft and ended the newer tokens too: they are tried at once.
    assert max(now.fresh_until or clock.now, now.next_refresh_at or clock.now) <= clock.now
    assert here.backend.fetch().status_code == 200


async def test_a_reconnect_during_a_refresh_wins(here: Installation) -> None:
    async with open_broker(here.settings) as broker:
        async with on_the_wire(here, broker) as (old, late):
            await asyncio.to_thread(here.connected, "alice")
        with pytest.raises(Exception, match="deleted or replaced"):
            await late
        new = await _grant(broker)
    assert new.id != old.id
    assert works(here, here.backend.token())


async def test_an_answer_is_landed_even_if_the_database_was_away_when_it_came(here: Installation) -> None:
    outages = [ConnectionResetError("away"), ConnectionResetError("still away")]

    def away_once_the_provider_was_asked(*_: object) -> None:
        if refreshes(here) and outages:
            raise outages.pop(0)

    async with open_broker(here.settings) as broker:
        grant = await _grant(broker)
        event.listen(Engine, "before_cursor_execute", away_once_the_provider_was_asked)  # of whatever connections
        try:
            landed = await refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version)
        finally:
            event.remove(Engine, "before_cursor_execute", away_once_the_provider_was_asked)
    assert outages == [], "the database was never away, so this test shows nothing"
    assert landed.token_version == grant.token_version + 1
    assert works(here, here.backend.token())
    assert refreshes(here) == 1
    assert nothing_was_lost(here)


async def test_an_answer_and_what_the_timeline_says_of_it_land_in_one_trip_to_the_database(here: Installation) -> None:
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if refreshes(here) and "grant" in statement:  # others are signs of life
            sent.append(statement.split("(")[0].strip())

    async with open_broker(here.settings) as broker:
        grant = await _grant(broker)
        event.listen(Engine, "before_cursor_execute", note)
        try:
            await refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        if broker.database.is_sqlite:  # it lies in this process's own file
            assert [one.split()[:2] for one in sent] == [["UPDATE", "grants"], ["INSERT", "INTO"]]
        else:
            assert sent == ["WITH landed AS"]
        async with broker.database.read() as session:
            kinds = (await session.scalars(select(GrantEvent.kind))).all()
        assert sorted(kinds) == ["connected", "refreshed"]


async def test_a_claimed_lease_is_handed_to_the_caller_who_waits_for_it(here: Installation) -> None:
    """The sweep and a fetch in one process must not wait for each other."""
    async with open_broker(here.settings) as broker:
        ours = broker.holder.new_owner()
        await _take_over(broker, lease_owner=ours, lease_until=database_now(30))
        grant = await _grant(broker)
        app = await load_app(broker, grant.project_id, grant.app_id)
        until = time.monotonic() + broker.pace.lease
        claim = ClaimedGrant(LeasedGrant(ours, grant, grant.consented_at, 0.0, until), app)
        broker.holder.took(claim.leased.held)
        arguments = (broker, grant.project_id, grant.id)
        fetch = asyncio.create_task(refresh_grant(*arguments, seen_version=grant.token_version))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(PATIENCE):
            sweep = await refresh_grant(*arguments, seen_version=grant.token_version, claim=claim)
            assert (await fetch).token_version == sweep.token_version == grant.token_version + 1
    assert refreshes(here) == 1


async def test_a_failed_refresh_lets_the_lease_go(here: Installation) -> None:
    here.provider.state.next_token_answers.append(instead(500, ""))
    async with open_broker(here.settings) as broker:
        grant = await _grant(broker)
        with pytest.raises(UpstreamUnavailable):
            await refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version)
        after = await _grant(broker)
    assert (after.lease_owner, after.refresh_failures) == (None, 1)
    assert (after.access_token, after.refresh_token) == (grant.access_token, grant.refresh_token)


async def test_the_background_waits_longer_the_more_often_a_provider_fails(here: Installation, clock: Clock) -> None:
    pauses: list[timedelta] = []
    async with open_broker(here.settings) as broker:
        for _ in range(4):
            await _take_over(broker, refresh_not_before=None)
            grant = await _grant(broker)
            here.provider.state.next_token_answers.append(instead(500, ""))
            with pytest.raises(UpstreamUnavailable):
                await refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version)
            due = (await _grant(broker)).next_refresh_at
            assert due is not None
            pauses.append(due - clock.now)
    assert pauses == sorted(pauses)
    assert pauses[-1] > pauses[0] * 3


async def test_the_background_obeys_retry_after_too(here: Installation, clock: Clock) -> None:
    here.provider.state.next_token_answers.append(instead(429, "", headers={"Retry-After": "1800"}))
    async with open_broker(here.settings) as broker:
        grant = await _grant(broker)
        with pytest.raises(UpstreamUnavailable):
            await refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version)
        assert (await _grant(broker)).next_refresh_at == clock.now + timedelta(seconds=1800)


@pytest.mark.parametrize("meanwhile", ["taken", "still ours", "still ours, with newer tokens"])
async def test_who_stands_still_just_before_the_call_makes_sure_of_the_lease_again(
    here: Installation, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    stood_still = 0.0
    for module in (refresh, lease, sending):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + stood_still))

    async def stand_still_and_send(broker: Broker, *args: Any, **kwargs: Any) -> TokenResponse:
        nonlocal stood_still
        if not stood_still:
            stood_still = Pace().lease
            if meanwhile == "taken":
                await _take_over(broker, lease_owner="somebody else", lease_until=database_now(60))
            elif meanwhile == "still ours, with newer tokens":  # a dead process's journal has landed
                await _take_over(broker, token_version=Grant.token_version + 1)
        return await send_refresh_token(broker, *args, **kwargs)

    monkeypatch.setattr(refresh, "send_refresh_token", stand_still_and_send)
    async with open_broker(here.settings) as broker:
        grant = await _grant(broker)
        refreshed = refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version)
        if meanwhile == "taken":
            with pytest.raises(UpstreamUnavailable, match="Another process"):
                await refreshed
        else:
            assert (await refreshed).token_version > grant.token_version
    assert refreshes(here) == (1 if meanwhile == "still ours" else 0)


async def test_a_dead_consent_leaves_the_background_alone(here: Installation) -> None:
    here.provider.state.next_token_answers.append(instead(400, {"error": "invalid_grant"}))
    async with open_broker(here.settings) as broker:
        grant = await _grant(broker)
        with pytest.raises(ReauthorizationRequired):
            await refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version)
        assert (await _grant(broker)).next_refresh_at is None


def test_an_endpoint_that_fails_again_and_again_is_left_alone_and_then_tried_once_at_a_time(
    here: Installation, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"user-{n}" for n in range(8)]
    for user in users:
        here.connected(user)
    clock.advance(EXPIRED)
    passed = 0.0
    monkeypatch.setattr(endpoints, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed))
    monkeypatch.setattr(breaker, "PAUSE", (600.0, 600.0))
    no_pauses_of_their_own = "UPDATE grants SET refresh_not_before = NULL"
    last = HeldBack(fault=instead(503))
    here.provider.state.next_token_answers.extend([*[instead(503)] * 5, last])
    answers = [here.backend.fetch(user) for user in users]
    assert {answer.status_code for answer in answers} == {503}
    assert refreshes(here) == 5, "five failures in a row, then nobody calls"
    assert "5 times in a row" in answers[-1].json()["message"]
    assert 400 < int(answers[-1].headers["retry-after"]) < 800
    passed = 800.0  # the pause is over: one may try, and fails
    execute(here.settings, no_pauses_of_their_own)
    with ThreadPoolExecutor(1) as pool:
        trying = pool.submit(here.backend.fetch, users[0])
        while not here.provider.state.on_the_wire.total():
            time.sleep(0.01)
        assert {here.backend.fetch(user).status_code for user in users[1:]} == {503}
        last.released.set()
        assert trying.result().status_code == 503
    assert refreshes(here) == 6
    passed = 1600.0
    execute(here.settings, no_pauses_of_their_own)
    assert here.backend.fetch(users[-1]).status_code == 200  # it is back, for everybody
    assert {here.backend.fetch(user).status_code for user in users[5:]} == {200}


def test_refusals_are_answers_and_do_not_open_the_breaker(here: Installation, clock: Clock) -> None:
    users = [f"user-{n}" for n in range(7)]
    for user in users:
        here.connected(user)
    clock.advance(EXPIRED)
    here.provider.state.next_token_answers.extend(instead(400, {"error": "invalid_grant"}) for _ in range(6))
    assert [here.backend.fetch(user).status_code for user in users] == [404] * 6 + [200]


@pytest.mark.parametrize("lost", [dropped(lands=True), html(502, lands=True)], ids=["a reset", "a gateway's page"])
async def test_a_grant_that_dies_after_an_interrupted_refresh_says_so(
    here: Installation, clock: Clock, lost: Fault
) -> None:
    clock.advance(EXPIRED)
    here.provider.state.next_token_answers.append(lost)
    assert (await asyncio.to_thread(here.backend.fetch)).status_code == 503
    async with open_broker(here.settings) as broker:
        await _take_over(broker, refresh_not_before=None)
    dead = await asyncio.to_thread(here.backend.fetch)
    assert dead.status_code == 404
    reason = dead.json()["details"]["lastRefreshError"]
    assert reason.startswith("Practice contacts: invalid_grant")
    assert "interrupted refresh" in reason
    assert reason.endswith("The user must connect again.")
