"""Apps as tiles, new ones from the library, the calls that use them, and their end."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import httpx2
import pytest

from tests.infra.console import Operator, words_of
from tests.infra.installation import CLIENT_ID, CLIENT_SECRET, Installation, new_project
from tests.infra.mcp_server import mcp_server
from tests.infra.page_forms import Fields, form_of
from tests.infra.people import someone

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)

ODD_NAMES = {"x" * 64: "An app with the longest id", "emoji-app": "Zoë 🌻 & <b>", "rtl": "جهات الاتصال"}


def new_form(operator: Operator, kind: str, **query: str) -> tuple[Fields, str]:
    """Open the form for a new app, and return it and the callback address that it shows."""
    address = f"/console/{operator.project_id}/apps/new/{kind}"
    page = operator.http.get(address, params=query)
    assert page.status_code == 200, page.text
    return form_of(page.text, address), callback_on(page)


def callback_on(page: httpx2.Response) -> str:
    found = re.search(r'id="callback" class="mono" value="([^"]+)"', page.text)
    assert found
    return found[1]


def test_a_tile_counts_a_connection_as_soon_as_it_is_made(here: Installation, operator: Operator) -> None:
    app_id = here.backend.new_app(here.provider.registration)
    assert f"{app_id} Healthy 0 connections" in words_of(operator.get("apps"))
    here.connected(someone(), appId=app_id)
    assert f"{app_id} Healthy 1 connection" in words_of(operator.get("apps"))


def test_apps_are_tiles_that_a_search_narrows_down(here: Installation, operator: Operator) -> None:
    for app_id, name in ODD_NAMES.items():
        here.backend.create_app({"id": app_id, "name": name})
        assert operator.get(f"apps/{app_id}").status_code == 200
    said = words_of(operator.get("apps"))
    for app_id, name in ODD_NAMES.items():
        assert f"{name} {app_id}" in said
    found = words_of(operator.get("apps?q=جهات"))
    assert "rtl" in found
    assert "emoji-app" not in found
    assert "No app is called 'nothing like it'. Clear" in words_of(operator.get("apps?q=nothing like it"))


def test_a_project_without_apps_is_told_how_to_begin(here: Installation) -> None:
    empty = Operator(here.settings, new_project(here.settings).project_id)
    with empty.http:
        assert "Connect your first provider. It takes two minutes" in words_of(empty.get("apps"))


def test_the_library_is_searched_by_words_and_category(here: Installation, operator: Operator) -> None:
    everything = operator.get("apps/new")
    assert len(everything.content) < 100_000
    first = ["Custom OAuth app", "API key", "MCP server by URL", "Acuity Scheduling"]
    places = [words_of(everything).index(name) for name in first]
    assert places == sorted(places)
    calendars = operator.get("apps/new?q=google+calendar&category=productivity").text
    assert re.findall(r'new/([a-z-]+)"', calendars) == [
        "custom",
        "apikey",
        "client-credentials",
        "mcp",
        "google-calendar",
    ]
    assert "google-calendar" not in operator.get("apps/new?q=google+calendar&category=crm").text
    nothing = operator.get("apps/new?q=foo%26bar")
    assert "No provider called 'foo&bar'. Make it as a custom app" in words_of(nothing)
    assert "apps/new/custom?name=foo%26bar" in nothing.text


def test_an_app_from_the_library_has_the_callback_address_that_was_shown_first(
    here: Installation, operator: Operator
) -> None:
    fields, callback = new_form(operator, "zendesk")
    assert fields["id"] == ["zendesk"]
    given = {"clientId": "client", "clientSecret": "planted-c3", "variables.subdomain": "acme", "scope": ["read"]}
    made = operator.post("apps/new/zendesk", {**fields, **given, "test": ""})
    assert (made.status_code, made.headers["location"]) == (303, f"/console/{operator.project_id}/apps/zendesk/test")
    app = here.backend.app("zendesk")
    assert (app["callbackUrl"], app["variables"], app["defaultScopes"]) == (callback, {"subdomain": "acme"}, ["read"])
    assert app["templateId"] == "zendesk"
    assert app["hasClientSecret"]
    another, other_callback = new_form(operator, "zendesk")
    assert (another["id"], another["name"]) == (["zendesk-2"], ["Zendesk 2"])
    assert other_callback != callback
    # Somebody goes back, and sends the same form again for another app.
    again = operator.post("apps/new/zendesk", {**another, **given, "proposal": fields["proposal"]})
    assert again.status_code == 409
    assert "An app has the address that stood here already. Register this one instead." in words_of(again)
    assert callback_on(again) not in (callback, other_callback)
    assert "planted-c3" not in again.text
    no_page = operator.post("apps/new/zendesk", {**another, **given, "id": "new"})
    assert (no_page.status_code, "is a page of the console" in words_of(no_page)) == (400, True)
    taken = operator.post("apps/new/zendesk", {**another, **given, "id": "zendesk"})
    assert taken.status_code == 409
    assert "An app with this id exists already" in words_of(taken)


def test_nobody_chooses_the_callback_address_of_another_app(here: Installation, operator: Operator) -> None:
    fields, callback = new_form(operator, "custom")
    for proposal in ("", "short", callback.rpartition("/")[2], "x" * 23, "../" + "x" * 19):
        assert operator.post("apps/new/custom", {**fields, "name": "x", "proposal": proposal}).status_code == 400
    elsewhere = Operator(here.settings, new_project(here.settings).project_id)
    with elsewhere.http:
        same = elsewhere.post("apps/new/custom", {**fields, "name": ""})
    assert same.status_code == 400
    assert callback_on(same) != callback


def test_a_wrong_new_app_comes_back_with_its_fields(here: Installation, operator: Operator) -> None:
    fields, callback = new_form(operator, "custom", name="Acme IdP")
    sent: dict[str, Any] = {
        **fields,
        "id": "acme idp",
        "authorizationUrl": "http://acme.example/authorize",
        "tokenUrl": "https://acme.example/token",
        "clientSecret": "planted-d4",
        "scopeLines": "read\nwrite",
    }
    wrong = operator.post("apps/new/custom", sent)
    assert wrong.status_code == 400
    kept = form_of(wrong.text, f"/console/{operator.project_id}/apps/new/custom")
    assert kept["name"] == ["Acme IdP"]
    assert kept["scopeLines"] == ["read\nwrite"]
    assert callback_on(wrong) == callback
    assert wrong.text.count('aria-invalid="true"') == 2
    assert wrong.text.count(" autofocus") == 1
    assert "planted-d4" not in wrong.text
    right = {**sent, "id": "acme-idp", "authorizationUrl": "https://acme.example/authorize"}
    assert operator.post("apps/new/custom", right).status_code == 303
    assert here.backend.app("acme-idp")["defaultScopes"] == ["read", "write"]


def test_an_mcp_server_is_found_by_its_address_alone(here: Installation, operator: Operator) -> None:
    fields, _ = new_form(operator, "mcp")
    lost = operator.post("apps/new/mcp", {**fields, "name": "Notes"})
    assert "Enter the server's address" in words_of(lost)
    with mcp_server() as server:
        made = operator.post("apps/new/mcp", {**fields, "name": "Notes", "id": "notes", "discoveryUrl": server.url})
        assert made.status_code == 303, words_of(made)
    app = here.backend.app("notes")
    assert app["useDcr"]
    assert app["dcrUrl"]
    # The practice provider registers nobody: then the form asks for a client.
    refused = operator.post("apps/new/mcp", {**fields, "name": "Practice", "discoveryUrl": here.provider.url})
    assert refused.status_code == 400
    assert "The server offers no registration" in words_of(refused)


def test_an_app_of_api_keys_needs_a_name_only(here: Installation, operator: Operator) -> None:
    fields, _ = new_form_without_callback(operator, "openai")
    assert operator.post("apps/new/openai", {**fields, "id": "keys"}).status_code == 303
    fields, _ = new_form_without_callback(operator, "apikey")
    assert operator.post("apps/new/apikey", {**fields, "id": "keys-2", "name": "Own keys"}).status_code == 303
    assert [here.backend.app(one)["appType"] for one in ("keys", "keys-2")] == ["apikey", "apikey"]


def new_form_without_callback(operator: Operator, kind: str) -> tuple[Fields, str]:
    page = operator.get(f"apps/new/{kind}")
    assert 'id="callback"' not in page.text
    return form_of(page.text, f"/console/{operator.project_id}/apps/new/{kind}"), page.text


def snippet(page: httpx2.Response, name: str) -> str:
    found = re.search(rf'<pre class="code" id="{name}-call"[^>]*>(.*?)</pre>', page.text, re.DOTALL)
    assert found, page.text
    return unescape(found[1])


def run(text: str, language: str, here: Installation, **values: str) -> str:
    """Run a snippet as whoever pastes it does, and return what it prints."""
    for name, value in values.items():
        assert name in text
        text = text.replace(name, value)
    command = ["sh", "-c", text] if language == "curl" else [sys.executable, "-c", text]
    environment = {**os.environ, "KEY": here.backend.management_key, "NO_PROXY": "*"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


@pytest.mark.parametrize("language", ["curl", "python"])
def test_the_calls_on_the_page_work_as_they_stand(here: Installation, operator: Operator, language: str) -> None:
    tenant = f"it's {language}"
    app_id = here.backend.new_app(here.provider.registration, requireConfirmation=True, tenantId=tenant)
    page = operator.get(f"apps/{app_id}/use?lang={language}")
    link = re.search(r'http[^"\s]+', run(snippet(page, "connect"), language, here, USER_ID="ada"))
    assert link
    came_back = here.browser().connect(link[0])
    confirmed = run(snippet(page, "confirm"), language, here, USER_ID="ada", CONFIRMATION=came_back["confirmation"])
    assert confirmed.strip() in ("{}", "")
    fetched = run(snippet(page, "fetch"), language, here, USER_ID="ada")
    token = here.backend.token("ada", appId=app_id, tenantId=tenant)["accessToken"]
    assert token in fetched
    if language == "python":
        assert token in run(snippet(page, "sdk"), language, here, USER_ID="ada")


def test_the_javascript_calls_are_those_of_the_page(here: Installation, operator: Operator) -> None:
    text = snippet(operator.get("apps/practice/use?lang=javascript"), "fetch")
    assert f'await fetch("{here.url}/v1/mgmt/outbound/app/user/token/latest"' in text
    assert f"Bearer {operator.project_id}:${{process.env.KEY}}" in text
    assert 'aria-current="true">curl' in operator.get("apps/practice/use?lang=cobol").text


def test_deleting_an_app_says_what_goes_and_takes_its_id(
    here: Installation, operator: Operator, operator_as: Callable[[str], Operator]
) -> None:
    app_id = here.backend.new_app(here.provider.registration, clientId=CLIENT_ID, clientSecret=CLIENT_SECRET)
    for user in ("ada", "grace"):
        here.connected(user, appId=app_id)
    path = f"apps/{app_id}/delete"
    assert "This deletes 2 connections and tells" in words_of(operator.get(path))
    assert here.backend.get(f"app/{app_id}/deletion").json() == {"connections": 2, "isAll": True}
    for typed in ("", "practice"):
        wrong = operator.post(path, {"typed": typed})
        assert wrong.status_code == 400
        assert f"Type {app_id} to delete it" in words_of(wrong)
    old = Operator(here.settings, here.backend.project_id, age=timedelta(minutes=16))
    with old.http:
        too_old = old.post(path, {"typed": app_id})
    assert (too_old.status_code, "younger than 15 minutes" in words_of(too_old)) == (403, True)
    assert here.backend.app(app_id)["id"] == app_id
    gone = operator_as("operator").post(path, {"typed": app_id})
    assert (gone.status_code, gone.headers["location"]) == (303, f"/console/{operator.project_id}/apps")
    assert operator.get(f"apps/{app_id}").status_code == 404
    assert here.backend.get(f"app/{app_id}/deletion").status_code == 404


def test_an_app_that_nobody_has_connected_is_deleted_without_its_id(here: Installation, operator: Operator) -> None:
    app_id = here.backend.new_app({"clientId": "x"})
    assert "Nobody has connected it." in words_of(operator.get(f"apps/{app_id}/delete"))
    assert operator.post(f"apps/{app_id}/delete").status_code == 303
