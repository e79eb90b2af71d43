"""Test connections: a real trip, step by step, with a remedy for what fails, and nothing left behind."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import update

from evergrant import clock
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.principal import ALL_PERMISSIONS, Principal
from evergrant.broker.trials.leftovers import end_left_trials
from evergrant.broker.trials.trial import Trial, read_trial
from evergrant.db import AppTest
from evergrant.practice.state import ProviderState
from tests.infra.console import Operator, words_of
from tests.infra.installation import Browser, Installation
from tests.infra.rows import rows
from tests.infra.waiting import in_a_thread, wait_until

ON_SQLITE = pytest.mark.parametrize("here", ["sqlite"], indirect=True)
EVERYTHING = (
    "definition metadata endpoints client left cameBack state code refreshToken scopes subject refreshed api ended"
)


def new_app(here: Installation, **fields: Any) -> str:
    return here.backend.new_app(here.provider.registration, **fields)


def begin(operator: Operator, app_id: str, **form: str) -> str:
    """Press the button, and return where it leads."""
    answer = operator.post(f"apps/{app_id}/test", form)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def go(here: Installation, url: str, **choices: Any) -> str:
    """Make the trip, and return the page where it ends."""
    browser: Browser = here.browser()
    ended = browser.open(browser.allow(browser.agree(url), **choices))
    assert ended.status_code == 303, ended.text
    return str(ended.headers["location"])


def steps_of(here: Installation, app_id: str) -> dict[str, dict[str, Any]]:
    answer = here.backend.get(f"app/trial/steps?appId={app_id}")
    assert answer.status_code == 200, answer.text
    return {step["name"]: step for step in answer.json()["steps"]}


def states_of(here: Installation, app_id: str) -> str:
    return " ".join(f"{name}:{step['state']}" for name, step in steps_of(here, app_id).items())


def as_it_is(here: Installation, app_id: str, *, later: int = 0) -> Trial:
    """Return an app's last test as it will be seen in so many seconds."""
    project_id = here.backend.project_id
    who = Principal(project_id, "k", ALL_PERMISSIONS, frozenset(), (), None)

    async def read() -> Trial | None:
        async with open_broker(here.settings) as broker:
            return await read_trial(broker, who, app_id, now=clock.now() + timedelta(seconds=later))

    found = in_a_thread(read())
    assert isinstance(found, Trial)
    return found


def test_a_test_goes_all_the_way_and_leaves_nothing_behind(here: Installation, operator: Operator) -> None:
    app_id = new_app(here)
    page = go(here, begin(operator, app_id))
    assert urlsplit(page).path.startswith(f"/console/{here.backend.project_id}/apps/{app_id}/test/")
    by_hand = {"api": "skipped"}  # it has no template, and so nobody knows its API
    assert states_of(here, app_id) == " ".join(f"{name}:{by_hand.get(name, 'good')}" for name in EVERYTHING.split())
    assert "Everything works" in words_of(operator.get(urlsplit(page).path))
    assert [row for row in rows(here.settings, "grants") if row["app_id"] == app_id] == []
    assert here.provider.state.families[-1].revoked

    def told() -> list[str]:
        return [row["action"] for row in rows(here.settings, "audit_events") if row["app_id"] == app_id][-4:]

    wanted = ["connect.started", "grant.connected", "token.deleted", "token.revoked"]
    wait_until(lambda: told() == wanted, "the revocation is written down too")
    live = operator.get(f"{urlsplit(page).path}/steps")
    assert live.headers["X-Live"] == "over"
    assert "<html" not in live.text


