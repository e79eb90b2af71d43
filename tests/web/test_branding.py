"""Branding and logos over HTTP: who may change them, and what browsers of users get."""

import base64
import re
from typing import Any

import httpx2
import pytest

from tests.infra.installation import APP_ID, Backend, Installation
from tests.infra.pictures import jpeg, png
from tests.web.conftest import MakeBackend

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)

LOOKS = {
    "accentLight": "#0b5cad",
    "accentDark": "",
    "corners": "round",
    "mode": "both",
    "sentence": "We read what you ask us about.",
    "privacyUrl": "https://shop.example/privacy",
    "helpUrl": "",
    "footer": False,
    "locale": "de",
}


def text_of(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def changed(backend: Backend, **fields: Any) -> dict[str, Any]:
    answer = backend.post("branding", {**LOOKS, **fields})
    assert answer.status_code == 200, answer.text
    branding: dict[str, Any] = answer.json()["branding"]
    return branding


def theme_of(backend: Backend) -> httpx2.Response:
    return backend.http.get(f"/theme/{backend.project_id}.css", headers={"Authorization": ""})


def test_branding_is_evergrants_own_until_somebody_changes_it(other: Backend) -> None:
    assert other.get("branding").json()["branding"] | {"accentLight": "x"} == {
        **LOOKS,
        "accentLight": "x",
        "corners": "soft",
        "sentence": "",
        "privacyUrl": "",
        "footer": True,
        "locale": "en",
        "logoPath": "",
        "updatedTime": "",
    }
    assert theme_of(other).status_code == 404
    assert changed(other)["updatedTime"]
    assert {name: value for name, value in other.get("branding").json()["branding"].items() if name in LOOKS} == LOOKS
    (record,) = search(other, "branding.updated")
    assert set(record["data"]["fields"]) == {"accentLight", "corners", "sentence", "privacyUrl", "footer", "locale"}


def search(backend: Backend, action: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = backend.http.post("/v1/mgmt/audit/search", json={"actions": [action]}).json()[
        "audits"
    ]
    return found


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"accentLight": "#ffcc00"}, "accentLight", "the nearest colour that they can read is #b28f00"),
        ({"accentDark": "#101010"}, "accentDark", "could not read it on dark pages"),
        ({"accentLight": "red"}, "accentLight", "six hexadecimal digits"),
        ({"accentLight": "#0b5cad;"}, "accentLight", ""),
        ({"corners": "pill"}, "corners", "use square, soft, round"),
        ({"locale": "xx"}, "locale", "use en, de, fr"),
        ({"sentence": "x" * 201}, "sentence", "at most 200"),
        ({"sentence": "two\nlines"}, "sentence", "one line"),
        ({"privacyUrl": "javascript:alert(1)"}, "privacyUrl", ""),
        ({"helpUrl": "http://127.0.0.1/help"}, "helpUrl", "use https"),
        ({"accent": "#0b5cad"}, "accent", ""),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_changes(
    other: Backend, fields: dict[str, str], field: str, problem: str
) -> None:
    before = other.get("branding").json()
    answer = other.post("branding", {**LOOKS, **fields})
    assert answer.status_code == 400
    (entry,) = answer.json()["details"]["fields"]
    assert entry["field"] == field
    assert problem in entry["problem"]
    assert other.get("branding").json() == before


def test_a_theme_says_nothing_but_custom_properties_and_is_kept_by_its_version(other: Backend) -> None:
    changed(other)
    theme = theme_of(other)
    assert theme.headers["content-type"].startswith("text/css")
    assert theme.headers["cache-control"] == "public, max-age=300"
    declarations = re.findall(r"[{;]\s*([a-z0-9-]+):", theme.text)
    assert {name for name in declarations if not name.startswith("--")} == {"color-scheme"}
    assert "--accent: #0b5cad; --accent-hover: " in theme.text
    assert "--r2: 18px" in theme.text
    assert "prefers-color-scheme: dark" in theme.text
    changed(other, mode="dark", accentDark="#ffcc00")
    dark = theme_of(other).text
    assert "@media" not in dark
    assert "--accent: #ffcc00" in dark
    assert "--surface: #151d1b" in dark


