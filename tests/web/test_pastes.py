"""What people paste: blanks around it are taken away, blanks inside are refused by field, an address gives its host."""

import uuid
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.infra.installation import APP_ID, BACK, CLIENT_ID, Installation, came_back
from tests.infra.people import someone
from tests.infra.rows import dump
from tests.infra.scripted import TOKENS, ScriptedProvider, serving

AROUND = ["{} ", " {}", "{}\n", "\t{}\r\n", "\u00a0{}\u00a0", "\ufeff{}", "{}\u200b", "\u2028{}\u3000", "{}\u200e"]


def fields_of(answer: Any) -> list[str]:
    assert answer.status_code == 400, answer.text
    assert answer.json()["errorCode"] == "E011003"
    return [entry["field"] for entry in answer.json()["details"]["fields"]]


@pytest.mark.parametrize("paste", AROUND)
def test_an_app_works_that_was_pasted_with_what_stood_around_it(here: Installation, paste: str) -> None:
    app_id, user = f"app-{uuid.uuid4().hex[:12]}", someone()
    with serving(ScriptedProvider(routes={"/token": TOKENS})) as provider:
        clean = provider.registration(app_id, issuer=provider.url, resource="https://files.example.com")
        pasted = {
            **{name: paste.format(value) for name, value in clean.items() if isinstance(value, str)},
            "defaultScopes": [paste.format("files")],
            "defaultRedirectUrl": paste.format(BACK),
            "tokenUrlParams": [{"key": paste.format("audience"), "value": paste.format("all")}],
        }
        stored = here.backend.create_app(pasted)
        shown = {name: value for name, value in clean.items() if name != "clientSecret"}
        assert shown.items() <= stored.items()
        browser = here.browser()
        departure = browser.agree(here.backend.connect_url(user, appId=paste.format(app_id)))
        assert departure.startswith(f"{provider.url}/authorize?")
        asked = parse_qs(urlsplit(departure).query)
        assert (asked["client_id"], asked["scope"]) == (["evergrant"], ["files"])
        back = f"{here.backend.app(app_id)['callbackUrl']}?code=c&state={asked['state'][0]}"
        assert came_back(browser.open(back))["outboundStatus"] == "connected"
        (sent,) = provider.forms_at("/token")
        assert (sent["client_id"], sent["client_secret"], sent["audience"]) == ("evergrant", "secret", "all")


def test_a_pasted_issuer_is_discovered(here: Installation) -> None:
    app_id = f"app-{uuid.uuid4().hex[:12]}"
    url = here.provider.url
    app = here.backend.create_app({"id": app_id, "name": app_id, "discoveryUrl": f" {url}\n"})
    assert (app["discoveryUrl"], app["tokenUrl"]) == (url, f"{url}/token")


def test_an_update_and_a_template_take_pastes_too(here: Installation) -> None:
    app_id = f"app-{uuid.uuid4().hex[:12]}"
    given = {"id": f"{app_id} ", "templateId": " github\n", "clientId": "c1\n", "clientSecret": " s1 "}
    overrides = {"name": f" {app_id}", "revocationUrl": "https://github.example.com/revoke "}
    made = here.backend.post("app/create/bytemplate", {**given, "overrides": overrides})
    assert made.status_code == 200, made.text
    app = made.json()["app"]
    assert (app["id"], app["clientId"], app["name"]) == (app_id, "c1", app_id)
    assert app["revocationUrl"] == "https://github.example.com/revoke"
    changed = here.backend.post(
        "app/update", {"app": {**app, "clientId": "\u00a0c2", "tokenUrl": f"{app['tokenUrl']}\t"}}
    )
    assert changed.status_code == 200, changed.text
    assert {"clientId": "c2", "tokenUrl": app["tokenUrl"]}.items() <= changed.json()["app"].items()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clientId", "client id"),
        ("clientId", "client\u200bid"),
        ("clientSecret", "half\nhalf"),
        ("clientSecret", "zero\u200bwidth"),
        ("clientSecret", " \n"),
        ("tokenUrl", "https://provider.example/to ken"),
        ("authorizationUrl", "https://provider.example/\u00a0authorize"),
        ("discoveryUrl", "https://provider.example/\nmeta"),
        ("issuer", "https://provider .example"),
        ("resource", "https://files.example/a b"),
        ("defaultScopes", ["read write"]),
        ("defaultRedirectUrl", "https://app.example.com/a b"),
        ("callbackDomain", "connect .example.com"),
    ],
)
def test_what_stands_inside_is_refused_by_its_field(here: Installation, field: str, value: Any) -> None:
    before = dump(here.settings)
    answer = here.backend.post("app/create", {"name": f"App {uuid.uuid4().hex}", field: value})
    assert fields_of(answer) == [field]
    assert dump(here.settings) == before


