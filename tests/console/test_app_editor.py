"""An app's settings: everything in one form, for one or for two people, and never a secret on the page."""

import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from playwright.sync_api import expect

from tests.infra.chromium import Person
from tests.infra.console import Operator, words_of
from tests.infra.installation import CLIENT_SECRET, Installation
from tests.infra.page_forms import Fields, form_of

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)

SaveAs = Callable[..., httpx2.Response]


def opened(operator: Operator, app_id: str) -> Fields:
    """Open an app's settings and return the form."""
    page = operator.get(f"apps/{app_id}")
    assert page.status_code == 200, page.text
    return form_of(page.text, f"/console/{operator.project_id}/apps/{app_id}")


def shown(answer: httpx2.Response, operator: Operator, app_id: str) -> Fields:
    return form_of(answer.text, f"/console/{operator.project_id}/apps/{app_id}")


def save(operator: Operator, app_id: str, fields: Fields, **changes: Any) -> httpx2.Response:
    return operator.post(f"apps/{app_id}", {**fields, "do": "save", **changes})


def without_time(app: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in app.items() if name != "updatedTime"}


def rich(here: Installation, **fields: Any) -> str:
    """Make an app that has something in every field."""
    url = "https://provider.example"
    return here.backend.new_app(
        {
            "description": "Line one\nline two",
            "clientId": "client",
            "clientSecret": "the planted secret of the editor",
            "authorizationUrl": f"{url}/authorize",
            "tokenUrl": f"{url}/token",
            "revocationUrl": f"{url}/revoke",
            "userinfoUrl": f"{url}/userinfo",
            "jwksUrl": f"{url}/jwks",
            "issuer": url,
            "resource": "https://api.provider.example",
            "authorizationUrlParams": [{"key": "audience", "value": '<all> & "more"'}, {"key": "x", "value": ""}],
            "tokenUrlParams": [{"key": "audience", "value": "all"}],
            "defaultScopes": ["b", "a"],
            "scopes": [{"value": "a", "description": "Read <it>"}, {"value": "c", "description": ""}],
            "defaultRedirectUrl": "https://app.example.com/done",
            "callbackDomain": "connect.example.com",
            "accessType": "offline",
            "prompt": ["login", "consent"],
            "pkce": False,
            "tokenEndpointAuthMethod": "client_secret_basic",
            "requireConfirmation": True,
            "skipConsentPage": True,
            "revokeReplaced": True,
            "refreshPolicy": "on_demand",
            "refreshTokenIdleSeconds": 5_000_123,
            "tenantId": "acme",
            **fields,
        }
    )


def test_saving_what_nobody_touched_changes_nothing(here: Installation, operator: Operator) -> None:
    plain = here.backend.new_app(here.provider.registration)
    from_template = here.backend.post(
        "app/create/bytemplate",
        {"templateId": "zendesk", "id": "desk", "variables": {"subdomain": "acme"}, "overrides": {"name": "Desk"}},
    )
    assert from_template.status_code == 200, from_template.text
    key = here.backend.new_app({"appType": "apikey", "description": "Keys", "tenantId": "acme"})
    for app_id in (rich(here), plain, "desk", key):
        before = here.backend.app(app_id)
        answer = save(operator, app_id, opened(operator, app_id))
        assert answer.status_code == 303, words_of(answer)
        assert without_time(here.backend.app(app_id)) == without_time(before)
        assert "Saved." in words_of(operator.get(answer.headers["location"]))


def test_every_field_of_an_app_can_be_changed(here: Installation, operator: Operator) -> None:
    app_id = here.backend.new_app({"clientId": "x", "appType": "oauth"})
    url = "https://other.example"
    changes: dict[str, Any] = {
        "name": f"{app_id} 🌻 ليلى",
        "description": "Zoë",
        "clientId": "client",
        "clientSecret": "typed",
        "callbackDomain": "connect.example.com",
        "tokenEndpointAuthMethod": "client_secret_basic",
        "dcrUrl": f"{url}/register",
        "scopeValue": ["b", "a", ""],
        "scopeWords": ["Read", "", ""],
        "scopeAsked": ["0"],
        "defaultRedirectUrl": "https://app.example.com/x",
        "authorizationUrl": f"{url}/authorize",
        "tokenUrl": f"{url}/token",
        "requireConfirmation": "on",
        "revocationUrl": f"{url}/revoke",
        "userinfoUrl": f"{url}/userinfo",
        "jwksUrl": f"{url}/jwks",
        "issuer": url,
        "resource": url,
        "authorizationUrlParams.key": ["audience", ""],
        "authorizationUrlParams.value": ["all", ""],
        "tokenUrlParams.key": ["y"],
        "tokenUrlParams.value": ["z"],
        "accessType": "online",
        "prompt": ["login"],
        "refreshPolicy": "on_demand",
        "idleDays": "60",
        "revokeReplaced": "on",
        "tenantId": "acme",
    }
    fields = {name: value for name, value in opened(operator, app_id).items() if name not in ("consentPage", "pkce")}
    answer = save(operator, app_id, fields, **changes)
    assert answer.status_code == 303, words_of(answer)
    app = here.backend.app(app_id)
    same = [name for name, value in changes.items() if isinstance(value, str) and value != "on" and name in app]
    assert {name: app[name] for name in same} == {name: changes[name] for name in same}
    assert app["hasClientSecret"]
    assert (app["defaultScopes"], app["prompt"], app["pkce"]) == (["b"], ["login"], False)
    assert app["scopes"] == [{"value": "b", "description": "Read"}, {"value": "a", "description": ""}]
    assert [(one["key"], one["value"]) for one in app["authorizationUrlParams"]] == [("audience", "all")]
    assert [(one["key"], one["value"]) for one in app["tokenUrlParams"]] == [("y", "z")]
    assert (app["skipConsentPage"], app["requireConfirmation"], app["revokeReplaced"]) == (True, True, True)
    assert app["refreshTokenIdleSeconds"] == 60 * 86_400
    assert re.search(r"Stored on \d+ \w+ \d{4}\. Type to replace\.", operator.get(f"apps/{app_id}").text)
    assert save(operator, app_id, opened(operator, app_id), noSecret="on").status_code == 303
    assert not here.backend.app(app_id)["hasClientSecret"]


