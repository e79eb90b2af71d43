"""The connect trip that goes well: whom it connects, what the provider is asked, and where the browser ends."""

import threading
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx2
import pytest

from evergrant.practice.faults import edited, slow
from tests.infra.installation import APP_ID, BACK, SCOPES, Installation, came_back
from tests.infra.scripted import ScriptedProvider
from tests.infra.waiting import wait_until
from tests.trips.conftest import CreateApp, stored_grants

QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "user": ("app/user/token", {"userId": "U", "scopes": SCOPES}),
    "user, latest": ("app/user/token/latest", {"userId": "U"}),
    "user in tenant": ("app/user/token", {"userId": "U", "tenantId": "T", "scopes": SCOPES}),
    "user in tenant, latest": ("app/user/token/latest", {"userId": "U", "tenantId": "T"}),
    "tenant": ("app/tenant/token", {"tenantId": "T", "scopes": SCOPES}),
    "tenant, latest": ("app/tenant/token/latest", {"tenantId": "T"}),
}


def query_of(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, keep_blank_values=True)


def callback(here: Installation, authorize_url: str, **answer: str) -> httpx2.URL:
    """The address that a scripted provider sends the browser to."""
    asked = query_of(authorize_url)
    return httpx2.URL(asked["redirect_uri"][0], params={"state": asked["state"][0], **answer})


def scripted_app(here: Installation, scripted: ScriptedProvider, user: str, **fields: Any) -> str:
    app_id = f"at-{user}"
    here.backend.create_app(scripted.registration(app_id, **fields))
    return app_id


@pytest.mark.parametrize("level", ["user", "user in tenant", "tenant"])
def test_a_level_answers_for_itself_and_for_no_other(here: Installation, user: str, level: str) -> None:
    tenant = f"tenant-of-{user}"
    levels: dict[str, dict[str, Any]] = {
        "user": {},
        "user in tenant": {"tenantId": tenant},
        "tenant": {"tenantId": tenant, "tenantLevel": True},
    }
    here.connected(user, **levels[level])
    found = {}
    for name, (path, body) in QUESTIONS.items():
        names = {"U": user, "T": tenant}
        asked = {key: names[value] if isinstance(value, str) else value for key, value in body.items()}
        answer = here.backend.post(path, {"appId": APP_ID, **asked})
        assert answer.status_code == (200 if name.split(",")[0] == level else 404), name
        if answer.status_code == 200:
            found[name] = answer.json()["token"]
    assert len(found) == 2
    for token in found.values():
        assert token["userId"] == ("" if level == "tenant" else user)
        assert token.get("tenantId") == (None if level == "user" else tenant)
        assert token.get("grantedBy") == (user if level == "tenant" else None)


def test_the_apps_default_scopes_are_asked_for(here: Installation, user: str) -> None:
    url = here.browser().agree(here.backend.connect_url(user))
    assert query_of(url)["scope"] == [" ".join(SCOPES)]


def test_the_trips_own_scopes_take_the_place_of_the_defaults(here: Installation, user: str) -> None:
    options = {"redirectUrl": BACK, "scopes": ["openid", "email"]}
    here.connected(user, options=options)
    assert here.backend.token(user, scopes=["email", "openid"])["scopes"] == ["openid", "email"]
    refused = here.backend.fetch(user)
    assert refused.status_code == 404
    assert refused.json()["details"]["missingScopes"] == ["contacts.readonly"]


def test_a_scope_that_the_person_unticked_is_named_as_missing(here: Installation, user: str) -> None:
    assert here.browser().connect(here.backend.connect_url(user), scopes=["openid"])["outboundStatus"] == "connected"
    refused = here.backend.fetch(user)
    assert refused.status_code == 404
    assert refused.json()["details"]["missingScopes"] == ["contacts.readonly"]
    assert here.backend.token(user, scopes=["openid"])["scopes"] == ["openid"]


def test_the_persons_id_at_the_provider_comes_from_the_id_token(here: Installation, user: str) -> None:
    here.browser().connect(here.backend.connect_url(user), person="practice-grace")
    assert here.backend.token(user)["tokenSub"] == "practice-grace"


def test_without_an_id_token_it_comes_from_userinfo(here: Installation, scripted: ScriptedProvider, user: str) -> None:
    scripted.routes["/userinfo"] = lambda request: (
        {"id": 42} if request.headers.get("authorization") == "Bearer at-1" else (401, {})
    )
    app_id = scripted_app(here, scripted, user, userinfoUrl=f"{scripted.url}/userinfo")
    browser = here.browser()
    url = browser.agree(here.backend.connect_url(user, appId=app_id))
    assert came_back(browser.open(str(callback(here, url, code="c"))))["outboundStatus"] == "connected"
    assert here.backend.token(user, appId=app_id, scopes=["files"])["tokenSub"] == "42"


def test_a_userinfo_call_that_fails_does_not_cost_the_connection(here: Installation, create_app: CreateApp) -> None:
    app_id = create_app(defaultScopes=["email"])  # the practice provider's userinfo wants openid
    here.connected("somebody", appId=app_id)
    assert here.backend.token("somebody", appId=app_id, scopes=["email"])["tokenSub"] == ""


