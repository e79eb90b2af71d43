"""Apps that hold API keys, and apps that belong to one tenant."""

import uuid
from typing import Any

import pytest

from tests.infra.installation import APP_ID, BACK, Installation
from tests.infra.people import someone
from tests.infra.rows import dump

KEY = "app/user/apikey/upload"


def new(here: Installation, **fields: Any) -> dict[str, Any]:
    return here.backend.create_app({"name": f"App {uuid.uuid4().hex}", "appType": "apikey", **fields})


def problem_fields(answer: Any, status: int = 400) -> list[str]:
    assert answer.status_code == status, answer.text
    return [entry["field"] for entry in answer.json()["details"]["fields"]]


def test_every_fetch_answers_with_the_key_whatever_scopes_are_asked_for(here: Installation) -> None:
    app, user, tenant = new(here), someone(), f"tenant-{uuid.uuid4().hex}"
    assert app["appType"] == "apikey"
    owner = {"appId": app["id"], "userId": user}
    assert here.backend.post(KEY, {**owner, "apiKey": "sk of alice"}).json() == {}
    tenants = {"appId": app["id"], "tenantId": tenant}
    assert here.backend.post("app/tenant/apikey/upload", {**tenants, "apiKey": "sk-tenant"}).json() == {}
    for path, body, key in (
        ("app/user/token", {**owner, "scopes": []}, "sk of alice"),
        ("app/user/token", {**owner, "scopes": ["any", "thing"]}, "sk of alice"),
        ("app/user/token/latest", {**owner, "options": {"forceRefresh": True, "minimumSeconds": 60}}, "sk of alice"),
        ("app/tenant/token", {**tenants, "scopes": ["any"]}, "sk-tenant"),
        ("app/tenant/token/latest", tenants, "sk-tenant"),
    ):
        answer = here.backend.post(path, body)
        assert answer.status_code == 200, answer.text
        token = answer.json()["token"]
        assert (token["accessToken"], token["accessTokenType"], token["accessTokenExpiry"]) == (key, "apikey", "")
        assert (token["hasRefreshToken"], token["scopes"]) == (False, [])


def test_a_key_takes_the_place_of_the_one_before(here: Installation) -> None:
    app, user = new(here), someone()
    for key in ("sk-1", "sk-2"):
        here.backend.post(KEY, {"appId": app["id"], "userId": user, "apiKey": key})
    assert here.backend.token(user, appId=app["id"])["accessToken"] == "sk-2"
    assert len(here.backend.get(f"tokens?userId={user}").json()["tokens"]) == 1


def test_a_users_key_within_a_tenant_is_another_one(here: Installation) -> None:
    app, user = new(here), someone()
    here.backend.post(KEY, {"appId": app["id"], "userId": user, "apiKey": "sk-own"})
    assert here.backend.fetch(user, appId=app["id"], tenantId="acme").status_code == 404
    here.backend.post(KEY, {"appId": app["id"], "userId": user, "tenantId": "acme", "apiKey": "sk-acme"})
    assert here.backend.token(user, appId=app["id"], tenantId="acme")["accessToken"] == "sk-acme"
    assert here.backend.token(user, appId=app["id"])["accessToken"] == "sk-own"


def test_nobody_connects_an_app_that_holds_keys(here: Installation) -> None:
    answer = here.backend.post("app/connect", {"appId": new(here)["id"], "userId": "alice"})
    assert problem_fields(answer) == ["appId"]


def test_each_kind_of_app_takes_its_own_kind_of_upload(here: Installation) -> None:
    before = dump(here.settings)["grants"]
    assert problem_fields(here.backend.post(KEY, {"appId": APP_ID, "userId": "al", "apiKey": "k"})) == ["appId"]
    upload = {"appId": new(here)["id"], "userId": "al", "accessToken": "at"}
    assert problem_fields(here.backend.post("app/user/oauthtoken/upload", upload)) == ["appId"]
    assert dump(here.settings)["grants"] == before


@pytest.mark.parametrize("key", ["", " ", "line\nbreak"])
def test_a_key_that_cannot_be_one_is_refused(here: Installation, key: str) -> None:
    app = new(here)
    assert problem_fields(here.backend.post(KEY, {"appId": app["id"], "userId": "al", "apiKey": key})) == ["apiKey"]


