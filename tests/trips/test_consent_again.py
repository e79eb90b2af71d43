"""A second consent, at providers that give a refresh token at the first one only; and which connection then answers."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.infra.installation import BACK, Installation, came_back
from tests.infra.rows import expire
from tests.infra.scripted import Request, ScriptedProvider
from tests.infra.waiting import PATIENCE
from tests.trips.test_connect import callback, scripted_app

FIRST = {"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600}
SECOND = {"access_token": "at-2", "expires_in": 3600}
DEAD = (400, {"error": "invalid_grant"})


def token_endpoint(scripted: ScriptedProvider, *answers: Any) -> None:
    """Say what the token endpoint answers, one after the other, the last one from then on."""
    scripted.routes["/token"] = list(answers)


def connect(here: Installation, app_id: str, user: str, *scopes: str) -> None:
    """Make a whole trip, which must succeed."""
    browser = here.browser()
    options = {"redirectUrl": BACK, **({"scopes": list(scopes)} if scopes else {})}
    left = browser.agree(here.backend.connect_url(user, appId=app_id, options=options))
    back = came_back(browser.open(str(callback(here, left, code="c"))))
    assert back["outboundStatus"] == "connected", back


def listed(here: Installation, user: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = here.backend.get(f"tokens?userId={user}").json()["tokens"]
    return found


def refresh_tokens_sent(scripted: ScriptedProvider) -> list[str]:
    return [form["refresh_token"] for form in scripted.forms_at("/token") if "refresh_token" in form]


def fetch(here: Installation, app_id: str, user: str, *scopes: str) -> httpx2.Response:
    return here.backend.fetch(user, appId=app_id, scopes=list(scopes))


@pytest.fixture
def app_id(here: Installation, scripted: ScriptedProvider, user: str) -> str:
    """An app at the scripted provider that asks for one scope, and whose connections the background leaves alone."""
    return scripted_app(here, scripted, user, defaultScopes=["a"], refreshPolicy="on_demand")


@pytest.mark.parametrize("wider", [False, True])
def test_a_consent_without_a_refresh_token_goes_on_with_the_one_that_there_is(
    here: Installation, scripted: ScriptedProvider, user: str, app_id: str, wider: bool
) -> None:
    scopes = ["a", "b"] if wider else ["a"]
    token_endpoint(scripted, FIRST, SECOND, {"access_token": "at-3", "expires_in": 3600})
    connect(here, app_id, user)
    connect(here, app_id, user, *scopes)
    [connection] = listed(here, user)
    assert connection["hasRefreshToken"]
    assert connection["scopes"] == scopes
    assert here.backend.token(user, appId=app_id, scopes=scopes)["accessToken"] == "at-2"
    expire(here.settings, user)
    assert here.backend.token(user, appId=app_id, scopes=scopes)["accessToken"] == "at-3"
    assert here.backend.token(user, appId=app_id, scopes=["a"])["accessToken"] == "at-3"
    assert refresh_tokens_sent(scripted) == ["rt-1"]


def test_that_the_earlier_refresh_token_stays_is_in_the_audit_log(
    here: Installation, scripted: ScriptedProvider, user: str, app_id: str
) -> None:
    token_endpoint(scripted, FIRST, SECOND)
    connect(here, app_id, user)
    connect(here, app_id, user)
    found = here.backend.http.post("/v1/mgmt/audit/search", json={"actions": ["grant.connected"], "userIds": [user]})
    kept = [record["data"].get("keptRefreshToken") for record in found.json()["audits"]]
    assert sorted(map(bool, kept)) == [False, True]


@pytest.mark.parametrize("is_same_person", [True, False])
def test_the_provider_tells_whether_it_is_the_same_person(
    here: Installation, scripted: ScriptedProvider, user: str, is_same_person: bool
) -> None:
    people = {"at-1": "ann", "at-2": "ann" if is_same_person else "bob"}
    scripted.routes["/userinfo"] = lambda request: {"sub": people[request.headers["authorization"][7:]]}
    app_id = scripted_app(here, scripted, user, defaultScopes=["a"], userinfoUrl=f"{scripted.url}/userinfo")
    token_endpoint(scripted, FIRST, SECOND)
    connect(here, app_id, user)
    connect(here, app_id, user)
    [connection] = listed(here, user)
    assert connection["hasRefreshToken"] is is_same_person
    assert connection["tokenSub"] == people["at-2"]


def test_a_dead_refresh_token_is_not_gone_on_with(
    here: Installation, scripted: ScriptedProvider, user: str, app_id: str
) -> None:
    token_endpoint(scripted, FIRST, DEAD, SECOND)
    connect(here, app_id, user)
    expire(here.settings, user)
    assert fetch(here, app_id, user, "a").status_code == 404
    connect(here, app_id, user)
    [connection] = listed(here, user)
    assert (connection["status"], connection["hasRefreshToken"]) == ("active", False)
    assert here.backend.token(user, appId=app_id, scopes=["a"])["accessToken"] == "at-2"


def test_a_consent_for_something_else_leaves_the_earlier_one_alone(
    here: Installation, scripted: ScriptedProvider, user: str, app_id: str
) -> None:
    token_endpoint(scripted, FIRST, SECOND)
    connect(here, app_id, user)
    connect(here, app_id, user, "b")
    assert {(tuple(one["scopes"]), one["hasRefreshToken"]) for one in listed(here, user)} == {
        (("a",), True),
        (("b",), False),
    }


def test_a_refresh_of_the_earlier_connection_that_is_under_way_is_waited_for(
    here: Installation, scripted: ScriptedProvider, user: str, app_id: str
) -> None:
    """It brings a refresh token that nobody else has."""
    asked, redeemed, go_on = threading.Event(), threading.Event(), threading.Event()

    async def refreshing(_: Request) -> Any:
        asked.set()
        await asyncio.to_thread(go_on.wait, PATIENCE)
        return {"access_token": "at-2", "refresh_token": "rt-2", "expires_in": 3600}

    def redeeming(_: Request) -> Any:
        redeemed.set()
        return {"access_token": "at-3", "expires_in": 3600}

    token_endpoint(scripted, FIRST, refreshing, redeeming, {"access_token": "at-4", "expires_in": 3600})
    connect(here, app_id, user)
    expire(here.settings, user)
    with ThreadPoolExecutor(2) as pool:
        refreshed = pool.submit(fetch, here, app_id, user, "a")
        assert asked.wait(PATIENCE)
        connected = pool.submit(connect, here, app_id, user)
        assert redeemed.wait(PATIENCE)
        go_on.set()
        connected.result()
        assert refreshed.result().status_code == 200
    assert here.backend.token(user, appId=app_id, scopes=["a"])["accessToken"] == "at-3"
    expire(here.settings, user)
    assert here.backend.token(user, appId=app_id, scopes=["a"])["accessToken"] == "at-4"
    assert refresh_tokens_sent(scripted) == ["rt-1", "rt-2"]


def test_after_a_confirmation_the_earlier_refresh_token_is_still_there(
    here: Installation, scripted: ScriptedProvider, user: str
) -> None:
    app_id = scripted_app(here, scripted, user, defaultScopes=["a"], requireConfirmation=True)
    token_endpoint(scripted, FIRST, SECOND, {"access_token": "at-3", "expires_in": 3600})
    for _ in range(2):
        browser = here.browser()
        left = browser.agree(here.backend.connect_url(user, appId=app_id, options={"redirectUrl": BACK}))
        back = came_back(browser.open(str(callback(here, left, code="c"))))
        confirmed = {"confirmation": back["confirmation"], "userId": user}
        assert here.backend.post("app/connect/confirm", confirmed).status_code == 200
    assert here.backend.token(user, appId=app_id, scopes=["a"])["accessToken"] == "at-2"
    expire(here.settings, user)
    assert here.backend.token(user, appId=app_id, scopes=["a"])["accessToken"] == "at-3"
    [connection] = listed(here, user)
    assert connection["hasRefreshToken"]


def test_a_wider_connection_answers_for_one_that_its_consent_has_ended(
    here: Installation, scripted: ScriptedProvider, user: str, app_id: str
) -> None:
    """Some providers keep one refresh token for each person and client."""
    token_endpoint(scripted, FIRST, {**FIRST, "access_token": "at-2", "refresh_token": "rt-2"}, DEAD)
    connect(here, app_id, user)
    expire(here.settings, user)
    connect(here, app_id, user, "a", "b")
    assert fetch(here, app_id, user, "a").json()["token"]["accessToken"] == "at-2"
    assert refresh_tokens_sent(scripted) == ["rt-1"]
    assert [one["scopes"] for one in listed(here, user)] == [["a", "b"]]


def test_a_wider_connection_of_another_person_does_not_take_the_dead_ones_place(
    here: Installation, scripted: ScriptedProvider, user: str
) -> None:
    people = {"at-1": "ann", "at-2": "bob"}
    scripted.routes["/userinfo"] = lambda request: {"sub": people[request.headers["authorization"][7:]]}
    app_id = scripted_app(
        here, scripted, user, defaultScopes=["a"], refreshPolicy="on_demand", userinfoUrl=f"{scripted.url}/userinfo"
    )
    token_endpoint(scripted, FIRST, {**FIRST, "access_token": "at-2", "refresh_token": "rt-2"}, DEAD)
    connect(here, app_id, user)
    expire(here.settings, user)
    connect(here, app_id, user, "a", "b")
    fetch(here, app_id, user, "a")
    assert {one["status"] for one in listed(here, user)} == {"active", "reauthorization_required"}


def test_a_connection_with_a_token_that_works_answers_while_the_provider_is_away(
    here: Installation, scripted: ScriptedProvider, user: str, app_id: str
) -> None:
    token_endpoint(scripted, FIRST, {**FIRST, "access_token": "at-2", "refresh_token": "rt-2"}, (500, {}))
    connect(here, app_id, user)
    expire(here.settings, user)
    connect(here, app_id, user, "a", "b")
    assert fetch(here, app_id, user, "a").json()["token"]["accessToken"] == "at-2"
    assert {one["status"] for one in listed(here, user)} == {"active"}