@pytest.mark.parametrize("trips_own", [True, False])
def test_the_browser_returns_to_the_trips_address_or_else_to_the_apps(
    here: Installation, create_app: CreateApp, user: str, trips_own: bool
) -> None:
    app_id = create_app(defaultRedirectUrl="https://app.example.com/the-default")
    options = {"redirectUrl": BACK} if trips_own else {}
    browser = here.browser()
    back = browser.open(browser.allow(browser.agree(here.backend.connect_url(user, appId=app_id, options=options))))
    assert back.status_code == 303
    expected = BACK if trips_own else "https://app.example.com/the-default"
    assert back.headers["location"] == f"{expected}?outboundAppId={app_id}&outboundStatus=connected"


def test_without_any_address_it_ends_on_evergrants_own_page(here: Installation, user: str) -> None:
    browser = here.browser()
    back = browser.open(browser.allow(browser.agree(here.backend.connect_url(user, options={}))))
    page = browser.open(str(httpx2.URL(here.url).join(back.headers["location"])))
    assert page.status_code == 200
    assert "<bdi>Practice contacts</bdi> is connected" in page.text
    assert here.backend.token(user)


def test_parameters_and_fragment_of_the_return_address_are_kept(here: Installation, user: str) -> None:
    options = {"redirectUrl": f"{BACK}?tab=1&tab=2&empty=&err=old&outboundStatus=forged#/route"}
    browser = here.browser()
    back = browser.open(browser.allow(browser.agree(here.backend.connect_url(user, options=options))))
    parts = urlsplit(back.headers["location"])
    assert parts.fragment == "/route"
    assert parse_qsl(parts.query, keep_blank_values=True) == [
        ("tab", "1"),
        ("tab", "2"),
        ("empty", ""),
        ("err", "old"),
        ("outboundAppId", APP_ID),
        ("outboundStatus", "connected"),
    ]


def test_two_accounts_of_one_user_are_kept_apart(here: Installation, user: str) -> None:
    for name, person in (("work", "practice-ada"), ("home", "practice-grace")):
        options = {"redirectUrl": BACK, "externalIdentifier": name}
        here.browser().connect(here.backend.connect_url(user, options=options), person=person)
    for name, person in (("work", "practice-ada"), ("home", "practice-grace")):
        token = here.backend.token(user, externalIdentifier=name)
        assert (token["externalIdentifier"], token["tokenSub"]) == (name, person)
    assert here.backend.fetch(user).status_code == 404


def test_connecting_again_replaces_the_grant(here: Installation, user: str) -> None:
    here.connected(user)
    first = here.backend.token(user)
    here.connected(user)
    second = here.backend.token(user)
    assert second["id"] != first["id"]
    assert here.backend.post("app/user/token/latest", {"appId": APP_ID, "userId": user}).json()["token"] == second
    assert stored_grants(here, user) == 1


def test_the_levels_live_side_by_side(here: Installation, user: str) -> None:
    tenant = f"tenant-of-{user}"
    people = {"practice-ada": {}, "practice-grace": {"tenantId": tenant}}
    for person, fields in people.items():
        here.browser().connect(here.backend.connect_url(user, **fields), person=person)
    at_tenant_level = here.backend.connect_url(user, tenantId=tenant, tenantLevel=True)
    here.browser().connect(at_tenant_level, person="practice-linus")
    for person, fields in people.items():
        assert here.backend.token(user, **fields)["tokenSub"] == person
    answer = here.backend.post("app/tenant/token/latest", {"appId": APP_ID, "tenantId": tenant})
    assert answer.json()["token"]["tokenSub"] == "practice-linus"


def test_a_refresh_of_the_replaced_grant_that_lands_late_does_not_touch_the_new_one(
    here: Installation, user: str
) -> None:
    state = here.provider.state
    here.connected(user)
    before = state.token_calls["refresh_token"]
    state.next_token_answers.append(slow(1.0))
    refresh = threading.Thread(target=lambda: here.backend.fetch(user, options={"forceRefresh": True}))
    refresh.start()
    wait_until(lambda: state.token_calls["refresh_token"] > before, "the refresh has reached the provider")
    here.connected(user)
    new = here.backend.token(user)
    refresh.join()
    assert here.backend.token(user) == new
    assert state.access_tokens[new["accessToken"]].family is state.families[-1]
    assert here.backend.token(user, options={"forceRefresh": True})["id"] == new["id"]


def test_an_app_may_skip_the_consent_page(here: Installation, create_app: CreateApp, user: str) -> None:
    app_id = create_app(skipConsentPage=True, requireConfirmation=True)
    link = here.backend.connect_url(user, appId=app_id)
    browser = here.browser()
    browser.http.follow_redirects = True
    page = browser.open(link)
    browser.http.follow_redirects = False
    assert str(page.url).startswith(here.provider.url)
    assert came_back(browser.open(browser.allow(str(page.url))))["outboundStatus"] == "connected"