@ON_SQLITE
def test_its_connection_is_nobodys_while_it_lasts(
    here: Installation, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    app_id = new_app(here)
    hook = {"url": "https://hooks.example.com/", "description": "", "eventTypes": []}
    assert here.backend.post("webhook/create", hook).status_code == 200
    seen: list[int] = []
    issue = ProviderState.issue

    def look(*args: Any, **rest: Any) -> Any:
        body = {"appId": app_id, "userId": "evergrant-test"}
        seen.append(here.backend.post("app/user/token/latest", body).status_code)
        return issue(*args, **rest)

    monkeypatch.setattr(ProviderState, "issue", look)
    go(here, begin(operator, app_id))
    assert seen == [404, 404]  # when the code was exchanged, and in the middle of the refresh
    assert app_id not in str([row["payload"] for row in rows(here.settings, "webhook_deliveries")])


@ON_SQLITE
def test_a_wrong_secret_is_found_before_the_trip(here: Installation, operator: Operator) -> None:
    app_id = new_app(here, clientSecret="an old one")
    page = begin(operator, app_id)
    assert page.startswith("/console/")
    said = words_of(operator.get(page))
    assert "does not work yet" in said
    assert "Copy the client id and the secret" in said
    steps = steps_of(here, app_id)
    assert (steps["client"]["state"], steps["left"]["state"]) == ("bad", "open")
    # The check can be wrong, too: whoever knows better goes on, and the provider has the last word.
    go(here, begin(operator, app_id, anyway="on"))
    steps = steps_of(here, app_id)
    assert (steps["code"]["state"], steps["code"]["error"]) == ("bad", "invalid_client")
    assert "client secret" in steps["code"]["remedy"] or "the secret" in steps["code"]["remedy"]


@ON_SQLITE
def test_the_providers_words_are_the_step_that_failed(here: Installation, operator: Operator) -> None:
    app_id = new_app(here, defaultScopes=["openid", "moon.landings"])
    browser = here.browser()
    ended = browser.open(browser.open(browser.agree(begin(operator, app_id))).headers["location"])
    step = steps_of(here, app_id)["cameBack"]
    assert (step["state"], step["error"]) == ("bad", "invalid_scope")
    assert "Known scopes are" in step["text"]
    assert "does not know one of the scopes" in step["remedy"]
    assert "invalid_scope" in words_of(operator.get(urlsplit(ended.headers["location"]).path))
    go(here, begin(operator, new_app(here)), action="deny")
    cancelled = new_app(here)
    url = begin(operator, cancelled)
    other = here.browser()
    other.open(url)
    other.http.post(url, data={"decision": "cancel"})
    assert steps_of(here, cancelled)["left"]["text"] == "You cancelled on the consent page."


@ON_SQLITE
def test_who_does_not_come_back_is_asked_what_the_provider_said(here: Installation, operator: Operator) -> None:
    app_id = new_app(here)
    url = begin(operator, app_id)
    assert not as_it_is(here, app_id).is_over
    here.browser().agree(url)
    for later, away, over in ((0, False, False), (31, True, False), (901, True, True)):
        trial = as_it_is(here, app_id, later=later)
        assert (trial.is_away, trial.is_over) == (away, over), later
    step = next(step for step in trial.steps if step.name == "cameBack")
    assert step.text.endswith("did not come back. What did it say?")
    callback = here.backend.app(app_id)["callbackUrl"]
    assert any("redirect_uri_mismatch" in one.words and callback in one.remedy for one in trial.sayings)


@ON_SQLITE
def test_a_real_connection_on_the_same_account_survives_the_test(here: Installation, operator: Operator) -> None:
    app_id = new_app(here)
    here.connected("ada", appId=app_id)
    real = here.provider.state.families[-1]
    go(here, begin(operator, app_id))
    ended = steps_of(here, app_id)["ended"]
    assert (ended["state"], "stands on the same account" in ended["text"]) == ("skipped", True)
    assert not real.revoked


@ON_SQLITE
def test_the_test_shows_the_consent_page_and_needs_no_confirmation(here: Installation, operator: Operator) -> None:
    app_id = new_app(here, skipConsentPage=True, requireConfirmation=True)
    page = go(here, begin(operator, app_id))
    assert "confirmation" not in page
    assert states_of(here, app_id).endswith("refreshed:good api:skipped ended:good")


@ON_SQLITE
def test_a_trip_that_the_api_began_ends_on_our_result_page(here: Installation) -> None:
    app_id = new_app(here)
    begun = here.backend.post("app/trial", {"appId": app_id}).json()
    location = go(here, begun["url"])
    assert urlsplit(location).path == "/connect-result"
    answer = here.backend.get(f"app/trial/steps?appId={app_id}").json()
    assert (answer["trialId"], answer["over"], answer["good"]) == (begun["trialId"], True, True)
    assert here.backend.get(f"app/trial/steps?appId={new_app(here)}").status_code == 404


@ON_SQLITE
def test_coming_back_twice_changes_nothing_and_calls_the_provider_once(here: Installation, operator: Operator) -> None:
    app_id = new_app(here)
    browser = here.browser()
    callback = browser.allow(browser.agree(begin(operator, app_id)))
    before = here.provider.state.token_calls["refresh_token"]
    pages = {browser.open(callback).headers["location"] for _ in range(2)}
    assert len(pages) == 1
    assert here.provider.state.token_calls["refresh_token"] == before + 1
    assert "bad" not in states_of(here, app_id)


@ON_SQLITE
def test_what_an_interrupted_test_left_is_ended_later(here: Installation, operator: Operator) -> None:
    app_id = new_app(here)
    go(here, begin(operator, app_id, keep="on"))
    [kept] = [row for row in rows(here.settings, "grants") if row["app_id"] == app_id]
    assert (kept["user_id"], kept["status"]) == ("test-user", "active")

    async def interrupt_and_clear() -> int:
        async with open_broker(here.settings) as broker:
            await _leave_behind(broker, app_id, kept["id"])
            now = clock.now()
            assert await end_left_trials(broker, now=now) == 0  # it may still be under way
            return await end_left_trials(broker, now=now + timedelta(hours=2))

    assert in_a_thread(interrupt_and_clear()) == 1
    assert [row for row in rows(here.settings, "grants") if row["app_id"] == app_id] == []


async def _leave_behind(broker: Broker, app_id: str, grant_id: str) -> None:
    async with broker.database.write() as session:
        left = update(AppTest).where(AppTest.app_id == app_id).values(grant_id=grant_id, finished_at=None)
        await session.execute(left)


@ON_SQLITE
def test_who_may_not_change_apps_or_connect_cannot_test(
    here: Installation, operator_as: Callable[[str], Operator]
) -> None:
    app_id = new_app(here)
    viewer = operator_as("viewer")
    for answer in (viewer.get(f"apps/{app_id}/test"), viewer.post(f"apps/{app_id}/test")):
        assert answer.status_code == 403
        assert "apps:write" in words_of(answer)
    keys = here.backend.http.put("/v1/mgmt/managementkey", json={"name": "k", "permissions": ["apps:write"]}).json()
    headers = {"Authorization": f"Bearer {here.backend.project_id}:{keys['cleartext']}"}
    answer = here.backend.http.post("/v1/mgmt/outbound/app/trial", json={"appId": app_id}, headers=headers)
    assert (answer.status_code, "connect" in answer.text) == (403, True)