def test_a_wrong_field_comes_back_with_the_others_and_without_the_secret(
    here: Installation, operator: Operator
) -> None:
    app_id = rich(here, tenantId="")
    before = here.backend.app(app_id)
    changes = {
        "description": "Kept",
        "clientSecret": "typed and not repeated",
        "defaultRedirectUrl": "https://nowhere.example/done",
        "idleDays": "soon",
    }
    answer = save(operator, app_id, opened(operator, app_id), **changes)
    assert answer.status_code == 400
    assert "use a number of days" in words_of(answer).lower()
    answer = save(operator, app_id, opened(operator, app_id), **{**changes, "idleDays": "60"})
    assert answer.status_code == 400
    said = words_of(answer)
    assert "origin https://nowhere.example is not one of this project's redirect origins. Add it in Settings" in said
    assert "Type the secret again" in said
    assert "typed and not repeated" not in answer.text
    again = shown(answer, operator, app_id)
    assert (again["description"], again["idleDays"]) == (["Kept"], ["60"])
    assert re.search(r'id="defaultRedirectUrl"[^>]* aria-invalid="true"[^>]* autofocus', answer.text)
    assert answer.text.count(" autofocus") == 1
    assert here.backend.app(app_id) == before


def test_a_stored_secret_does_not_follow_a_move_and_the_field_says_so(here: Installation, operator: Operator) -> None:
    app_id = rich(here)
    fields = opened(operator, app_id)
    moved = save(operator, app_id, fields, tokenUrl="https://elsewhere.example/token")
    assert moved.status_code == 400
    assert re.search(r'id="clientSecret"[^>]* aria-invalid="true"', moved.text)
    assert "does not follow a change of tokenUrl" in words_of(moved)
    again = {**shown(moved, operator, app_id), "clientSecret": ["the planted secret of the editor"]}
    assert save(operator, app_id, again).status_code == 303
    assert here.backend.app(app_id)["tokenUrl"] == "https://elsewhere.example/token"


def test_who_may_not_have_the_tokens_moves_no_app_with_connections(
    here: Installation, operator_as: Callable[[str], Operator]
) -> None:
    operator = operator_as("operator")
    app_id = here.backend.new_app(here.provider.registration)
    here.connected("mover", appId=app_id)
    fields = {**opened(operator, app_id), "clientSecret": [CLIENT_SECRET]}
    answer = save(operator, app_id, fields, tokenUrl="https://elsewhere.example/token", discoveryUrl="")
    assert answer.status_code == 403
    assert "The app has connections, whose tokens would go there" in words_of(answer)
    assert shown(answer, operator, app_id)["tokenUrl"] == ["https://elsewhere.example/token"]


def test_of_two_operators_who_save_at_once_neither_overwrites_the_other(here: Installation, operator: Operator) -> None:
    app_id = rich(here)
    ours, theirs = opened(operator, app_id), opened(operator, app_id)
    saved = save(operator, app_id, theirs, description="By Noor", clientId="noor")
    assert saved.status_code == 303
    late = save(operator, app_id, ours, description="By Ada", tenantId="acme", issuer="https://ada.example")
    assert late.status_code == 409
    said = words_of(late)
    assert "Somebody else saved this app while you were editing it. Nothing was overwritten." in said
    assert "Description By Noor By Ada" in said
    assert "Client ID noor you did not change it: theirs stays" in said
    assert here.backend.app(app_id)["description"] == "By Noor"
    merged = shown(late, operator, app_id)
    assert save(operator, app_id, {**merged, "clientSecret": ["s"]}).status_code == 303
    app = here.backend.app(app_id)
    assert (app["description"], app["clientId"], app["issuer"]) == ("By Ada", "noor", "https://ada.example")