def test_a_secret_keeps_the_blanks_inside(here: Installation) -> None:
    app_id, user = f"app-{uuid.uuid4().hex[:12]}", someone()
    with serving(ScriptedProvider(routes={"/token": TOKENS})) as provider:
        here.backend.create_app(provider.registration(app_id, clientSecret=" the secret of ours\n"))
        token = {"appId": app_id, "userId": user, "refreshToken": "rt"}
        assert here.backend.post("app/user/oauthtoken/upload", token).status_code == 200
        here.backend.token(user, appId=app_id, scopes=["files"])
        assert provider.forms_at("/token")[0]["client_secret"] == "the secret of ours"


def test_whose_connection_it_is_is_taken_exactly_as_it_is_sent(here: Installation) -> None:
    user = someone()
    upload = {"appId": APP_ID, "userId": f" {user}", "tenantId": "acme ", "accessToken": "at-1\n"}
    assert here.backend.post("app/user/oauthtoken/upload", upload).status_code == 200
    assert here.backend.fetch(user).status_code == 404
    token = here.backend.token(f" {user}", tenantId="acme ")
    assert (token["userId"], token["tenantId"], token["accessToken"]) == (f" {user}", "acme ", "at-1")


def test_an_api_key_is_stored_without_what_stood_around_it(here: Installation) -> None:
    app_id, user = f"app-{uuid.uuid4().hex[:12]}", someone()
    here.backend.create_app({"id": app_id, "name": app_id, "appType": "apikey"})
    key = {"appId": app_id, "userId": user, "apiKey": "\ufeffsk-1 \n"}
    assert here.backend.post("app/user/apikey/upload", key).status_code == 200
    assert here.backend.token(user, appId=app_id)["accessToken"] == "sk-1"
    answer = here.backend.post("app/user/apikey/upload", {**key, "apiKey": " \n"})
    assert fields_of(answer) == ["apiKey"]


def test_a_trips_options_take_pastes_too(here: Installation) -> None:
    options = {"redirectUrl": f" {BACK}\n", "scopes": ["openid\n"], "loginHint": "ada@example.com "}
    departure = here.browser().agree(here.backend.connect_url(someone(), options=options))
    asked = parse_qs(urlsplit(departure).query)
    assert (asked["scope"], asked["login_hint"], asked["client_id"]) == (["openid"], ["ada@example.com"], [CLIENT_ID])


def test_a_webhooks_address_is_trimmed(here: Installation) -> None:
    made = here.backend.post("webhook/create", {"url": " https://hooks.example.com/in\n"})
    assert made.status_code == 200, made.text
    assert made.json()["webhook"]["url"] == "https://hooks.example.com/in"
    assert fields_of(here.backend.post("webhook/create", {"url": "https://hooks.example.com/i n"})) == ["url"]


# a whole address where a part of it is asked for


def by_template(here: Installation, template: str, **fields: Any) -> Any:
    app_id = f"app-{uuid.uuid4().hex[:12]}"
    wanted = {"id": app_id, "templateId": template, "clientId": "c1", "clientSecret": "s1", **fields}
    return here.backend.post("app/create/bytemplate", {**wanted, "overrides": {"name": app_id}})


