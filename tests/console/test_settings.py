"""Settings at the console: the project, how its pages look, who is signed in, and its deletion."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape

import pytest
from playwright.sync_api import expect
from sqlalchemy import text

from evergrant import clock
from tests.infra.chromium import Person
from tests.infra.console import SAME_ORIGIN, Operator, words_of
from tests.infra.installation import APP_ID, Installation, new_project
from tests.infra.pictures import png
from tests.infra.rows import in_database, rows

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)

BRANDING = {
    "accentLight": "#0b5cad",
    "accentDark": "",
    "corners": "round",
    "mode": "both",
    "sentence": "We read what you ask us about.",
    "privacyUrl": "https://shop.example/privacy",
    "helpUrl": "",
    "footer": "on",
    "locale": "de",
}


@pytest.fixture
def owner(here: Installation) -> Iterator[Operator]:
    """An administrator at a project of its own, which a test may change and delete."""
    made = Operator(here.settings, new_project(here.settings).project_id)
    yield made
    made.http.close()


def project_row(here: Installation, project_id: str) -> dict[str, object]:
    return next(row for row in rows(here.settings, "projects") if row["id"] == project_id)


def own_id(operator: Operator, here: Installation) -> str:
    found = re.search(r"operators/(\w+)/end\"><button[^>]*which is this one", operator.get("settings/operators").text)
    assert found
    return found[1]


def grown_old(here: Installation, session_id: str) -> None:
    """Let a session have begun 20 minutes ago."""
    values = {"id": session_id, "at": (clock.now() - timedelta(minutes=20)).isoformat(sep=" ")}
    in_database(
        here.settings,
        lambda connection: connection.execute(
            text("UPDATE console_sessions SET signed_in_at = :at WHERE id = :id"), values
        ),
    )


def test_name_and_origins_are_saved_as_the_call_saves_them(here: Installation, owner: Operator) -> None:
    form = {
        "name": "Acme",
        "redirectOrigins": "https://app.acme.example/done\n\nhttps://two.acme.example\n",
        "embedOrigins": "https://app.acme.example",
    }
    saved = owner.post("settings", form)
    assert saved.status_code == 303
    page = owner.get(saved.headers["location"])
    assert "Saved." in words_of(page)
    assert "https://app.acme.example\nhttps://two.acme.example</textarea>" in page.text
    assert project_row(here, owner.project_id)["name"] == "Acme"
    told = [row["action"] for row in rows(here.settings, "audit_events") if row["project_id"] == owner.project_id]
    assert told[-3:] == ["project.renamed", "project.redirect_origins_changed", "project.embed_origins_changed"]


def test_a_wrong_origin_comes_back_with_the_form_kept_and_its_field_in_focus(
    here: Installation, owner: Operator
) -> None:
    before = project_row(here, owner.project_id)
    wrong = owner.post("settings", {"name": "Renamed", "redirectOrigins": "http://app.acme.example"})
    assert wrong.status_code == 400
    assert 'value="Renamed"' in wrong.text
    assert re.search(r'<textarea id="redirectOrigins"[^>]*aria-invalid="true"[^>]* autofocus', wrong.text)
    assert "plain http is for loopback addresses only" in words_of(wrong)
    assert project_row(here, owner.project_id) == before


def test_only_administrators_see_settings_or_change_them(
    here: Installation, operator_as: Callable[[str], Operator]
) -> None:
    for role in ("viewer", "operator"):
        somebody = operator_as(role)
        assert "/settings" not in somebody.get("apps").text
        for path in ("settings", "settings/branding", "settings/operators", "settings/delete"):
            answer = somebody.get(path)
            assert (answer.status_code, "administrators" in words_of(answer)) == (403, True), path
        for path in ("settings", "settings/branding", "settings/operators/end-others", "settings/delete"):
            assert somebody.post(path, {"name": "x"}).status_code == 403, path
    assert project_row(here, here.backend.project_id)["name"] == "Shop"


def test_somebody_who_signed_in_long_ago_can_look_and_is_told_before_they_fill_in_a_form(
    here: Installation, operator_as: Callable[[str], Operator]
) -> None:
    sleeper = operator_as("admin")
    assert "15 minutes ago" not in words_of(sleeper.get("settings"))
    grown_old(here, own_id(sleeper, here))
    operator_as("admin").post("/console/sign-out")  # whereupon the server remembers no session
    assert "15 minutes ago" in words_of(sleeper.get("settings"))
    for path in ("settings", "settings/branding", "settings/branding/logo", "settings/operators/end-others"):
        answer = sleeper.post(path, {"name": "x", **BRANDING})
        assert (answer.status_code, "Sign in again" in words_of(answer)) == (403, True), path


def test_branding_is_saved_and_an_unreadable_colour_comes_back_with_the_nearest_one(owner: Operator) -> None:
    wrong = owner.post("settings/branding", {**BRANDING, "accentLight": "#ffcc00"})
    assert wrong.status_code == 400
    assert 'value="#ffcc00"' in wrong.text
    assert "nearest colour that they can read is #b28f00" in words_of(wrong)
    (offer,) = re.findall(r'<a href="([^"]+)">Use #b28f00', wrong.text)
    offered = owner.get(unescape(offer))
    assert 'value="#b28f00"' in offered.text
    assert "We read what you ask us about." in words_of(offered)
    assert owner.post("settings/branding", BRANDING).status_code == 303
    theme = owner.http.get(f"/theme/{owner.project_id}.css")
    assert "--accent: #0b5cad" in theme.text


def test_a_preview_shows_fields_that_are_not_saved_and_saves_nothing(owner: Operator) -> None:
    page = owner.http.get(f"/console/{owner.project_id}/settings/branding", params={**BRANDING, "mode": "dark"})
    assert "Not saved: this is a preview." in words_of(page)
    assert "Consent page, dark" in words_of(page)
    assert "Consent page, light" not in words_of(page)
    (sheet,) = re.findall(r'<link rel="stylesheet" href="([^"]+preview\.css[^"]*)"', page.text)
    theme = owner.http.get(unescape(sheet))
    assert theme.headers["content-type"].startswith("text/css")
    assert ".themed.light { color-scheme: light;" in theme.text
    assert "--accent: #0b5cad" in theme.text
    assert owner.http.get(f"/theme/{owner.project_id}.css").status_code == 404


def test_what_an_address_makes_the_preview_say_stays_text(owner: Operator) -> None:
    evil = {**BRANDING, "sentence": "<script>x</script>", "accentLight": "#000;} body{display:none", "corners": "x;}"}
    page = owner.http.get(f"/console/{owner.project_id}/settings/branding", params=evil)
    assert page.status_code == 200
    assert "<script>x" not in page.text
    (sheet,) = re.findall(r'<link rel="stylesheet" href="([^"]+preview\.css[^"]*)"', page.text)
    for address in (unescape(sheet), f"/console/{owner.project_id}/settings/branding/preview.css"):
        theme = owner.http.get(address, params=evil)
        assert theme.status_code == 200
        assert "display" not in theme.text


def test_the_projects_logo_is_chosen_shown_and_removed(owner: Operator) -> None:
    nothing = owner.post("settings/branding/logo")
    assert (nothing.status_code, "Choose a picture first." in words_of(nothing)) == (400, True)
    wrong = owner.post("settings/branding/logo", files={"logo": ("logo.png", b"<svg/>", "image/png")})
    assert (wrong.status_code, "Use a PNG, JPEG or WebP picture." in words_of(wrong)) == (400, True)
    assert owner.post("settings/branding/logo", files={"logo": ("x", png(), "text/html")}).status_code == 303
    page = owner.get("settings/branding")
    (src,) = set(re.findall(r'<img src="(/logo/[^"]+)"', page.text))
    assert owner.http.get(unescape(src)).content == png()
    assert owner.post("settings/branding/logo", {"remove": "1"}).status_code == 303
    assert '<img src="/logo/' not in owner.get("settings/branding").text


def test_an_apps_logo_is_stored_from_the_console(here: Installation, operator_as: Callable[[str], Operator]) -> None:
    files = {"logo": ("x.png", png(), "image/png")}
    assert operator_as("viewer").post(f"apps/{APP_ID}/logo", files=files).status_code == 403
    operator = operator_as("operator")
    assert operator.post(f"apps/{APP_ID}/logo", files=files).status_code == 303
    assert operator.http.get(f"/logo/{operator.project_id}/{APP_ID}").content == png()
    assert operator.post(f"apps/{APP_ID}/logo").status_code == 400
    assert operator.post(f"apps/{APP_ID}/logo", {"remove": "1"}).status_code == 303
    assert operator.http.get(f"/logo/{operator.project_id}/{APP_ID}").status_code == 404


def test_sessions_are_listed_and_ended_one_by_one_and_all_others(
    here: Installation, owner: Operator, operator_as: Callable[[str], Operator]
) -> None:
    others = [operator_as(role) for role in ("viewer", "operator", "admin")]
    words = words_of(owner.get("settings/operators"))
    for said in ("the viewer Viewer, all projects", "the operator Operator", "the admin This browser Administrator"):
        assert said in words
    assert owner.post(f"settings/operators/{own_id(others[2], here)}/end").status_code == 303
    assert others[2].get("settings").status_code == 303
    assert owner.post("settings/operators/end-others").status_code == 303
    assert [other.get("apps").status_code for other in others] == [303, 303, 303]
    assert "End all other sessions" not in words_of(owner.get("settings/operators"))
    assert owner.post(f"settings/operators/{own_id(owner, here)}/end").headers["location"] == "/console/sign-in"
    assert owner.get("settings").status_code == 303


def test_a_project_is_deleted_only_with_its_id_typed_in(here: Installation, owner: Operator) -> None:
    page = words_of(owner.get("settings/delete"))
    assert "This deletes 0 apps and 0 connections" in page
    for form in (
        {"how": "now", "projectId": "another"},
        {"how": "", "projectId": owner.project_id},
        {"how": "revoke", "hours": "999999", "projectId": owner.project_id},
    ):
        assert owner.post("settings/delete", form).status_code == 400
    assert project_row(here, owner.project_id)["closed_at"] is None
    done = owner.post("settings/delete", {"how": "now", "projectId": owner.project_id})
    assert "Shop is deleted 1 data key destroyed" in words_of(done)
    assert project_row(here, owner.project_id)["shredded_at"] is not None
    assert owner.get("settings").status_code == 404


def test_a_project_can_be_closed_until_its_providers_were_told(here: Installation, owner: Operator) -> None:
    owner.post("settings/branding", BRANDING)
    form = {"how": "revoke", "hours": "72", "projectId": owner.project_id}
    assert "Shop is closed" in words_of(owner.post("settings/delete", form))
    row = project_row(here, owner.project_id)
    assert row["closed_at"] is not None
    assert row["shredded_at"] is None
    assert owner.project_id not in {branding["project_id"] for branding in rows(here.settings, "branding")}


def test_the_page_says_how_much_goes(here: Installation, operator: Operator) -> None:
    here.connected("dora")
    words = words_of(operator.get("settings/delete"))
    (apps, connections) = re.search(r"This deletes (\d+) apps? and (\d+) connections?", words).groups()  # type: ignore[union-attr]  # it is there
    assert int(apps) >= 1
    assert int(connections) == len(rows(here.settings, "grants"))


def test_nobody_else_can_send_these_forms(owner: Operator) -> None:
    for path in ("settings", "settings/branding", "settings/operators/end-others", "settings/delete"):
        address = f"/console/{owner.project_id}/{path}"
        foreign = {**SAME_ORIGIN, "Sec-Fetch-Site": "cross-site"}
        assert owner.http.post(address, data=BRANDING, headers=foreign).status_code == 403


def test_the_preview_follows_what_somebody_types(here: Installation, admin_person: Person) -> None:
    page = admin_person.tab()
    page.goto(f"{here.url}/console/{here.backend.project_id}/settings/branding")
    button = page.locator(".themed.light .btn.primary")
    expect(button).to_have_css("background-color", "rgb(15, 118, 110)")
    page.get_by_label("Accent, light").fill("#0b5cad")
    expect(button).to_have_css("background-color", "rgb(11, 92, 173)")
    page.get_by_label("Accent, light").fill("#ffcc00")
    expect(page.get_by_role("link", name="Use #b28f00")).to_be_visible()
    page.get_by_role("link", name="Use #b28f00").click()
    expect(page.get_by_label("Accent, light")).to_have_value("#b28f00")
    expect(button).to_have_css("background-color", "rgb(178, 143, 0)")
