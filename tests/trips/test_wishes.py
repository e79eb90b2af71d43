"""What a backend may not ask of a connect trip: above all, to send the browser somewhere that is not on the list."""

from typing import Any

import pytest

from tests.infra.installation import APP_ID, Installation
from tests.trips.conftest import CreateApp, allow_origins

GOOD = "https://app.example.com/done"
EVIL = {
    "another host": "https://evil.example.com/done",
    "another port": "https://app.example.com:8443/done",
    "http instead of https": "http://app.example.com/done",
    "a user in front of the host": "https://app.example.com@evil.example.com/",
    "a user in front of the right host": "https://someone@app.example.com/done",
    "a backslash before the host": "https:\\\\app.example.com/done",
    "a backslash that ends the host": "https://evil.example.com\\@app.example.com/done",
    "a backslash that ends the host, encoded user": "https://app.example.com\\.evil.example.com/",
    "a backslash in the path": "https://app.example.com/\\\\evil.example.com",
    "a tab in the scheme": "java\tscript:alert(1)",
    "a tab in the host": "https://app.exam\tple.com/done",
    "a line break": "https://app.example.com/done\r\nSet-Cookie: a=b",
    "a control character in front": "\x01https://app.example.com/done",
    "a zero byte": "https://app.example.com/\x00done",
    "script": "javascript:alert(document.domain)",
    "script that looks like the host": "javascript://app.example.com/%0aalert(1)",
    "data": "data:text/html,<script>alert(1)</script>",
    "another scheme": "ftp://app.example.com/",
    "no scheme": "//app.example.com/done",
    "a path only": "/done",
    "three slashes": "https:///app.example.com/done",
    "no slashes": "https:app.example.com",
    "the host as a prefix": "https://app.example.com.evil.example.com/",
    "the host as a suffix": "https://evil-app.example.com/",
    "a subdomain": "https://sub.app.example.com/",
    "a trailing dot": "https://app.example.com./done",
    "another alphabet": "https://аpp.example.com/done",  # noqa: RUF001  # a Cyrillic letter, on purpose
    "a full stop of another alphabet": "https://app.example.com\u3002evil.example.com/",
    "a slash of another alphabet": "https://app.example.com\uff0fevil.example.com/",
    "a letter that becomes a slash": "https://app.example.com\u2100.evil.example.com/",
    "punycode of another name": "https://xn--pp-7kc.example.com/",
    "a port that is none": "https://app.example.com:port/",
    "a port that is too large": "https://app.example.com:99999/",
    "brackets that do not close": "https://[::1/done",
    "not a URL": "???",
}


@pytest.mark.parametrize("url", EVIL.values(), ids=EVIL.keys())
def test_a_return_address_that_is_not_on_the_list_is_refused(here: Installation, user: str, url: str) -> None:
    answer = here.backend.post("app/connect", {"appId": APP_ID, "userId": user, "options": {"redirectUrl": url}})
    assert answer.status_code == 400, answer.text
    assert [entry["field"] for entry in answer.json()["details"]["fields"]] == ["options.redirectUrl"]
    assert "url" not in answer.json()


@pytest.mark.parametrize("url", EVIL.values(), ids=EVIL.keys())
def test_nor_can_it_be_made_an_apps_default(here: Installation, url: str) -> None:
    app = {**here.provider.registration, "defaultRedirectUrl": url}
    answer = here.backend.post("app/update", {"app": app})
    assert answer.status_code == 400, answer.text
    [field] = [entry["field"] for entry in answer.json()["details"]["fields"]]
    assert field.endswith("defaultRedirectUrl")
    assert here.backend.get(f"app/{APP_ID}").json()["app"]["defaultRedirectUrl"] == ""


@pytest.mark.parametrize(
    "url",
    [GOOD, "HTTPS://APP.Example.COM/done", "https://app.example.com:443/done", "https://app.example.com?a=b#c"],
)
def test_another_spelling_of_the_same_origin_is_accepted(here: Installation, user: str, url: str) -> None:
    assert here.backend.connect_url(user, options={"redirectUrl": url})


def test_a_default_address_whose_origin_was_taken_off_the_list_is_not_used(
    here: Installation, create_app: CreateApp, user: str
) -> None:
    allow_origins(here, "https://app.example.com", "https://old.example.com")
    app_id = create_app(defaultRedirectUrl="https://old.example.com/done")
    wish = {"appId": app_id, "userId": user}
    assert here.backend.post("app/connect", wish).status_code == 200
    allow_origins(here, "https://app.example.com")
    answer = here.backend.post("app/connect", wish)
    assert answer.status_code == 400
    assert [entry["field"] for entry in answer.json()["details"]["fields"]] == ["defaultRedirectUrl"]
    assert here.backend.connect_url(user, appId=app_id)


def test_where_no_origin_is_listed_only_evergrants_own_remains(here: Installation, user: str) -> None:
    assert here.backend.connect_url(user, options={"redirectUrl": f"{here.url}/connect-result"})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"tenantLevel": True}, "tenantId"),
        ({"userId": ""}, "userId"),
        ({"options": {"scopes": ["two words"]}}, "options.scopes"),
        ({"options": {"prompt": ["sudo"]}}, "options.prompt"),
        ({"options": {"prompt": ["none", "login"]}}, "options.prompt"),
        ({"options": {"resources": ["relative"]}}, "options.resources"),
        ({"options": {"resources": ["https://[broken"]}}, "options.resources"),
        ({"options": {"resources": ["https://api.example.com/#part"]}}, "options.resources"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_by_name(
    here: Installation, user: str, body: dict[str, Any], field: str
) -> None:
    answer = here.backend.post("app/connect", {"appId": APP_ID, "userId": user, **body})
    assert answer.status_code == 400
    assert [entry["field"] for entry in answer.json()["details"]["fields"]] == [field]


def test_an_app_that_is_not_complete_says_what_it_lacks(here: Installation, user: str) -> None:
    app_id = f"bare-{user}"
    here.backend.create_app({"id": app_id, "name": app_id})
    answer = here.backend.post("app/connect", {"appId": app_id, "userId": user})
    assert answer.status_code == 400
    assert all(name in answer.json()["message"] for name in ("clientId", "authorizationUrl", "tokenUrl"))