def test_an_app_that_holds_keys_has_no_oauth_settings(here: Installation) -> None:
    wrong = {"clientId": "c", "clientSecret": "s", "tokenUrl": "https://p.example.com/t", "defaultScopes": ["x"]}
    answer = here.backend.post("app/create", {"name": someone(), "appType": "apikey", **wrong})
    assert problem_fields(answer) == list(wrong)


def test_the_kind_of_an_app_stays_while_there_are_connections(here: Installation) -> None:
    app = new(here)
    here.backend.post(KEY, {"appId": app["id"], "userId": "al", "apiKey": "k"})
    changed = {"app": {**app, "appType": "oauth"}}
    assert problem_fields(here.backend.post("app/update", changed)) == ["app.appType"]
    here.backend.http.delete(f"/v1/mgmt/outbound/user/tokens?appId={app['id']}")
    assert here.backend.post("app/update", changed).json()["app"]["appType"] == "oauth"


def test_an_update_that_does_not_know_of_them_keeps_kind_tenant_and_template(here: Installation) -> None:
    app = new(here, tenantId="acme", templateId="openai")
    updated = here.backend.post("app/update", {"app": {"id": app["id"], "name": someone()}}).json()["app"]
    assert (updated["appType"], updated["tenantId"], updated["templateId"]) == ("apikey", "acme", "openai")
    emptied = {**updated, "tenantId": "", "templateId": ""}
    updated = here.backend.post("app/update", {"app": emptied}).json()["app"]
    assert (updated["tenantId"], updated["templateId"]) == ("", "")


def test_a_template_that_does_not_exist_is_refused(here: Installation) -> None:
    answer = here.backend.post("app/create", {"name": someone(), "templateId": "nothing"})
    assert problem_fields(answer) == ["templateId"]


@pytest.mark.parametrize("owner", [{"userId": "al"}, {"userId": "al", "tenantId": "rivals"}], ids=["none", "another"])
def test_an_app_of_one_tenant_is_not_there_for_others(here: Installation, owner: dict[str, str]) -> None:
    app = new(here, tenantId="acme")
    answer = here.backend.post("app/user/token", {"appId": app["id"], "scopes": ["x"], **owner})
    assert (answer.status_code, answer.json()["errorCode"]) == (404, "E111503")
    answer = here.backend.post(KEY, {"appId": app["id"], "apiKey": "k", **owner})
    assert problem_fields(answer) == ["tenantId"]
    registration = here.provider.registration | {"id": "", "name": someone(), "tenantId": "acme"}
    connectable = here.backend.create_app(registration)
    assert problem_fields(here.backend.post("app/connect", {"appId": connectable["id"], **owner})) == ["tenantId"]


def test_an_app_of_one_tenant_works_for_that_tenant(here: Installation) -> None:
    registration = here.provider.registration | {"id": "", "name": someone(), "tenantId": "acme"}
    app = here.backend.create_app(registration)
    here.connected("al", appId=app["id"], tenantId="acme")
    assert here.backend.token("al", appId=app["id"], tenantId="acme")["tenantId"] == "acme"
    missing = here.backend.fetch("nobody", appId=app["id"], tenantId="acme")
    assert missing.json()["errorCode"] == "E111504"


def test_an_app_cannot_become_one_tenants_while_others_are_connected(here: Installation) -> None:
    app = new(here)
    here.backend.post(KEY, {"appId": app["id"], "userId": "al", "tenantId": "rivals", "apiKey": "k"})
    answer = here.backend.post("app/update", {"app": {**app, "tenantId": "acme"}})
    assert problem_fields(answer) == ["app.tenantId"]
    assert here.backend.post("app/update", {"app": {**app, "tenantId": "rivals"}}).status_code == 200


def test_a_trip_that_was_under_way_when_the_app_became_another_tenants_stores_nothing(here: Installation) -> None:
    registration = here.provider.registration | {"id": "", "name": someone()}
    app, user, browser = here.backend.create_app(registration), someone(), here.browser()
    callback = browser.allow(
        browser.agree(here.backend.connect_url(user, appId=app["id"], options={"redirectUrl": BACK}))
    )
    here.backend.post("app/update", {"app": {**app, "tenantId": "acme"}})
    assert "outboundStatus=failed" in browser.open(callback).headers["location"]
    assert here.backend.get(f"tokens?userId={user}").json()["tokens"] == []
