"""Providers that leave the RFCs, by the operator's own catalogue entries: from the app's creation to the deletion."""

import contextlib
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from playwright.sync_api import expect

from tests.conftest import Clock
from tests.infra.chromium import Person, chromium
from tests.infra.databases import settings_for
from tests.infra.installation import BACK, Browser, Installation, came_back, installation
from tests.infra.rows import dump, execute, expire
from tests.infra.scripted import ScriptedProvider, form_post_page, serving

END = 2_000_000_000  # epoch seconds
FACTS = """
name = "{id}"
category = "other"
documentation_url = "https://example.com/docs"
verification = "unconfirmed"
authorization_endpoint = "{url}/{id}/authorize"
token_endpoint = "{url}/{id}/token"
"""
ENTRIES = {
    # each user has a shop, the callback brings a company, the answer an instance, a look-up a site
    "shop": """
authorization_endpoint = "{url}/shop/{{shop}}/authorize"
token_endpoint = "{url}/shop/{{shop}}/token"
parameter_names = {{ client_id = "client_key" }}
callback_parameter_names = {{ code = "auth_code" }}
token_request_format = "json"
scope_separator = ","
default_scopes = ["a", "b"]
token_params = {{ again = "{{state}}" }}
refresh_params = {{ scope = "{{scope}}" }}
context_request = {{ url = "{url}/sites" }}
[scopes]
a = "See a"
b = "See b"
[token_response]
access_token = "/data/token"
refresh_token = "/data/refresh"
expires_in = "/data/minutes"
expires_unit = "min"
[variables]
shop = {{ title = "Your shop", source = "user", pattern = "[a-z0-9-]{{1,20}}", example = "acme" }}
tier = {{ title = "Tier", source = "user", enum = ["basic", "pro"], default = "basic" }}
company = {{ title = "Company", source = "callback", from = "companyId", pattern = "[0-9]+", required = true }}
instance = {{ title = "Instance", source = "token", from = "/instance" }}
site = {{ title = "Site", source = "context", from = "/0/id" }}
[authorization_params]
tier = "{{tier}}"
[revocation]
url = "{url}/revoke/{{company}}"
method = "DELETE"
auth = "bearer"
""",
    # the operator names a tenant; PKCE must be on
    "tenant": """
authorization_endpoint = "{url}/{{tenant}}/authorize"
token_endpoint = "{url}/{{tenant}}/token"
pkce = "required"
[variables.tenant]
title = "Tenant"
pattern = "[a-z]{{1,20}}"
example = "contoso"
""",
    "trader": """
revocation_endpoint = "{url}/revoke"
[[token_exchange]]
when = ["connect", "refresh"]
url = "{url}/swap"
params = {{ old = "{{access_token}}", secret = "{{client_secret}}" }}
""",
    "teller": """
introspection_endpoint = "{url}/introspect"
default_expires_in = 900
""",
    "late": "refresh_margin = 30\n",
    "bounded": "refresh_token_max_seconds = 31536000\n",
    "single": """
revocation_endpoint = "{url}/revoke"
revoke_replaced = true
""",
    "sited": """
revocation_endpoint = "{url}/revoke"
context_request = {{ url = "{url}/sites" }}
[variables]
site = {{ title = "Site", source = "context", from = "/0/id", required = true }}
""",
    "called": """
[api]
base_url = "{url}/api/{{site}}"
check = "GET /me"
headers = {{ X-Client = "{{client_id}}" }}
[variables]
site = {{ title = "Site", source = "token", from = "/site", pattern = "[a-z]+" }}
""",
    "keyed": """
app_type = "apikey"
authorization_endpoint = ""
token_endpoint = ""
[api]
base_url = "{url}/bot{{token}}"
check = "GET /getMe"
check_ok = "/ok"
""",
    "poster": 'authorization_params = {{ response_mode = "form_post" }}\n',
}


