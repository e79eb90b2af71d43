"""The app library: every template makes an app, and an override wins over it."""

import uuid
from typing import Any

import pytest

from evergrant.broker.runtime.principal import Permission
from tests.infra.installation import Installation
from tests.infra.rows import dump, execute
from tests.web.conftest import MakeBackend

CREATE = "app/create/bytemplate"


def templates(here: Installation) -> list[dict[str, Any]]:
    answer = here.backend.get("templates")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["templates"]
    return found


def make(here: Installation, template: str, **fields: Any) -> dict[str, Any]:
    overrides = {"name": f"App {uuid.uuid4().hex}", **fields.pop("overrides", {})}
    own_id = f"app-{uuid.uuid4().hex}"
    answer = here.backend.post(CREATE, {"templateId": template, "id": own_id, "overrides": overrides, **fields})
    assert answer.status_code == 200, answer.text
    app: dict[str, Any] = answer.json()["app"]
    return app


def leaves_for(here: Installation, app: dict[str, Any]) -> str:
    """Return where the browser of somebody who connects the app is sent."""
    return str(here.browser().agree(here.backend.connect_url(uuid.uuid4().hex, appId=app["id"])))


def test_the_library_has_both_kinds_of_apps(here: Installation) -> None:
    found = templates(here)
    assert {"google-contacts", "google-calendar", "github", "microsoft"} <= {template["id"] for template in found}
    assert {"oauth", "apikey"} <= {template["appType"] for template in found}
    for template in found[::10]:
        assert here.backend.get(f"templates/{template['id']}").json() == {"template": template}
    keys = {template["id"]: template["apiKey"] for template in found}
    assert keys["openai"] == {"in": "header", "name": "Authorization", "prefix": "Bearer ", "username": ""}
    assert keys["github"] is None
    assert here.backend.get("templates/nothing").json()["errorCode"] == "E011004"


def test_every_template_makes_an_app_that_is_what_the_template_says(here: Installation) -> None:
    # Of all of them, tests/conformance makes an app.
    step = 5 if here.settings.uses_sqlite else 35
    for template in templates(here)[::step]:
        if template["replacedBy"]:
            continue
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


def test_no_app_can_be_made_of_a_provider_that_is_gone_and_the_answer_names_its_successor(here: Installation) -> None:
    (fitbit,) = (template for template in templates(here) if template["id"] == "fitbit")
    assert fitbit["replacedBy"] == "google-health"
    (end,) = fitbit["retires"]
    assert (end["on"], end["address"]) == ("2026-11-02", "")
    by_hand = {"name": uuid.uuid4().hex, "clientId": "c", "templateId": "fitbit"}
    for path, body in ((CREATE, {"templateId": "fitbit", "clientId": "c"}), ("app/create", by_hand)):
        answer = here.backend.post(path, body)
        assert answer.status_code == 400
        assert "templateId" in answer.text
        assert "Fitbit ended on 2026-11-02" in answer.text
        assert "use the template google-health" in answer.text
    assert make(here, "google-health")["warnings"] == []


def test_an_app_of_a_provider_that_is_gone_can_be_read_and_edited_and_says_so(here: Installation) -> None:
    app = make(here, "strava", clientId="c")
    execute(here.settings, f"UPDATE outbound_apps SET template_id = 'fitbit' WHERE id = '{app['id']}'")
    app = here.backend.get(f"app/{app['id']}").json()["app"]
    (warning,) = app["warnings"]
    assert warning["code"] == "provider_ends"
    assert "use the template google-health, with new connections" in warning["text"]
    answer = here.backend.post("app/update", {"app": {**app, "description": "x"}})
    assert answer.json()["app"]["warnings"] == [warning]


def test_an_app_with_an_address_that_ends_says_when_and_what_to_use(here: Installation) -> None:
    old, new = "https://api.hubapi.com/oauth/v1/token", "https://api.hubapi.com/oauth/2026-03/token"
    app = make(here, "hubspot", clientId="c", overrides={"tokenUrl": old})
    (warning,) = app["warnings"]
    assert warning["code"] == "address_ends"
    assert all(
        words in warning["text"] for words in (old, "on 2027-02-16", "hubspot.com/changelog", f"tokenUrl to {new}")
    )
    assert here.backend.get(f"app/{app['id']}").json()["app"]["warnings"] == [warning]
    moved = here.backend.post("app/update", {"app": {**app, "tokenUrl": new}}).json()["app"]
    assert moved["warnings"] == []


def test_an_address_that_ends_may_be_one_by_a_variables_value(here: Installation) -> None:
    assert make(here, "facebook", clientId="c")["warnings"] == []
    (warning,) = make(here, "facebook", clientId="c", variables={"version": "v22.0"})["warnings"]
    assert "https://graph.facebook.com/v22.0/oauth/access_token end" in warning["text"]
    assert "set variables.version to v26.0" in warning["text"]


def test_zohos_host_in_canada_has_another_name(here: Installation) -> None:
    (zoho,) = (template for template in templates(here) if template["id"] == "zoho-crm")
    assert "accounts_host" not in {variable["name"] for variable in zoho["variables"]}
    for extension, host in (("", "zoho.com"), ("com.au", "zoho.com.au"), ("ae", "zoho.ae"), ("ca", "zohocloud.ca")):
        app = make(here, "zoho-crm", clientId="c", variables={"extension": extension} if extension else {})
        assert app["warnings"] == []
        assert leaves_for(here, app).startswith(f"https://accounts.{host}/oauth/v2/auth?")
    old = "https://accounts.zoho.{extension}/oauth/v2/auth"
    for extension, warned in (("eu", False), ("ca", True)):
        app = make(here, "zoho", clientId="c", variables={"extension": extension}, overrides={"authorizationUrl": old})
        assert leaves_for(here, app).startswith(f"https://accounts.zoho.{extension}/oauth/v2/auth?")
        assert bool(app["warnings"]) == warned
    assert "set authorizationUrl to https://accounts.zohocloud.ca/oauth/v2/auth" in app["warnings"][0]["text"]


def test_an_app_of_a_template_has_its_id_unless_it_is_given_and_a_second_is_told_what_is_taken(
    here: Installation,
) -> None:
    wanted = {"templateId": "discord", "clientId": "c", "clientSecret": "s"}
    first = here.backend.post(CREATE, wanted)
    assert first.json()["app"]["id"] == "discord"

    def taken(**fields: Any) -> list[str]:
        answer = here.backend.post(CREATE, {**wanted, **fields})
        assert answer.status_code == 409
        return [entry["field"] for entry in answer.json()["details"]["fields"]]

    assert taken() == ["id", "name"]
    assert taken(overrides={"name": "Another"}) == ["id"]
    assert taken(id="another") == ["name"]
    assert make(here, "discord", id="discord-2")["id"] == "discord-2"
    renamed = here.backend.post("app/update", {"app": {**here.backend.app("discord-2"), "name": "Discord"}})
    assert [entry["field"] for entry in renamed.json()["details"]["fields"]] == ["name"]
    for app_id in ("discord", "discord-2"):
        here.backend.post("app/delete", {"id": app_id})
