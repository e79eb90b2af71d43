"""Links that agents begin: the browser that follows one has to prove that it is the owner's."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from evergrant import clock
from evergrant.broker.connect.agent_links import AgentLink, connect_link, trip_state
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.agent_limits import AgentLimits, SessionApp
from evergrant.broker.runtime.broker import open_broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.db import BrowserLogin
from evergrant.errors import EvergrantError
from tests.infra.chromium import Person, chromium
from tests.infra.console import words_of
from tests.infra.installation import BACK, CLIENT_ID, CLIENT_SECRET, Browser, Installation, came_back
from tests.infra.issuer import Issuer
from tests.infra.rows import in_database, rows
from tests.infra.scripted import serving
from tests.infra.waiting import in_a_thread
from tests.trips.conftest import CreateApp

ADA, GRACE = "practice-ada", "practice-grace"
sqlite_is_enough = pytest.mark.parametrize("here", ["sqlite"], indirect=True)


def trust(here: Installation, issuer: str, *, client_id: str, secret: str, user_claim: str = "sub") -> str:
    """Let the project's users sign in at an issuer; returns its id."""
    client = {"clientId": client_id, **({"clientSecret": secret} if secret else {})}
    body = {"issuer": issuer, "audience": "api", "userClaim": user_claim, "login": client}
    answer = here.backend.http.post("/v1/mgmt/trustedissuer", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["trustedIssuer"]["id"])


@pytest.fixture
def login(here: Installation) -> Iterator[str]:
    """The project's users are the people of the practice provider; the id of that trusted issuer."""
    here.provider.state.redirect_uris.add(f"{here.url}/login/callback")
    issuer_id = trust(here, here.provider.url, client_id=CLIENT_ID, secret=CLIENT_SECRET)
    yield issuer_id
    here.backend.http.delete("/v1/mgmt/trustedissuer", params={"id": issuer_id})


@pytest.fixture
def app_id(create_app: CreateApp) -> str:
    return create_app(defaultRedirectUrl=BACK)


def link(here: Installation, app_id: str, user: str = ADA, **more: Any) -> AgentLink:
    """Let an agent's session ask for a link."""
    limits = AgentLimits(id="s1", agent_name="Claude Code", apps={app_id: SessionApp(app_id=app_id)})
    fields = {"permissions": frozenset({Permission.CONNECT}), "session": limits, "agent": "claude", **more}
    agent = Principal(
        project_id=here.backend.project_id,
        key_id="",
        app_ids=frozenset({app_id}),
        networks=(),
        expires_at=None,
        user_id=user,
        **fields,
    )

    async def ask() -> AgentLink:
        async with open_broker(here.settings) as broker:
            return await connect_link(broker, agent, app_id=app_id, owner=ResourceOwner(user, ""), now=clock.now())

    return in_a_thread(ask())


def state(here: Installation, trip: AgentLink) -> str:
    async def ask() -> str:
        async with open_broker(here.settings) as broker:
            return await trip_state(broker, here.backend.project_id, trip.trip_id)

    return in_a_thread(ask())


def let_logins_expire(here: Installation) -> None:
    async def expire(connection: AsyncConnection) -> None:
        await connection.execute(update(BrowserLogin).values(expires_at=clock.now() - timedelta(seconds=1)))

    in_database(here.settings, expire)


def leave(browser: Browser, url: str) -> str:
    """Press the button of the page that asks to sign in, and return the issuer's address."""
    assert browser.open(url).status_code == 200
    answer = browser.http.post(url, data={"decision": "login"})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def sign_in(browser: Browser, url: str, person: str) -> Any:
    """Sign in for a link, and return what evergrant answers then."""
    return browser.open(browser.allow(leave(browser, url), person=person))