@dataclass
class Here:
    """An installation with these entries, and the provider that they describe."""

    installation: Installation
    provider: ScriptedProvider

    def create(self, template: str, **fields: Any) -> str:
        app_id = f"app-{uuid.uuid4().hex[:12]}"
        client = {} if template == "keyed" else {"clientId": "client-1", "clientSecret": "secret-1"}
        wanted = {"templateId": template, "id": app_id, **client}
        overrides = {"name": app_id, **fields.pop("overrides", {})}
        answer = self.installation.backend.post("app/create/bytemplate", {**wanted, "overrides": overrides, **fields})
        assert answer.status_code == 200, answer.text
        return app_id

    def leave(self, app_id: str, user: str, answers: dict[str, str] | None = None, **options: Any) -> Any:
        """Go to the provider; returns the browser and the provider's address."""
        browser = self.installation.browser()
        link = self.installation.backend.connect_url(user, appId=app_id, options={"redirectUrl": BACK, **options})
        assert browser.open(link).status_code == 200
        form = {f"variables.{name}": value for name, value in (answers or {}).items()}
        return browser, browser.http.post(link, data={"decision": "connect", **form})

    def connect(self, app_id: str, user: str, callback: dict[str, str] | None = None, **choices: Any) -> dict[str, str]:
        """Make a whole trip and return what comes back to the application."""
        browser, answer = self.leave(app_id, user, **choices)
        return came_back(self.come_back(app_id, browser, answer, callback or {}))

    def come_back(self, app_id: str, browser: Browser, answer: Any, callback: dict[str, str]) -> Any:
        """Come back from the provider's address to the app's callback."""
        assert answer.status_code == 303, answer.text
        state = parse_qs(urlsplit(answer.headers["location"]).query)["state"][0]
        params = {"code": "code-1", "state": state, **callback}
        back = browser.open(str(httpx2.URL(self.installation.backend.app(app_id)["callbackUrl"], params=params)))
        assert back.status_code == 303, back.text
        return back

    def token(self, app_id: str, user: str, **fields: Any) -> dict[str, Any]:
        answer = self.installation.backend.post("app/user/token/latest", {"appId": app_id, "userId": user, **fields})
        assert answer.status_code == 200, answer.text
        token: dict[str, Any] = answer.json()["token"]
        return token


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    entries = tmp_path_factory.mktemp("entries")
    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(serving(ScriptedProvider()))
        for name, text in ENTRIES.items():
            own = text.format(url=provider.url)
            given = {line.partition(" = ")[0] for line in own.splitlines()}
            facts = [line for line in FACTS.format(id=name, url=provider.url).splitlines() if line]
            kept = [line for line in facts if line.partition(" = ")[0] not in given]
            (entries / f"{name}.toml").write_text("\n".join([*kept, own]))
        settings = stack.enter_context(
            settings_for(request, tmp_path_factory, catalog_dir=entries, log_level="warning")
        )
        yield Here(stack.enter_context(installation(settings)), provider)


@pytest.fixture
def here(running: Here) -> Here:
    """The same for every test, with nothing left of the one before."""
    running.provider.routes.clear()
    running.provider.requests.clear()
    return running


def tokens(access: str, refresh: str = "", **more: Any) -> dict[str, Any]:
    return {"data": {"token": access, "refresh": refresh, "minutes": "60"}, **more}


# variables that a user gives


