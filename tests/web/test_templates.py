"""The app library: every template makes an app, and an override wins over it."""

import uuid
from typing import Any

import pytest

from evergrant.broker.runtime.principal import Permission
from tests.infra.installation import Installation
from tests.infra.rows import dump
from tests.web.conftest import MakeBackend

pytestmark = pytest.mark.xdist_group("web templates")  # one worker makes the module's installation, not each

CREATE = "app/create/bytemplate"


def templates(here: Installation) -> list[dict[str, Any]]:
    answer = here.backend.get("templates")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["templates"]
    return found


def make(here: Installation, template: str, **fields: Any) -> dict[str, Any]:
    overrides = {"name": f"App {uuid.uuid4().hex}", **fields.pop("overrides", {})}
    answer = here.backend.post(CREATE, {"templateId": template, "overrides": overrides, **fields})
    assert answer.status_code == 200, answer.text
    app: dict[str, Any] = answer.json()["app"]
    return app


def test_the_library_has_both_kinds_of_apps(here: Installation) -> None:
    found = templates(here)
    assert {"google-contacts", "google-calendar", "github", "microsoft"} <= {template["id"] for template in found}
    assert {template["appType"] for template in found} == {"oauth", "apikey"}
    for template in found:
        assert here.backend.get(f"templates/{template['id']}").json() == {"template": template}
    keys = {template["id"]: template["apiKey"] for template in found}
    assert keys["openai"] == {"in": "header", "name": "Authorization", "prefix": "Bearer ", "username": ""}
    assert keys["github"] is None
    assert here.backend.get("templates/nothing").json()["errorCode"] == "E011004"


def test_every_template_makes_an_app_that_is_what_the_template_says(here: Installation) -> None:
    for template in templates(here):
        asked = [v for v in template["variables"] if v["source"] == "app" and v["required"]]
        given = {v["name"]: v["example"] or [*v["enum"], "x"][0] for v in asked}
        app = make(here, template["id"], variables=given, overrides={"name": template["id"]})
        same = ("appType", "authorizationUrl", "tokenUrl", "revocationUrl", "defaultScopes", "scopes")
        assert {name: app[name] for name in same} == {name: template[name] for name in same}
        assert (app["templateId"], app["variables"]) == (template["id"], given)


def test_a_key_comes_back_with_what_stands_beside_it(here: Installation) -> None:
    sid, user = "SK0123456789abcdef0123456789abcdef", uuid.uuid4().hex
    app = make(here, "twilio")
    key = {"appId": app["id"], "userId": user, "apiKey": "secret"}
    for details, said in (
        ({}, "is required"),
        ({"sid": "SK1"}, "use a value like SK"),
        ({"side": sid}, "cannot be given"),
    ):
        answer = here.backend.post("app/user/apikey/upload", {**key, "details": details})
        assert answer.status_code == 400
        assert said in answer.text
    assert here.backend.post("app/user/apikey/upload", {**key, "details": {"sid": sid}}).status_code == 200
    token = here.backend.post("app/user/token/latest", {"appId": app["id"], "userId": user}).json()["token"]
    assert (token["accessToken"], token["details"]) == ("secret", {"sid": sid})


def test_ebay_sees_its_own_name_for_the_callback_address(here: Installation) -> None:
    app = make(here, "ebay", clientId="client-1", clientSecret="secret-1", variables={"ruName": "Acme-RU"})
    url = here.browser().agree(here.backend.connect_url(appId=app["id"]))
    assert "redirect_uri=Acme-RU&" in url


def test_a_trip_can_lead_to_a_route_of_the_providers_page(here: Installation) -> None:
    app = make(here, "apollo-oauth", clientId="client-1", clientSecret="secret-1")
    url = here.browser().agree(here.backend.connect_url(appId=app["id"]))
    assert url.startswith("https://app.apollo.io/#/oauth/authorize?response_type=code&client_id=client-1&")


def test_a_users_trip_starts_from_a_template_with_what_the_provider_needs(here: Installation) -> None:
    app = make(here, "dropbox", clientId="client-1", clientSecret="secret-1")
    assert app["hasClientSecret"] is True
    url = here.browser().agree(here.backend.connect_url(appId=app["id"]))
    assert url.startswith("https://www.dropbox.com/oauth2/authorize?")
    assert "token_access_type=offline" in url
    assert "client_id=client-1" in url


def test_what_is_given_and_overridden_wins_over_the_template(here: Installation) -> None:
    wanted = f"mine-{uuid.uuid4().hex}"
    overrides = {"defaultScopes": ["contacts"], "prompt": [], "tokenUrl": "https://proxy.example.com/token"}
    app = make(here, "google-contacts", id=wanted, tenantId="acme", overrides={**overrides, "pkce": None})
    assert (app["id"], app["tenantId"]) == (wanted, "acme")
    assert {name: app[name] for name in overrides} == overrides
    assert app["accessType"] == "offline"
    assert app["pkce"] is True


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"templateId": "nothing"}, "templateId"),
        ({"templateId": "github", "overrides": {"tokenURL": "https://x.example.com"}}, "overrides.tokenURL"),
        ({"templateId": "github", "overrides": {"token_url": "https://x.example.com"}}, "overrides.token_url"),
        ({"templateId": "github", "overrides": {"appType": "apikey"}}, "overrides.appType"),
        ({"templateId": "github", "overrides": {"pkce": "yes"}}, "overrides.pkce"),
        ({"templateId": "github", "overrides": {"tokenUrl": "ftp://x.example.com"}}, "tokenUrl"),
        ({"templateId": "openai", "clientId": "client-1"}, "clientId"),
        ({"templateId": "github", "dcrPresetId": "x"}, "dcrPresetId"),
        ({}, "templateId"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_created(here: Installation, fields: dict[str, Any], field: str) -> None:
    before = dump(here.settings)
    answer = here.backend.post(CREATE, fields)
    assert answer.status_code == 400, answer.text
    assert [entry["field"] for entry in answer.json()["details"]["fields"]] == [field]
    assert dump(here.settings) == before


def test_reading_and_creating_need_their_permissions(here: Installation, backend_with: MakeBackend) -> None:
    unable = backend_with(permissions=[Permission.TOKENS_FETCH])
    assert unable.get("templates").status_code == unable.get("templates/github").status_code == 403
    assert backend_with(permissions=[Permission.APPS_READ]).post(CREATE, {"templateId": "github"}).status_code == 403
    assert backend_with(app_ids=["one"]).post(CREATE, {"templateId": "github"}).status_code == 403