def test_a_key_changes_branding_only_if_it_is_not_limited(other: Backend, backend_with: MakeBackend) -> None:
    for limits in ({"permissions": ["apps:read"]}, {"permissions": ["apps:write"], "app_ids": [APP_ID]}):
        limited = backend_with(other.project_id, **limits)
        assert limited.post("branding", LOOKS).status_code == 403
        assert limited.post("branding/logo", {"logo": text_of(png())}).status_code == 403
    assert backend_with(other.project_id, permissions=["apps:write"]).post("branding", LOOKS).status_code == 200


def test_a_projects_logo_is_served_as_what_it_is_and_nothing_else(other: Backend) -> None:
    path = other.post("branding/logo", {"logo": text_of(png())}).json()["branding"]["logoPath"]
    picture = other.http.get(path, headers={"Authorization": ""})
    assert (picture.content, picture.headers["content-type"]) == (png(), "image/png")
    assert picture.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert picture.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert picture.headers["cross-origin-resource-policy"] == "same-origin"
    replaced = other.post("branding/logo", {"logo": text_of(jpeg())}).json()["branding"]["logoPath"]
    assert replaced != path
    assert other.http.get(path).headers["cache-control"] == "public, max-age=300"
    assert other.post("branding/logo", {"logo": ""}).json()["branding"]["logoPath"] == ""
    assert other.http.get(replaced).status_code == 404
    assert [len(search(other, f"branding.logo_{done}")) for done in ("changed", "removed")] == [2, 1]


@pytest.mark.parametrize("logo", ["no base64!", text_of(b"<svg/>")])
def test_a_logo_that_is_no_picture_is_refused(other: Backend, here: Installation, logo: str) -> None:
    for answer in (
        other.post("branding/logo", {"logo": logo}),
        here.backend.post("app/logo", {"id": APP_ID, "logo": logo}),
    ):
        assert answer.status_code == 400
        assert answer.json()["details"]["fields"][0]["field"] == "logo"


def test_an_apps_logo_is_stored_served_and_removed(here: Installation, backend_with: MakeBackend) -> None:
    backend = here.backend
    app_id = backend.new_app(here.provider.registration)
    upload = {"id": app_id, "logo": text_of(png())}
    path = backend.post("app/logo", upload).json()["logoPath"]
    with httpx2.Client(base_url=here.url, trust_env=False) as anybody:
        assert anybody.get(path).content == png()
        assert backend.post("app/logo", {"id": app_id, "logo": ""}).json() == {"logoPath": ""}
        assert anybody.get(path).status_code == 404
    assert backend.post("app/logo", {**upload, "id": "nothing"}).status_code == 404
    assert (
        backend_with(backend.project_id, permissions=["apps:write"], app_ids=[APP_ID])
        .post("app/logo", upload)
        .status_code
        == 403
    )
    assert [len(search(backend, f"app.logo_{done}")) for done in ("changed", "removed")] == [1, 1]


def test_a_project_is_renamed_and_gets_other_origins_by_a_key_that_may_do_everything(
    other: Backend, backend_with: MakeBackend
) -> None:
    update = "/v1/mgmt/project/update"
    answer = other.http.post(update, json={"name": " Acme ", "embedOrigins": ["https://App.Acme.example/x"]})
    project = answer.json()["project"]
    assert (project["name"], project["embedOrigins"]) == ("Acme", ["https://app.acme.example"])
    assert project["redirectOrigins"] == ["https://app.example.com"]
    loaded = {**answer.json(), "apps": 0, "connections": 0}
    assert other.http.get("/v1/mgmt/project").json() == loaded
    wrong = other.http.post(update, json={"name": "", "redirectOrigins": ["http://app.acme.example"]})
    assert [entry["field"] for entry in wrong.json()["details"]["fields"]] == ["name", "redirectOrigins"]
    assert other.http.get("/v1/mgmt/project").json() == loaded
    assert (
        backend_with(other.project_id, permissions=["apps:write", "apps:read"]).http.post(update, json={}).status_code
        == 403
    )
    assert search(other, "project.renamed")[0]["data"] == {"name": "Acme", "before": "Shop"}