def test_a_form_without_the_moment_it_was_opened_at_overwrites_nothing(here: Installation, operator: Operator) -> None:
    app_id = rich(here)
    for lost in ({"updatedAt": ""}, {"updatedAt": "yesterday", "marks": "[1]"}, {"marks": "{", "updatedAt": ""}):
        assert save(operator, app_id, {**opened(operator, app_id), "name": ["Mine"]}, **lost).status_code == 409
    assert here.backend.app(app_id)["name"] == app_id


def test_the_small_buttons_change_the_form_and_save_nothing(here: Installation, operator: Operator) -> None:
    here.backend.post("app/create/bytemplate", {"templateId": "google-contacts", "id": "buttons"})
    before = here.backend.app("buttons")
    fields = opened(operator, "buttons")
    path = "apps/buttons"

    def press(button: str, **changes: Any) -> httpx2.Response:
        answer = operator.post(path, {**fields, **changes, "do": button})
        assert answer.status_code == 200
        return answer

    moved = {"tokenUrl": "https://elsewhere.example/token", "description": "Kept", "clientSecret": "typed"}
    reset = press("reset:tokenUrl", **moved)
    again = shown(reset, operator, "buttons")
    assert (again["tokenUrl"], again["description"]) == ([before["tokenUrl"]], ["Kept"])
    assert "Not saved: Description" in words_of(reset)
    assert "Type the secret again" in words_of(reset)
    scopes = [scope for scope in fields["scopeValue"] if scope]
    more = shown(press("add:scopes:https://www.googleapis.com/auth/contacts"), operator, "buttons")
    assert more["scopeValue"] == [*scopes, "https://www.googleapis.com/auth/contacts"]
    fewer = shown(press("remove:scopes:0"), operator, "buttons")
    assert fewer["scopeValue"] == scopes[1:]
    pairs = shown(press("add:authorizationUrlParams:"), operator, "buttons")
    assert pairs["authorizationUrlParams.key"][-1] == ""
    for unknown in ("add:nothing:x", "remove:scopes:99", "reset:name", "jump"):
        assert shown(press(unknown), operator, "buttons")["scopeValue"] == fields["scopeValue"]
    assert here.backend.app("buttons") == before


def test_a_viewer_sees_the_settings_and_no_button(here: Installation, operator_as: Callable[[str], Operator]) -> None:
    app_id = rich(here)
    viewer = operator_as("viewer")
    page = viewer.get(f"apps/{app_id}")
    main = page.text.partition("<main")[2]
    assert set(re.findall(r"<button[^>]*>", main)) <= {
        one for one in re.findall(r"<button[^>]*>", main) if "data-copy" in one or "vh" in one
    }
    assert f"apps/{app_id}/delete" not in page.text
    fields = form_of(page.text, f"/console/{viewer.project_id}/apps/{app_id}")
    denied = save(viewer, app_id, fields, description="By a viewer")
    assert (denied.status_code, "&#39;apps:write&#39;" in denied.text) == (403, True)
    for path in ("apps/new", "apps/new/custom", f"apps/{app_id}/delete"):
        assert viewer.get(path).status_code == 403
    assert viewer.post(f"apps/{app_id}/delete", {"typed": app_id}).status_code == 403
    assert viewer.post("apps/new/custom", {"name": "x"}).status_code == 403
    assert here.backend.app(app_id)["description"] == "Line one\nline two"


def test_no_page_of_an_app_has_its_secret(here: Installation, operator: Operator) -> None:
    secret = "planted-secret-0b5f"
    app_id = rich(here, clientSecret=secret, tenantId="")
    fields = {**opened(operator, app_id), "clientSecret": [secret]}
    answers = [operator.get(path) for path in ("apps", f"apps/{app_id}", f"apps/{app_id}/use", f"apps/{app_id}/delete")]
    answers += [
        save(operator, app_id, fields, name=""),
        save(operator, app_id, fields, updatedAt=""),
        save(operator, app_id, fields, clientKey=secret, tokenUrl="x"),
        operator.post(f"apps/{app_id}", {**fields, "do": "add:scopes:"}),
        operator.post("apps/new/custom", {"proposal": "p" * 22, "name": "", "clientSecret": secret}),
    ]
    assert {answer.status_code for answer in answers} == {200, 400, 409}
    assert [answer.url for answer in answers if secret in answer.text] == []


def test_enter_saves_and_the_bar_names_what_is_not_saved(here: Installation, admin_person: Person) -> None:
    app_id = rich(here)
    page = admin_person.tab()
    page.goto(f"{here.url}/console/{here.backend.project_id}/apps/{app_id}")
    bar = page.locator("[data-changes]")
    expect(bar).to_have_text("Nothing is changed")
    page.get_by_role("textbox", name="Client ID").fill("typed")
    page.get_by_label("Ask for a by default").uncheck()
    expect(bar).to_have_text("Not saved: Client ID, Scopes")
    page.get_by_role("button", name="Discard").click()
    expect(bar).to_have_text("Nothing is changed")
    page.get_by_role("textbox", name="Client ID").fill("typed")
    page.get_by_role("textbox", name="Client ID").press("Enter")
    expect(page.get_by_text("Saved. It counts from now on.")).to_be_visible()
    assert here.backend.app(app_id)["clientId"] == "typed"
