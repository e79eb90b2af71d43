"""Outbound apps through the API: what is sent is kept, what is loaded can be sent back, and the secret stays inside."""

import json
import uuid
from typing import Any

import pytest

from tests.infra.installation import Installation
from tests.infra.rows import dump
from tests.infra.serving import free_port

SECRET = "s3cret-of-the-provider"


def param(name: str, value: str) -> dict[str, str]:
    """A parameter in both spellings, as answers have it; a request needs one."""
    return {"key": name, "name": name, "value": value}


EVERYTHING: dict[str, Any] = {
    "description": "Everybody's contacts",
    "logo": "https://cdn.example.com/logo.png",
    "clientId": "client-1",
    "clientSecret": SECRET,
    "authorizationUrl": "https://provider.example.com/authorize?tenant=common",
    "authorizationUrlParams": [param("audience", "api"), param("owner", "user")],
    "tokenUrl": "https://provider.example.com/token",
    "tokenUrlParams": [param("format", "json")],
    "revocationUrl": "https://provider.example.com/revoke",
    "defaultScopes": ["contacts", "https://provider.example.com/scopes/mail.read"],
    "defaultRedirectUrl": "https://app.example.com/done",
    "callbackDomain": "connect.example.com",
    "pkce": False,
    "accessType": "offline",
    "prompt": ["login", "consent"],
    "issuer": "https://provider.example.com",
    "userinfoUrl": "https://provider.example.com/me",
    "jwksUrl": "https://provider.example.com/keys",
    "tokenEndpointAuthMethod": "client_secret_basic",
    "scopes": [{"value": "contacts", "description": "See your contacts, all of them ✓"}],
    "skipConsentPage": True,
    "requireConfirmation": True,
    "revokeReplaced": True,
    "refreshPolicy": "on_demand",
    "refreshTokenIdleSeconds": 5_184_000,
}
OURS = (
    "issuer",
    "userinfoUrl",
    "jwksUrl",
    "tokenEndpointAuthMethod",
    "scopes",
    "skipConsentPage",
    "requireConfirmation",
    "revokeReplaced",
    "refreshPolicy",
    "refreshTokenIdleSeconds",
)


def new(here: Installation, **fields: Any) -> dict[str, Any]:
    """Create an app with a name of its own."""
    return here.backend.create_app({"name": f"App {uuid.uuid4().hex}", **fields})


def update(here: Installation, app: dict[str, Any]) -> dict[str, Any]:
    answer = here.backend.post("app/update", {"app": app})
    assert answer.status_code == 200, answer.text
    updated: dict[str, Any] = answer.json()["app"]
    return updated


def sealed_secret(here: Installation, app_id: str) -> Any:
    return next(row["client_secret"] for row in dump(here.settings)["outbound_apps"] if row["id"] == app_id)


def test_everything_that_is_sent_is_kept_but_the_secret_stays_inside(here: Installation) -> None:
    created = new(here, **EVERYTHING)
    expected = {name: value for name, value in EVERYTHING.items() if name != "clientSecret"}
    assert {name: created[name] for name in expected} == expected
    assert created["hasClientSecret"] is True
    assert created["callbackUrl"].startswith("https://connect.example.com/v1/outbound/oauth/callback/")
    assert here.backend.app(created["id"]) == created


@pytest.mark.parametrize("spelling", ["key", "name"])
def test_a_parameter_may_be_sent_in_either_spelling(here: Installation, spelling: str) -> None:
    app = new(here, tokenUrlParams=[{spelling: "format", "value": "json"}])
    assert app["tokenUrlParams"] == [param("format", "json")]


def test_an_app_without_an_id_is_given_one(here: Installation) -> None:
    first, second = new(here), new(here)
    assert first["id"] != second["id"]
    assert here.backend.app(first["id"]) == first
    assert first["callbackUrl"].startswith(f"{here.url}/v1/outbound/oauth/callback/")
    assert first["callbackUrl"] != second["callbackUrl"]


@pytest.mark.parametrize("fields", [EVERYTHING, {}], ids=["everything", "only a name"])
def test_what_a_load_returns_can_be_sent_back_unchanged(here: Installation, fields: dict[str, Any]) -> None:
    loaded = here.backend.app(new(here, **fields)["id"])
    secret = sealed_secret(here, loaded["id"])
    updated = update(here, loaded)
    assert updated | {"updatedTime": ""} == loaded | {"updatedTime": ""}
    assert sealed_secret(here, loaded["id"]) == secret


def test_what_a_load_of_a_discovered_app_returns_can_be_sent_back_unchanged(here: Installation) -> None:
    loaded = here.backend.app(
        new(here, **{**here.provider.registration, "id": "discovered", "name": "Discovered"})["id"]
    )
    assert update(here, loaded) | {"updatedTime": ""} == loaded | {"updatedTime": ""}


def test_an_update_empties_what_it_leaves_out_but_keeps_the_secret_and_fields_of_ours(here: Installation) -> None:
    created = new(here, **EVERYTHING)
    secret = sealed_secret(here, created["id"])
    updated = update(here, {"id": created["id"], "name": "Bare"})
    bare = new(here)
    assert {name: updated[name] for name in OURS} == {name: EVERYTHING[name] for name in OURS}
    differing = {name for name in bare if updated[name] != bare[name]} - {*OURS, "id", "name"}
    assert differing <= {"hasClientSecret", "hasSigningKey", "callbackUrl", "createdTime", "updatedTime"}
    assert updated["hasClientSecret"] is True
    assert sealed_secret(here, created["id"]) == secret