def test_a_link_preview_does_not_spoil_a_link_without_a_consent_page(
    here: Installation, create_app: CreateApp, user: str
) -> None:
    link = here.backend.connect_url(user, appId=create_app(skipConsentPage=True, requireConfirmation=True))
    assert httpx2.get(link, trust_env=False).status_code == 303
    browser = here.browser()
    browser.http.follow_redirects = True
    assert str(browser.open(link).url).startswith(here.provider.url)


def test_a_browser_that_keeps_no_cookies_is_told_so(here: Installation, create_app: CreateApp, user: str) -> None:
    link = here.backend.connect_url(user, appId=create_app(skipConsentPage=True, requireConfirmation=True))
    again = httpx2.get(link, trust_env=False).headers["location"]
    page = httpx2.get(httpx2.URL(here.url).join(again), trust_env=False)
    assert page.status_code == 400
    assert "Allow cookies" in page.text


def test_pkce_is_on_unless_the_app_says_otherwise(here: Installation, user: str) -> None:
    url = here.browser().agree(here.backend.connect_url(user))
    assert query_of(url)["code_challenge_method"] == ["S256"]
    assert len(query_of(url)["code_challenge"][0]) == 43


def test_pkce_can_be_switched_off_for_a_provider_that_refuses_it(
    here: Installation, scripted: ScriptedProvider, user: str
) -> None:
    app_id = scripted_app(here, scripted, user, pkce=False)
    browser = here.browser()
    url = browser.agree(here.backend.connect_url(user, appId=app_id))
    assert not [name for name in query_of(url) if name.startswith("code_challenge")]
    assert came_back(browser.open(str(callback(here, url, code="c"))))["outboundStatus"] == "connected"
    [form] = scripted.forms_at("/token")
    assert "code_verifier" not in form


def test_everything_extra_reaches_the_provider(here: Installation, scripted: ScriptedProvider, user: str) -> None:
    app_id = scripted_app(
        here,
        scripted,
        user,
        accessType="offline",
        prompt=["consent"],
        authorizationUrlParams=[{"key": "audience", "value": "api.example.com"}],
        tokenUrlParams=[{"key": "region", "value": "eu"}],
    )
    options = {
        "redirectUrl": BACK,
        "prompt": ["login", "consent"],
        "loginHint": "ada@example.com",
        "resources": ["https://one.example.com/", "https://two.example.com/"],
    }
    browser = here.browser()
    url = browser.agree(here.backend.connect_url(user, appId=app_id, options=options))
    asked = query_of(url)
    assert asked["access_type"] == ["offline"]
    assert asked["prompt"] == ["login consent"]
    assert asked["login_hint"] == ["ada@example.com"]
    assert asked["audience"] == ["api.example.com"]
    assert asked["resource"] == options["resources"]
    browser.open(str(callback(here, url, code="c")))
    [request] = scripted.requests_to("/token")
    assert [value for name, value in request.pairs if name == "resource"] == options["resources"]
    assert request.form["region"] == "eu"


def test_the_apps_prompt_holds_where_the_trip_has_none(here: Installation, create_app: CreateApp, user: str) -> None:
    app_id = create_app(prompt=["select_account"])
    url = here.browser().agree(here.backend.connect_url(user, appId=app_id))
    assert query_of(url)["prompt"] == ["select_account"]


def test_an_app_may_have_a_callback_domain_of_its_own(here: Installation, create_app: CreateApp, user: str) -> None:
    app_id = create_app(callbackDomain="connect.shop.example")
    link = here.backend.connect_url(user, appId=app_id)
    assert link.startswith("https://connect.shop.example/connect/")
    url = here.browser().agree(here.url + urlsplit(link).path)
    assert query_of(url)["redirect_uri"] == [here.backend.app(app_id)["callbackUrl"]]
    assert urlsplit(query_of(url)["redirect_uri"][0]).netloc == "connect.shop.example"


def test_an_answer_by_form_post_ends_in_the_ordinary_trip(here: Installation, user: str) -> None:
    browser = here.browser()
    location = browser.allow(browser.agree(here.backend.connect_url(user)))
    address, answer = location.split("?")[0], dict(parse_qsl(urlsplit(location).query))
    # A POST from another site brings no Lax cookie along; the GET that follows does.
    answer["self"] = "a field of any name"
    posted = httpx2.post(address, data=answer, headers={"Sec-Fetch-Site": "cross-site"}, trust_env=False)
    assert posted.status_code == 303
    back = browser.open(str(httpx2.URL(here.url).join(posted.headers["location"])))
    assert came_back(back)["outboundStatus"] == "connected"
    assert here.backend.token(user)


def test_a_provider_that_names_no_scopes_granted_what_was_asked(here: Installation, user: str) -> None:
    here.provider.state.next_token_answers.append(edited(scope=None))
    here.connected(user)
    assert sorted(here.backend.token(user)["scopes"]) == sorted(SCOPES)