def test_whoever_connects_is_asked_for_their_shop(here: Here, user: str) -> None:
    app_id = here.create("shop")
    here.provider.routes = {
        "/shop/acme/token": [tokens("at-1", "rt-1", instance="i-1"), tokens("at-2", "rt-2", instance="i-2")],
        "/sites": [[{"id": "site-1"}]],
    }
    back = here.connect(app_id, user, {"auth_code": "code-9", "companyId": "42"}, answers={"shop": "acme"})
    assert back["outboundStatus"] == "connected"
    redeemed = here.provider.requests_to("/shop/acme/token")[0].json
    assert (redeemed["client_key"], redeemed["code"]) == ("client-1", "code-9")
    assert len(redeemed["again"]) > 20  # the state, as the callback brought it
    assert here.provider.requests_to("/sites")[0].headers["authorization"] == "Bearer at-1"
    token = here.token(app_id, user)
    known = {"shop": "acme", "tier": "basic", "company": "42", "instance": "i-1", "site": "site-1"}
    assert (token["accessToken"], token["details"], token["scopes"]) == ("at-1", known, ["a", "b"])
    (listed,) = here.installation.backend.http.get("/v1/mgmt/outbound/tokens", params={"userId": user}).json()["tokens"]
    assert listed["details"] == known
    expire(here.installation.settings, user)
    token = here.token(app_id, user)
    assert (token["accessToken"], token["details"]) == ("at-2", {**known, "instance": "i-2"})
    refreshed = here.provider.requests_to("/shop/acme/token")[1].json
    assert (refreshed["grant_type"], refreshed["refresh_token"], refreshed["scope"]) == ("refresh_token", "rt-1", "a,b")


def test_a_wrong_answer_is_explained_and_uses_nothing_up(here: Here, user: str) -> None:
    app_id = here.create("shop")
    browser, answer = here.leave(app_id, user, {"shop": "evil.example/x"})
    assert answer.status_code == 400
    assert "Use a value like acme." in answer.text
    assert 'value="evil.example/x"' in answer.text
    again = browser.http.post(str(answer.url), data={"decision": "connect", "variables.shop": ""})
    assert "Use a value like acme." in again.text
    good = browser.http.post(str(answer.url), data={"decision": "connect", "variables.shop": " acme "})
    location = urlsplit(good.headers["location"])
    assert location.path == "/shop/acme/authorize"
    assert parse_qs(location.query)["tier"] == ["basic"]


def test_who_comes_back_to_the_page_finds_the_answers_and_may_change_them(here: Here, user: str) -> None:
    app_id = here.create("shop")
    here.provider.routes = {"/shop/acme/token": tokens("at-1", instance="i-1"), "/sites": [[{"id": "site-1"}]]}
    browser = here.installation.browser()
    link = here.installation.backend.connect_url(user, appId=app_id)
    browser.open(link)
    first = browser.http.post(link, data={"decision": "connect", "variables.shop": "acne", "variables.tier": "pro"})
    page = browser.open(link).text
    assert 'value="acne"' in page
    assert "<option selected>pro</option>" in page
    again = browser.http.post(link, data={"decision": "connect", "variables.shop": "acme", "variables.tier": "pro"})
    before, after = urlsplit(first.headers["location"]), urlsplit(again.headers["location"])
    assert (before.path, after.path) == ("/shop/acne/authorize", "/shop/acme/authorize")
    assert parse_qs(before.query) == parse_qs(after.query)
    params = {"auth_code": "code-9", "companyId": "42", "state": parse_qs(after.query)["state"][0]}
    back = browser.open(str(httpx2.URL(here.installation.backend.app(app_id)["callbackUrl"], params=params)))
    assert came_back(back)["outboundStatus"] == "connected"
    assert here.token(app_id, user)["details"]["shop"] == "acme"
    assert here.provider.requests_to("/shop/acne/token") == []