def test_a_new_secret_replaces_the_old_and_an_empty_one_removes_it(here: Installation) -> None:
    created = new(here, clientSecret=SECRET)
    before = sealed_secret(here, created["id"])
    update(here, {"id": created["id"], "name": created["name"], "clientSecret": "another"})
    assert sealed_secret(here, created["id"]) not in (None, before)
    assert update(here, {"id": created["id"], "name": created["name"], "clientSecret": ""})["hasClientSecret"] is False
    assert sealed_secret(here, created["id"]) is None


def test_no_answer_has_the_client_secret(here: Installation) -> None:
    created = new(here, **EVERYTHING)
    answers = [
        json.dumps(created),
        json.dumps(update(here, {**created, "clientSecret": SECRET})),
        here.backend.get(f"app/{created['id']}").text,
        here.backend.get("apps").text,
        here.backend.post("app/create", {**EVERYTHING, "name": created["name"]}).text,
        here.backend.post("app/delete", {"id": created["id"]}).text,
    ]
    assert [answer for answer in answers if SECRET in answer or "clientSecret" in answer] == []


def test_ids_and_names_are_taken_once(here: Installation) -> None:
    one, two = new(here), new(here)
    before = dump(here.settings)
    for path, body in (
        ("app/create", {"id": one["id"], "name": "A free name"}),
        ("app/create", {"id": "a-free-id", "name": one["name"]}),
        ("app/update", {"app": {"id": two["id"], "name": one["name"]}}),
    ):
        answer = here.backend.post(path, body)
        assert (answer.status_code, answer.json()["errorCode"]) == (409, "E111507"), body
    assert dump(here.settings) == before


@pytest.mark.parametrize("path", ["app/update", "app/delete"])
def test_an_app_that_is_not_there_cannot_be_changed(here: Installation, path: str) -> None:
    body = {"id": "nowhere", "name": "Nowhere"}
    answer = here.backend.post(path, {"app": body} if path == "app/update" else body)
    assert (answer.status_code, answer.json()["errorCode"]) == (404, "E111503")


def test_all_apps_come_by_name(here: Installation) -> None:
    for name in ("Zebra", "Aardvark"):
        here.backend.create_app({"name": name})
    names = [app["name"] for app in here.backend.get("apps").json()["apps"]]
    assert names.index("Aardvark") < names.index("Zebra")


def test_a_discovery_url_fills_what_is_left_out(here: Installation) -> None:
    app = new(here, discoveryUrl=here.provider.url)
    at = here.provider.url
    assert {name: app[name] for name in ("authorizationUrl", "tokenUrl", "revocationUrl")} == {
        "authorizationUrl": f"{at}/authorize",
        "tokenUrl": f"{at}/token",
        "revocationUrl": f"{at}/revoke",
    }
    assert (app["issuer"], app["jwksUrl"], app["userinfoUrl"]) == (at, f"{at}/jwks", f"{at}/userinfo")


def test_explicit_values_win_over_discovered_ones(here: Installation) -> None:
    explicit = {
        "authorizationUrl": "https://provider.example.com/authorize",
        "revocationUrl": "https://provider.example.com/revoke",
        "userinfoUrl": "https://provider.example.com/me",
        "tokenEndpointAuthMethod": "client_secret_basic",
    }
    app = new(here, discoveryUrl=here.provider.url, **explicit)
    assert {name: app[name] for name in explicit} == explicit
    assert app["tokenUrl"] == f"{here.provider.url}/token"


def test_a_discovery_that_fails_is_told_of_its_field_and_writes_nothing(here: Installation) -> None:
    before = dump(here.settings)
    for url in (
        f"http://127.0.0.1:{free_port()}",  # nobody listens
        f"{here.provider.url}/nothing-here",
        "https://127.0.0.1:1/",
        "http://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
    ):
        answer = here.backend.post("app/create", {"name": "Undiscovered", "discoveryUrl": url})
        assert (answer.status_code, answer.json()["errorCode"]) == (400, "E011003"), answer.text
        assert [entry["field"] for entry in answer.json()["details"]["fields"]] == ["discoveryUrl"]
    assert dump(here.settings) == before


def test_an_edit_does_not_depend_on_the_provider_being_up(here: Installation) -> None:
    app = new(here, discoveryUrl=here.provider.url)
    gone = f"http://127.0.0.1:{free_port()}"
    answer = here.backend.post("app/update", {"app": {**app, "discoveryUrl": gone}})
    assert answer.status_code == 400
    assert [entry["field"] for entry in answer.json()["details"]["fields"]] == ["app.discoveryUrl"]
    assert update(here, {**app, "description": "edited"})["description"] == "edited"


def test_deleting_an_app_deletes_what_was_connected_through_it(here: Installation) -> None:
    registration = {**here.provider.registration, "id": "leaving", "name": "Leaving"}
    here.backend.create_app(registration)
    here.connected("alice", appId="leaving")
    assert here.backend.fetch("alice", appId="leaving").status_code == 200
    assert here.backend.post("app/delete", {"id": "leaving"}).json() == {}
    assert here.backend.fetch("alice", appId="leaving").json()["errorCode"] == "E111503"
    rows = dump(here.settings)
    assert [
        row for table in ("grants", "authorization_requests") for row in rows[table] if row["app_id"] == "leaving"
    ] == []
    here.backend.create_app(registration)  # the id is free again, and nothing of the old app comes with it
    assert here.backend.fetch("alice", appId="leaving").json()["errorCode"] == "E111504"