SHOPS = [
    "https://acme-shoes.myshopify.com/",
    "https://acme-shoes.myshopify.com/admin?x=1#top",
    "HTTPS://ACME-SHOES.MyShopify.com",
    "http://acme-shoes.myshopify.com:443",
    "acme-shoes.myshopify.com",
    "acme-shoes.myshopify.com/",
    " acme-shoes ",
]
FOREIGN = [
    "https://acme-shoes.myshopify.com.evil.example/",
    "https://evil.example/acme-shoes.myshopify.com",
    "https://acme-shoes@evil.example",
    "https://acme-shoes.myshopify.com@evil.example/",
    "https://evil.example#.myshopify.com",
    "https://evil.example\\.myshopify.com",
    "https://evil.example/.myshopify.com",
    "https://a.b.myshopify.com",
    "https://.myshopify.com",
    "javascript://acme-shoes.myshopify.com",
    "https://acme shoes.myshopify.com",
    "https://[acme-shoes.myshopify.com",
]


@pytest.mark.parametrize("pasted", SHOPS)
def test_a_person_may_paste_the_whole_address_of_the_shop(here: Installation, pasted: str) -> None:
    app_id = by_template(here, "shopify").json()["app"]["id"]
    link = here.backend.connect_url(someone(), appId=app_id)
    browser = here.browser()
    browser.open(link)
    left = browser.http.post(link, data={"decision": "connect", "variables.subdomain": pasted})
    assert left.status_code == 303, left.text
    assert urlsplit(left.headers["location"]).netloc == "acme-shoes.myshopify.com"


@pytest.mark.parametrize("pasted", FOREIGN)
def test_an_address_of_another_place_is_refused_as_ever(here: Installation, pasted: str) -> None:
    app_id = by_template(here, "shopify").json()["app"]["id"]
    link = here.backend.connect_url(someone(), appId=app_id)
    browser = here.browser()
    browser.open(link)
    page = browser.http.post(link, data={"decision": "connect", "variables.subdomain": pasted})
    assert page.status_code == 400
    assert "Use a value like acme-shoes." in page.text


@pytest.mark.parametrize("pasted", SHOPS)
def test_so_may_the_caller_and_an_upload(here: Installation, pasted: str) -> None:
    app_id, user = by_template(here, "shopify").json()["app"]["id"], someone()
    options = {"redirectUrl": BACK, "variables": {"subdomain": pasted}}
    departure = here.browser().agree(here.backend.connect_url(user, appId=app_id, options=options))
    assert urlsplit(departure).netloc == "acme-shoes.myshopify.com"
    upload = {"appId": app_id, "userId": user, "accessToken": "at", "details": {"subdomain": pasted}}
    assert here.backend.post("app/user/oauthtoken/upload", upload).status_code == 200
    found = here.backend.post("app/user/token/latest", {"appId": app_id, "userId": user}).json()["token"]
    assert found["details"] == {"subdomain": "acme-shoes"}


@pytest.mark.parametrize(
    ("template", "name", "pasted", "value"),
    [
        ("auth0", "hostname", "https://acme.eu.auth0.com/", "acme.eu.auth0.com"),
        ("okta", "hostname", "https://ACME.okta.com/oauth2/default", "acme.okta.com"),
        ("keycloak", "hostname", "https://sso.example.com:8443/auth/", "sso.example.com:8443/auth"),
        ("smartsheet", "domain", "https://app.smartsheet.eu/b/home", "smartsheet.eu"),
        ("zendesk", "subdomain", "acme.zendesk.com", "acme"),
    ],
)
def test_an_operator_may_paste_the_address_of_a_host(
    here: Installation, template: str, name: str, pasted: str, value: str
) -> None:
    variables = {name: pasted, **({"realm": "acme"} if template == "keycloak" else {})}
    made = by_template(here, template, variables=variables)
    assert made.status_code == 200, made.text
    assert made.json()["app"]["variables"][name] == value


def test_but_only_of_one_that_the_variable_allows(here: Installation) -> None:
    refused = by_template(here, "snowflake", variables={"snowflake_account_url": "https://acme.evil.example"})
    assert fields_of(refused) == ["variables.snowflake_account_url"]