def test_the_caller_can_answer_and_then_nobody_is_asked(here: Here, user: str) -> None:
    app_id = here.create("shop", overrides={"skipConsentPage": True, "requireConfirmation": True})
    link = here.installation.backend.connect_url(
        user, appId=app_id, options={"variables": {"shop": "acme", "tier": "pro"}}
    )
    browser = here.installation.browser()
    answer = browser.open(f"{here.installation.url}{browser.open(link).headers['location']}")
    location = urlsplit(answer.headers["location"])
    assert (location.path, parse_qs(location.query)["tier"]) == ("/shop/acme/authorize", ["pro"])
    # Without them the page cannot be skipped.
    asking = here.installation.backend.connect_url(user, appId=app_id)
    page = browser.open(asking)
    assert page.status_code == 200
    assert re.search(r'<input id="variable-shop"[^>]* required', page.text)


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({"shop": "a.b"}, "options.variables.shop"),
        ({"shop": "acme", "company": "42"}, "options.variables.company"),
        ({"nothing": "x"}, "options.variables.nothing"),
        ({"shop": "acme", "tier": "gold"}, "options.variables.tier"),
    ],
)
def test_a_wrong_variable_of_a_trip_is_named(here: Here, user: str, variables: dict[str, str], field: str) -> None:
    app_id = here.create("shop")
    before = dump(here.installation.settings)
    answer = here.installation.backend.post(
        "app/connect", {"appId": app_id, "userId": user, "options": {"redirectUrl": BACK, "variables": variables}}
    )
    assert answer.status_code == 400
    assert [entry["field"] for entry in answer.json()["details"]["fields"]] == [field]
    assert dump(here.installation.settings) == before


def test_an_apps_own_value_counts_for_everybody_and_cannot_be_given_otherwise(here: Here, user: str) -> None:
    app_id = here.create("shop", variables={"shop": "ours"})
    assert here.installation.backend.get(f"app/{app_id}").json()["app"]["variables"] == {"shop": "ours"}
    answer = here.installation.backend.post(
        "app/connect", {"appId": app_id, "userId": user, "options": {"variables": {"shop": "theirs"}}}
    )
    assert answer.json()["details"]["fields"][0]["field"] == "options.variables.shop"
    _, answer = here.leave(app_id, user)
    assert urlsplit(answer.headers["location"]).path == "/shop/ours/authorize"


@pytest.mark.parametrize("company", ["", "not-a-number"])
def test_a_company_that_the_callback_should_tell_is_required(here: Here, user: str, company: str) -> None:
    app_id = here.create("shop", variables={"shop": "ours"})
    here.provider.routes = {"/shop/ours/token": tokens("at-1")}
    back = here.connect(app_id, user, {"auth_code": "code-9", "companyId": company})
    assert (back["outboundStatus"], back["err"]) == ("failed", "invalid_response")
    assert "company" in back["errDescription"]
    assert here.provider.requests == []  # the code was not even redeemed


def test_deleting_revokes_in_the_providers_own_way(here: Here, user: str) -> None:
    app_id = here.create("shop", variables={"shop": "ours"})
    here.provider.routes = {"/shop/ours/token": tokens("at-1", "rt-1"), "/revoke/42": {}}
    here.connect(app_id, user, {"auth_code": "code-9", "companyId": "42"})
    answer = here.installation.backend.post("token/revoke", {"id": here.token(app_id, user)["id"]})
    assert answer.json() == {"outcome": "revoked"}
    revoked = here.provider.requests_to("/revoke/42")
    assert [(call.method, call.headers["authorization"]) for call in revoked] == [("DELETE", "Bearer at-1")]


def test_tokens_from_elsewhere_bring_their_details(here: Here, user: str) -> None:
    app_id = here.create("shop")
    here.provider.routes = {"/shop/acme/token": tokens("at-2", "rt-2")}
    upload = {"appId": app_id, "userId": user, "refreshToken": "rt-1"}
    backend = here.installation.backend
    for details, field in (({"shop": "acme"}, "details.company"), ({"company": "42"}, "details.shop")):
        answer = backend.post("app/user/oauthtoken/upload", {**upload, "details": details})
        assert [entry["field"] for entry in answer.json()["details"]["fields"]] == [field]
    known = {"shop": "acme", "company": "42"}
    answer = backend.post("app/user/oauthtoken/upload", {**upload, "details": known, "verifyRefresh": True})
    assert answer.status_code == 200, answer.text
    assert here.provider.requests_to("/shop/acme/token")[0].json["refresh_token"] == "rt-1"
    token = here.token(app_id, user)
    assert (token["accessToken"], token["details"]) == ("at-2", {**known, "tier": "basic"})