@pytest.mark.usefixtures("login")
def test_whoever_proves_to_be_the_user_goes_on_and_nobody_else(here: Installation, app_id: str) -> None:
    trip = link(here, app_id)
    thief, owner = here.browser(), here.browser()
    first = words_of(thief.open(trip.url))
    assert "Claude Code asks to connect" in first
    assert ADA not in first
    refused = sign_in(thief, trip.url, GRACE)
    assert refused.status_code == 403
    assert "This link is for somebody else" in words_of(refused)
    assert ADA not in refused.text
    assert parse_qs(urlsplit(leave(thief, trip.url)).query)["prompt"] == ["login"], "asked by the issuer again"
    (wrong,) = [
        row
        for row in rows(here.settings, "audit_events")
        if row["action"] == "connect.wrong_user" and trip.trip_id in str(row["data"])
    ]
    assert (wrong["user_id"], wrong["actor"], GRACE in str(wrong["data"])) == (ADA, "user", True)
    assert thief.http.post(trip.url, data={"decision": "cancel"}).status_code == 303
    assert state(here, trip) == "open", "nothing is used up, and a stranger cancels nothing"

    proved = sign_in(owner, trip.url, ADA)
    assert proved.headers["location"] == urlsplit(trip.url).path
    page = words_of(owner.open(trip.url))
    assert "Claude Code asks to connect" in page
    assert ADA in page
    provider = owner.agree(trip.url)
    assert "used already" in words_of(thief.open(trip.url))
    assert came_back(owner.open(owner.allow(provider, person=GRACE)))["outboundStatus"] == "connected"
    assert state(here, trip) == "connected"
    assert here.backend.token(ADA, appId=app_id)["tokenSub"] == GRACE, "who they are there is their own affair"


@sqlite_is_enough
@pytest.mark.usefixtures("login")
def test_a_proof_is_for_one_browser_one_trip_and_half_an_hour(here: Installation, app_id: str) -> None:
    trip, other = link(here, app_id), link(here, app_id)
    owner, stranger = here.browser(), here.browser()
    sign_in(owner, trip.url, ADA)
    assert "Sign in at" in words_of(stranger.open(trip.url))
    stranger_goes = stranger.http.post(trip.url, data={"decision": "connect"}).headers["location"]
    assert "/login/callback" in parse_qs(urlsplit(stranger_goes).query)["redirect_uri"][0], (
        "to the issuer, and no further"
    )
    assert "Sign in at" in words_of(owner.open(other.url))
    provider = owner.agree(trip.url)
    let_logins_expire(here)
    result = came_back(owner.open(owner.allow(provider, person=ADA)))
    assert result["err"] == "not_proved", "looked at once more before the code is redeemed"
    assert state(here, trip) == "failed"


@sqlite_is_enough
@pytest.mark.usefixtures("login")
def test_an_answer_of_the_issuer_counts_once_in_the_browser_that_left(here: Installation, app_id: str) -> None:
    trip = link(here, app_id)
    attacker, victim = here.browser(), here.browser()
    answer = attacker.allow(leave(attacker, trip.url), person=ADA)
    assert "Finish in the browser" in words_of(victim.open(answer)), "login CSRF"
    own = victim.allow(leave(victim, trip.url), person=GRACE)
    code = parse_qs(urlsplit(answer).query)["code"][0]
    injected = re.sub(r"code=[^&]+", f"code={code}", own)
    assert "You were not signed in" in words_of(victim.open(injected)), "PKCE binds a code to its login"
    assert "You were not signed in" in words_of(victim.open(own)), "its state is used up"
    mixed_up = victim.allow(leave(victim, trip.url), person=ADA).replace("iss=http", "iss=https")
    assert "You were not signed in" in words_of(victim.open(mixed_up)), "an answer of another issuer"
    answer = attacker.allow(leave(attacker, trip.url), person=ADA)  # the provider's codes are for one use, too
    here_it_is = attacker.open(answer)
    assert here_it_is.status_code == 303
    exchanges = here.provider.state.token_calls["authorization_code"]
    assert attacker.open(answer).headers["location"] == here_it_is.headers["location"], "a reload is told the same"
    assert here.provider.state.token_calls["authorization_code"] == exchanges
    late = leave(victim, trip.url)
    back = victim.allow(late, person=ADA)
    let_logins_expire(here)
    assert "took too long" in words_of(victim.open(back))


@sqlite_is_enough
def test_whom_nobody_trusts_any_more_proves_nothing(here: Installation, app_id: str, login: str) -> None:
    trip, owner = link(here, app_id), here.browser()
    sign_in(owner, trip.url, ADA)
    here.backend.http.delete("/v1/mgmt/trustedissuer", params={"id": login})
    assert "not known whose browser" in words_of(owner.open(trip.url))
    answer = owner.http.post(trip.url, data={"decision": "connect"})
    assert answer.status_code == 400