# variables that an operator gives


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "variables.tenant"),
        ({"variables": {"tenant": "not a tenant"}}, "variables.tenant"),
        ({"variables": {"tenant": "contoso", "shop": "x"}}, "variables.shop"),
        ({"variables": {"tenant": "contoso"}, "overrides": {"pkce": False}}, "pkce"),
        ({"variables": {"tenant": "contoso"}, "overrides": {"tokenUrl": "https://{host}/token"}}, "tokenUrl"),
    ],
)
def test_a_wrong_variable_of_an_app_is_named(here: Here, fields: dict[str, Any], field: str) -> None:
    before = dump(here.installation.settings)
    answer = here.installation.backend.post("app/create/bytemplate", {"templateId": "tenant", **fields})
    assert answer.status_code == 400, answer.text
    assert [entry["field"] for entry in answer.json()["details"]["fields"]] == [field]
    assert dump(here.installation.settings) == before


def test_an_address_must_not_be_made_of_a_value_that_a_user_chooses(here: Here) -> None:
    overrides = {"tokenUrl": "https://{shop}/token"}
    answer = here.installation.backend.post("app/create/bytemplate", {"templateId": "shop", "overrides": overrides})
    assert answer.status_code == 400
    assert [entry["field"] for entry in answer.json()["details"]["fields"]] == ["tokenUrl"]
    assert "variables.shop.pattern" in answer.json()["message"]


def test_an_update_changes_variables_and_one_that_leaves_them_out_keeps_them(here: Here, user: str) -> None:
    app_id = here.create("tenant", variables={"tenant": "contoso"})
    backend = here.installation.backend
    app = backend.get(f"app/{app_id}").json()["app"]
    assert app["tokenUrl"].endswith("/{tenant}/token")
    another = {"variables": {"tenant": "fabrikam"}, "clientSecret": "secret"}
    assert backend.post("app/update", {"app": {**app, **another}}).status_code == 200
    assert backend.post("app/update", {"app": {**app, "variables": None}}).status_code == 200
    assert backend.get(f"app/{app_id}").json()["app"]["variables"] == {"tenant": "fabrikam"}
    refused = backend.post("app/update", {"app": {**app, "variables": {}}})
    assert refused.json()["details"]["fields"][0]["field"] == "app.variables.tenant"
    _, answer = here.leave(app_id, user)
    assert urlsplit(answer.headers["location"]).path == "/fabrikam/authorize"


def test_a_test_of_an_app_says_what_depends_on_each_connection(here: Here) -> None:
    here.provider.routes = {"/contoso/token": (400, {"error": "invalid_grant"}), "/contoso/authorize": {}}
    tenant, shop = here.create("tenant", variables={"tenant": "contoso"}), here.create("shop")
    checks = {c["name"]: c for c in here.installation.backend.post("app/test", {"id": tenant}).json()["checks"]}
    assert {check["good"] for check in checks.values()} == {True}
    assert "accepts" in checks["client"]["text"]
    checks = {c["name"]: c for c in here.installation.backend.post("app/test", {"id": shop}).json()["checks"]}
    assert checks["token endpoint"]["text"].startswith("Each connection has its own (shop)")
    assert here.provider.requests_to("/shop/{shop}/token") == []


# what the API says to a credential