@sqlite_is_enough
def test_without_a_login_the_application_confirms_or_there_is_no_link(
    here: Installation, app_id: str, create_app: CreateApp, user: str
) -> None:
    trip, browser = link(here, app_id, user), here.browser()
    assert "Claude Code asks to connect" in words_of(browser.open(trip.url))
    result = browser.connect(trip.url)
    assert here.backend.fetch(user, appId=app_id).status_code == 404
    assert state(here, trip) == "open"
    confirmed = here.backend.post("app/connect/confirm", {"confirmation": result["confirmation"], "userId": user})
    assert confirmed.status_code == 200
    assert state(here, trip) == "connected"
    skipping = link(here, create_app(defaultRedirectUrl=BACK, skipConsentPage=True, requireConfirmation=True), user)
    assert "Claude Code asks to connect" in words_of(browser.open(skipping.url)), "skipConsentPage does not count"
    with pytest.raises(EvergrantError, match=r"give the trusted issuer .* a login, or the app a defaultRedirectUrl"):
        link(here, create_app(), user)
    with pytest.raises(EvergrantError, match="connect"):
        link(here, app_id, user, permissions=frozenset())


@sqlite_is_enough
@pytest.mark.parametrize(
    ("claims", "outcome"),
    [
        ({"email": "ada@example.com"}, "proved"),
        ({"email": "ada@example.com", "email_verified": False}, "failed"),
        ({"email": "eve@example.com"}, "wrong_user"),
        ({"email": ["ada@example.com"]}, "failed"),
        ({}, "failed"),
        ({"email": "ada@example.com", "nonce": "of another trip"}, "failed"),
        ({"email": "ada@example.com", "aud": "api"}, "failed"),
    ],
)
def test_the_user_claim_of_a_sound_id_token_decides(
    here: Installation, app_id: str, claims: dict[str, Any], outcome: str
) -> None:
    with serving(Issuer()) as idp:
        issuer_id = trust(here, idp.url, client_id="us", secret="", user_claim="email")
        trip, browser = link(here, app_id, "ada@example.com"), here.browser()
        away = parse_qs(urlsplit(leave(browser, trip.url)).query)
        assert away["code_challenge_method"] == ["S256"]
        said = {"aud": "us", "nonce": away["nonce"][0], **claims}
        idp.routes["/token"] = {
            "access_token": "a",
            "token_type": "Bearer",
            "id_token": idp.session("7", **said),
        }
        answer = browser.open(f"{here.url}/login/callback?code=c&state={away['state'][0]}")
        assert answer.status_code == {"proved": 303, "wrong_user": 403, "failed": 400}[outcome]
        here.backend.http.delete("/v1/mgmt/trustedissuer", params={"id": issuer_id})
        logins = [row for row in rows(here.settings, "browser_logins") if row["subject_id"] == trip.trip_id]
        assert [row["outcome"] for row in logins] == [outcome]


@sqlite_is_enough
@pytest.mark.usefixtures("login")
def test_a_person_signs_in_agrees_and_is_told_when_it_is_not_theirs(here: Installation, create_app: CreateApp) -> None:
    trip = link(here, create_app(name="Agents' contacts"))
    with chromium() as running:
        mallory(running, trip)
        with Person(running) as person:
            page = person.tab()
            page.goto(trip.url)
            page.get_by_role("button", name="Sign in at 127.0.0.1").click()
            page.get_by_label("Ada Example").check()
            page.get_by_role("button", name="Allow").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("Claude Code asks to connect Agents' contacts")
            page.get_by_role("button", name="Continue to Agents' contacts").click()
            page.get_by_role("button", name="Allow").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("Agents' contacts is connected")
            assert person.complaints == []
    assert state(here, trip) == "connected"


def mallory(running: Chromium, trip: AgentLink) -> None:
    """Somebody else opens the link."""
    with Person(running) as person:
        page = person.tab()
        page.goto(trip.url)
        expect(page.get_by_role("heading", level=1)).to_have_text("Claude Code asks to connect Agents' contacts")
        page.get_by_role("button", name="Sign in at 127.0.0.1").click()
        page.get_by_label("Grace Sample").check()
        page.get_by_role("button", name="Allow").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("This link is for somebody else")
        page.get_by_role("link", name="Use another account").click()
        expect(page.get_by_role("button", name="Sign in at 127.0.0.1")).to_be_visible()