def api_check(here: Here, app_id: str, **fields: Any) -> dict[str, Any]:
    answer = here.installation.backend.post("app/test", {"id": app_id, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = {check["name"]: check for check in answer.json()["checks"]}["api"]
    return found


def test_the_api_is_asked_with_a_connections_own_token_which_is_renewed_first(here: Here, user: str) -> None:
    app_id = here.create("called")
    assert api_check(here, app_id) == {
        "name": "api",
        "good": True,
        "text": "Nobody is connected: the API can be asked when somebody is.",
    }
    answers = [{"access_token": f"at-{n}", "refresh_token": f"rt-{n}", "expires_in": 3600, "site": "s"} for n in (1, 2)]
    here.provider.routes = {"/called/token": answers, "/api/s/me": {"id": 1}}
    here.connect(app_id, user)
    assert api_check(here, app_id) == {"name": "api", "good": True, "text": "It answered 200 to GET /me."}
    expire(here.installation.settings, user)
    assert api_check(here, app_id, userId=user)["good"]
    elsewhere = here.create("called", overrides={"tokenUrl": f"{here.provider.url}/other/token"})
    checks = here.installation.backend.post("app/test", {"id": elsewhere}).json()["checks"]
    assert "api" not in {check["name"] for check in checks}  # its tokens are another server's
    asked = here.provider.requests_to("/api/s/me")
    assert [(call.headers["authorization"], call.headers["x-client"]) for call in asked] == [
        ("Bearer at-1", "client-1"),
        ("Bearer at-2", "client-1"),
    ]
    here.provider.routes["/api/s/me"] = (401, {"message": "at-2 has ended"})
    refused = api_check(here, app_id, userId=user)
    assert (refused["good"], "at-2" in refused["text"]) == (False, False)
    assert refused["text"].endswith("Connect again.")
    assert "no active connection" in api_check(here, app_id, userId="nobody")["text"]
    backend = here.installation.backend
    told = backend.get(f"token/events?id={here.token(app_id, user)['id']}").json()["events"]
    assert [event["data"].get("error", "") for event in told if event["kind"] == "tested"] == ["http_401", "", ""]
    records = backend.http.post("/v1/mgmt/audit/search", json={"userIds": [user]}).json()["audits"]
    said = [record["data"].get("error", "") for record in records if record["action"] == "token.tested"]
    assert said == ["http_401", "", ""]


def test_a_key_is_tried_where_its_api_wants_it(here: Here, user: str) -> None:
    app_id = here.create("keyed")
    upload = {"appId": app_id, "userId": user, "apiKey": "1:a/b"}
    assert here.installation.backend.post("app/user/apikey/upload", upload).status_code == 200
    here.provider.others = [{"ok": True}]
    assert api_check(here, app_id)["good"]
    [asked] = here.provider.requests
    assert (asked.target, "authorization" in asked.headers) == ("/bot1:a%2Fb/getMe", False)
    here.provider.others = [{"ok": False}]
    assert api_check(here, app_id)["text"].endswith("Upload credentials that work.")


@pytest.mark.parametrize(("said", "state"), [({"id": 1}, "good"), ((404, {}), "bad")])
def test_a_test_connection_asks_the_api_too(here: Here, said: Any, state: str) -> None:
    app_id, backend = here.create("called"), here.installation.backend
    token = {"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600, "site": "s"}
    here.provider.routes = {"/called/token": token, "/called/authorize": {}, "/api/s/me": said}
    begun = backend.post("app/trial", {"appId": app_id, "anyway": True}).json()
    browser = here.installation.browser()
    assert browser.open(begun["url"]).status_code == 200
    here.come_back(app_id, browser, browser.http.post(begun["url"], data={"decision": "connect"}), {})
    answer = backend.get(f"app/trial/steps?appId={app_id}").json()
    step = next(step for step in answer["steps"] if step["name"] == "api")
    assert (step["state"], answer["good"]) == (state, state == "good"), step
    assert "site" in step["remedy"] or state == "good"
    assert answer["steps"][-1]["state"] == "skipped"  # it was ended all the same, and this one cannot revoke


# lifetimes, trades, form_post


def test_an_access_token_is_traded_for_the_next_one(here: Here, user: str) -> None:
    app_id = here.create("trader")
    here.provider.routes = {
        "/trader/token": {"access_token": "short", "expires_in": 3600},
        "/swap": [{"access_token": "long", "expires_in": 5184000}, {"access_token": "longer", "expires_in": 5184000}],
    }
    here.connect(app_id, user)
    token = here.token(app_id, user)
    assert (token["accessToken"], token["hasRefreshToken"]) == ("long", True)
    assert "details" not in token
    expire(here.installation.settings, user)
    assert here.token(app_id, user)["accessToken"] == "longer"
    assert [call.query for call in here.provider.requests_to("/swap")] == [
        {"old": "short", "secret": "secret-1"},
        {"old": "long", "secret": "secret-1"},
    ]
    here.provider.routes["/swap"] = (400, {"error": "invalid_token"})
    expire(here.installation.settings, user)
    dead = here.installation.backend.post("app/user/token/latest", {"appId": app_id, "userId": user})
    assert dead.json()["details"]["reason"] == "reauthorization_required"


def test_introspection_tells_the_end_after_a_connect_and_after_a_refresh(here: Here, user: str) -> None:
    app_id = here.create("teller")
    here.provider.routes = {
        "/teller/token": {"access_token": "at", "refresh_token": "rt"},
        "/introspect": [{"active": True, "exp": END}, {"active": True, "exp": END + 3600}, {}],
    }
    here.connect(app_id, user)
    assert abs(int(here.token(app_id, user)["accessTokenExpiry"]) - END) <= 2
    expire(here.installation.settings, user)
    assert abs(int(here.token(app_id, user)["accessTokenExpiry"]) - (END + 3600)) <= 2


def test_a_provider_that_refreshes_only_at_the_end_is_not_asked_earlier(here: Here, user: str) -> None:
    app_id = here.create("late")
    here.provider.routes = {"/late/token": {"access_token": "at", "refresh_token": "rt", "expires_in": 600}}
    here.connect(app_id, user)
    fetch = {"appId": app_id, "userId": user}
    backend = here.installation.backend
    forced = backend.post("app/user/token/latest", {**fetch, "options": {"forceRefresh": True}})
    assert forced.status_code == 503
    assert 500 < int(forced.headers["retry-after"]) <= 571
    assert here.token(app_id, user)["accessToken"] == "at"
    assert len(here.provider.requests_to("/late/token")) == 1
    expire(here.installation.settings, user)
    here.token(app_id, user)
    assert len(here.provider.requests_to("/late/token")) == 2


def test_where_no_end_is_known_a_provider_that_refreshes_only_at_the_end_may_be_asked(here: Here, user: str) -> None:
    app_id = here.create("late")
    here.provider.routes = {"/late/token": {"access_token": "at", "refresh_token": "rt"}}
    here.connect(app_id, user)
    fetch = {"appId": app_id, "userId": user, "options": {"forceRefresh": True}}
    assert here.installation.backend.post("app/user/token/latest", fetch).status_code == 200


def test_what_an_answer_tells_is_kept_without_what_no_database_takes(here: Here, user: str) -> None:
    app_id = here.create("shop")
    here.provider.routes = {
        "/shop/acme/token": {"data": {"token": "at"}, "instance": "eu\x00\ud800"},
        "/sites": [[{"id": "\ud800\x00de"}]],
    }
    here.connect(app_id, user, {"auth_code": "code-1", "companyId": "7"}, answers={"shop": "acme"})
    details = here.token(app_id, user)["details"]
    assert (details["instance"], details["site"]) == ("eu\ufffd\ufffd", "\ufffd\ufffdde")


def test_the_end_that_a_provider_sets_for_every_consent_is_not_moved_by_a_rotation(
    here: Here, user: str, clock: Clock
) -> None:
    app_id = here.create("bounded")
    answers: list[dict[str, Any]] = [
        {"refresh_token": "rt"},
        {"refresh_token": "rt-2"},
        {"refresh_token": "rt-3", "refresh_expires_in": 60},
    ]
    here.provider.routes = {"/bounded/token": [{"access_token": "at", "expires_in": 600, **more} for more in answers]}
    here.connect(app_id, user)

    def listed() -> tuple[int, int]:
        [token] = here.installation.backend.get(f"tokens?userId={user}").json()["tokens"]
        return int(token["connectedTime"]), int(token["refreshTokenExpiry"])

    connected, end = listed()
    assert end == connected + 365 * 86_400
    clock.advance(700)
    here.token(app_id, user)
    assert listed() == (connected, end)
    clock.advance(700)
    here.token(app_id, user)
    assert listed()[1] < connected + 86_400


@pytest.mark.parametrize("running", ["sqlite"], indirect=True)
def test_a_browser_comes_back_by_a_foreign_post(here: Here, user: str) -> None:
    # `localhost` is another site than 127.0.0.1, so our cookie is not sent with the provider's POST.
    posting = here.provider.url.replace("127.0.0.1", "localhost") + "/posting"
    app_id = here.create("poster", overrides={"authorizationUrl": posting})
    here.provider.routes = {"/poster/token": {"access_token": "at", "expires_in": 600}, "/posting": form_post_page}
    with chromium() as browser, Person(browser) as somebody:
        page = somebody.tab()
        page.goto(here.installation.backend.connect_url(user, appId=app_id, options={}))
        page.get_by_role("button", name="Continue to").click()
        page.get_by_role("button", name="Allow").click()
        expect(page.get_by_role("heading", name=re.compile("is connected$"))).to_be_visible()
        assert somebody.complaints == []
    assert here.token(app_id, user)["accessToken"] == "at"


@pytest.mark.parametrize("running", ["sqlite"], indirect=True)
def test_a_person_answers_on_the_page(here: Here, user: str) -> None:
    app_id = here.create("shop")
    link = here.installation.backend.connect_url(user, appId=app_id, options={})
    with chromium() as browser, Person(browser) as somebody:
        page = somebody.tab()
        page.goto(link)
        page.get_by_role("button", name="Continue to").click()  # the browser itself says that something is needed
        expect(page.get_by_label("Your shop")).to_be_focused()
        page.get_by_label("Your shop").fill("acme")
        page.get_by_label("Tier").select_option("pro")
        page.keyboard.press("Tab")
        page.get_by_role("button", name="Continue to").click()
        page.wait_for_url("**/shop/acme/authorize?*tier=pro*")


# what is revoked when a connection goes by another way than a deletion


def revoked(here: Here) -> list[str]:
    """What was revoked at once, and what the database still has to be revoked."""
    waiting = [row["reason"] for row in dump(here.installation.settings)["revocations"]]
    return [form["token"] for form in here.provider.forms_at("/revoke")] + waiting


def test_of_a_trade_that_fails_the_first_token_does_not_stay_open(here: Here, user: str) -> None:
    here.provider.routes = {"/trader/token": {"access_token": "short"}, "/swap": (500, {}), "/revoke": {}}
    assert here.connect(here.create("trader"), user)["outboundStatus"] == "failed"
    assert revoked(here) == ["short"]


def test_a_consent_that_lacks_what_a_look_up_should_tell_does_not_stay_open(here: Here, user: str) -> None:
    here.provider.routes = {"/sited/token": {"access_token": "at-1"}, "/sites": [[]], "/revoke": {}}
    assert here.connect(here.create("sited"), user)["outboundStatus"] == "failed"
    assert revoked(here) == ["at-1"]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_template_can_say_that_replaced_consents_are_revoked(here: Here, user: str, elsewhere: bool) -> None:
    """It says so of the provider's own endpoint, and of no other."""
    here.provider.routes = {
        "/single/token": [{"access_token": "at-1"}, {"access_token": "at-2"}],
        "/revoke": {},
        "/other": {},
    }
    overrides = {"revocationUrl": f"{here.provider.url}/other"} if elsewhere else {}
    app_id = here.create("single", overrides=overrides)
    here.connect(app_id, user)
    here.connect(app_id, user)
    assert revoked(here) == ([] if elsewhere else ["replaced"])
    execute(here.installation.settings, "DELETE FROM revocations")
