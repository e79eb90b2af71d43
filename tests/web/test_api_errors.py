"""Each field of each call wrong in turn: the answer names the field, never the value, and nothing is written."""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.infra.installation import APP_ID, BACK, Installation
from tests.infra.rows import dump

MALFORMED, MISSING, INVALID = "E011001", "E011002", "E011003"
MARK = "m4rk3r"
NUMBER = 987654321987
ABSENT = object()
"""A field that is left out. `null` must do the same."""


@dataclass(frozen=True)
class Bad:
    """One field with a value that is refused."""

    field: str
    value: Any
    code: str
    named: str = ""
    """The field that the answer names, where it is not `field`."""


def wrong_types(field: str) -> Iterator[Bad]:
    yield Bad(field, NUMBER, MALFORMED)
    yield Bad(field, True, MALFORMED)
    yield Bad(field, [MARK], MALFORMED)
    yield Bad(field, {MARK: MARK}, MALFORMED)


def text(field: str, *, longest: int = 2_000, required: bool = False) -> Iterator[Bad]:
    yield from wrong_types(field)
    yield Bad(field, (MARK + "x" * longest)[: longest + 1], INVALID)
    yield Bad(field, f"{MARK}\x00", INVALID)
    yield Bad(field, f"{MARK}\ud800", INVALID)
    if required:
        yield Bad(field, ABSENT, MISSING)
        yield Bad(field, None, MISSING)
        yield Bad(field, "", MISSING)


def texts(field: str, *, many: int = 500) -> Iterator[Bad]:
    yield Bad(field, MARK, MALFORMED)
    yield Bad(field, {MARK: MARK}, MALFORMED)
    yield Bad(field, ["fine", NUMBER], MALFORMED, f"{field}[1]")
    yield Bad(field, [None], MALFORMED, f"{field}[0]")
    yield Bad(field, [f"{MARK}\x00"], INVALID, f"{field}[0]")
    yield Bad(field, [MARK] * (many + 1), INVALID)


def flag(field: str) -> Iterator[Bad]:
    yield from (Bad(field, value, MALFORMED) for value in (MARK, "true", 1, NUMBER, [True], {MARK: True}))


def url(field: str) -> Iterator[Bad]:
    yield from text(field)
    for bad in (
        MARK,
        f"http://{MARK}.example.com/",
        f"ftp://{MARK}.example.com/",
        f"javascript:{MARK}",
        f"https://{MARK}@example.com/",
        f"https:///{MARK}",
        f"https://{MARK}.example.com:99999999/",
        f"https://[{MARK}/",
    ):
        yield Bad(field, bad, INVALID)


def pairs(field: str) -> Iterator[Bad]:
    yield Bad(field, MARK, MALFORMED)
    yield Bad(field, [MARK], MALFORMED, f"{field}[0]")
    yield Bad(field, [{"value": MARK}], INVALID)
    yield Bad(field, [{"key": MARK, "name": "other", "value": "x"}], INVALID, f"{field}[0]")
    yield Bad(field, [{"key": NUMBER, "value": MARK}], MALFORMED, f"{field}[0].key")
    yield Bad(field, [{"key": MARK, "value": [MARK]}], MALFORMED, f"{field}[0].value")
    yield Bad(field, [{"key": "", "value": MARK}], INVALID)
    yield Bad(field, [{"key": "client_id", "value": MARK}], INVALID)
    yield Bad(field, [{"key": "a", "value": "b", MARK: MARK}], INVALID, f"{field}[0].{MARK}")
    yield Bad(field, [{"key": MARK, "value": "x"}] * 51, INVALID)


def app_fields() -> Iterator[Bad]:
    yield from text("name", longest=200, required=True)
    yield Bad("name", "   ", MISSING)
    for field in ("description", "clientId", "callbackDomain", "defaultRedirectUrl", "accessType"):
        yield from text(field)
    yield from text("logo", longest=100_000)
    yield from text("clientSecret", longest=10_000)
    for field in ("discoveryUrl", "authorizationUrl", "tokenUrl", "revocationUrl", "userinfoUrl", "jwksUrl"):
        yield from url(field)
    yield from text("issuer")
    yield from text("tokenEndpointAuthMethod")
    yield from pairs("authorizationUrlParams")
    yield from pairs("tokenUrlParams")
    yield from texts("defaultScopes")
    yield Bad("defaultScopes", [f"{MARK} {MARK}"], INVALID)
    yield Bad("defaultScopes", [""], INVALID)
    yield from texts("prompt", many=10)
    yield Bad("prompt", [MARK], INVALID)
    yield Bad("prompt", ["none", "login"], INVALID)
    for field in ("pkce", "useDcr", "skipConsentPage", "requireConfirmation", "revokeReplaced"):
        yield from flag(field)
    yield Bad("accessType", MARK, INVALID)
    yield Bad("appType", MARK, INVALID)
    yield Bad("appType", NUMBER, INVALID)
    yield Bad("tokenEndpointAuthMethod", MARK, INVALID)
    yield Bad("refreshPolicy", MARK, INVALID)
    yield Bad("refreshPolicy", NUMBER, MALFORMED)
    yield Bad("refreshTokenIdleSeconds", -1, INVALID)
    yield Bad("refreshTokenIdleSeconds", 5, INVALID)
    yield Bad("refreshTokenIdleSeconds", MARK, MALFORMED)
    yield Bad("logo", f"https://{MARK}.example.com/a b", INVALID)
    yield Bad("logo", f"data:text/html,{MARK}", INVALID)
    yield Bad("logo", f"javascript:{MARK}", INVALID)
    yield Bad("callbackDomain", f"https://{MARK}.example.com", INVALID)
    yield Bad("callbackDomain", f"{MARK}.example.com/path", INVALID)
    yield from redirects("defaultRedirectUrl")
    yield Bad("scopes", [{"description": MARK}], MISSING, "scopes[0].value")
    yield Bad("scopes", [MARK], MALFORMED, "scopes[0]")
    # what this version does not do is refused, not swallowed
    yield Bad("useDcr", True, INVALID)
    yield Bad("dcrUrl", f"ftp://{MARK}.example.com/", INVALID)
    yield from text("tenantId", longest=255)
    yield Bad("templateId", MARK, INVALID)
    # a misspelt security setting must not pass silently
    yield Bad("clientsecret", MARK, INVALID)
    yield Bad("requireConfirmatoin", True, INVALID)


def redirects(field: str) -> Iterator[Bad]:
    for bad in (
        f"https://{MARK}.example.com/done",
        f"http://app.example.com/{MARK}",
        f"https://app.example.com:8443/{MARK}",
        f"https://app.example.com.{MARK}.org/",
        f"https://app.example.com@{MARK}.org/",
        f"https://{MARK}.org\\@app.example.com/",
        f"//{MARK}.org/",
        f"/{MARK}",
        f"javascript:alert('{MARK}')",
        f"https://app.example.com/\n{MARK}",
    ):
        yield Bad(field, bad, INVALID)


def fetch_options() -> Iterator[Bad]:
    yield Bad("options", MARK, MALFORMED)
    yield Bad("options", [MARK], MALFORMED)
    yield from flag("options.withRefreshToken")
    yield from flag("options.forceRefresh")
    for value in (MARK, "60", True, [60], 1.5):
        yield Bad("options.minimumSeconds", value, MALFORMED)
    yield Bad("options.minimumSeconds", -1, INVALID)
    yield Bad("options.minimumSeconds", NUMBER, INVALID)


def fetch_scopes() -> Iterator[Bad]:
    yield from texts("scopes")
    yield Bad("scopes", ABSENT, MISSING)
    yield Bad("scopes", None, MISSING)
    yield Bad("scopes", [f"{MARK} {MARK}"], INVALID)
    yield Bad("scopes", [""], INVALID)


def connect_fields() -> Iterator[Bad]:
    yield from text("appId", longest=64, required=True)
    yield from text("userId", longest=255, required=True)
    yield from text("tenantId", longest=255)
    yield from flag("tenantLevel")
    yield Bad("tenantLevel", True, MISSING, "tenantId")
    yield Bad("options", MARK, MALFORMED)
    yield from text("options.redirectUrl")
    yield from redirects("options.redirectUrl")
    yield from texts("options.scopes")
    yield Bad("options.scopes", [f"{MARK} {MARK}"], INVALID)
    yield from texts("options.prompt", many=10)
    yield Bad("options.prompt", [MARK], INVALID)
    yield Bad("options.prompt", [""], INVALID)
    yield Bad("options.prompt", ["none", "consent"], INVALID)
    yield from text("options.loginHint")
    yield from texts("options.resources", many=20)
    yield Bad("options.resources", [MARK], INVALID)
    yield Bad("options.resources", [f"https://{MARK}.example.com/#part"], INVALID)
    yield from text("options.externalIdentifier", longest=255)


USER = {"appId": APP_ID, "userId": "nobody"}
TENANT = {"appId": APP_ID, "tenantId": "nobody"}
APP = {"id": "another", "name": "Another"}

CALLS: dict[str, tuple[dict[str, Any], list[Bad]]] = {
    "app/create": (
        APP,
        [*app_fields(), *text("id", longest=64), Bad("id", f"{MARK}/..", INVALID), Bad("id", f"-{MARK}", INVALID)],
    ),
    "app/update": (
        {"app": {"id": APP_ID, "name": "Practice contacts"}},
        [
            *(
                Bad(f"app.{bad.field}", bad.value, bad.code, bad.named and f"app.{bad.named}")
                for bad in (*app_fields(), *text("id", longest=64, required=True))
            ),
            *(bad for bad in wrong_types("app") if not isinstance(bad.value, dict)),
            Bad("app", ABSENT, MISSING),
            Bad("name", MARK, INVALID),
        ],
    ),
    "app/delete": ({"id": APP_ID}, list(text("id", longest=64, required=True))),
    "app/user/token": (
        {**USER, "scopes": ["contacts.readonly"]},
        [
            *text("appId", longest=64, required=True),
            *text("userId", longest=255, required=True),
            *text("tenantId", longest=255),
            *text("externalIdentifier", longest=255),
            *fetch_scopes(),
            *fetch_options(),
        ],
    ),
    "app/user/token/latest": (
        USER,
        [
            *text("appId", longest=64, required=True),
            *text("userId", longest=255, required=True),
            *text("tenantId", longest=255),
            *text("externalIdentifier", longest=255),
            *fetch_options(),
        ],
    ),
    "app/tenant/token": (
        {**TENANT, "scopes": ["contacts.readonly"]},
        [
            *text("appId", longest=64, required=True),
            *text("tenantId", longest=255, required=True),
            *text("externalIdentifier", longest=255),
            *fetch_scopes(),
            *fetch_options(),
        ],
    ),
    "app/tenant/token/latest": (
        TENANT,
        [
            *text("appId", longest=64, required=True),
            *text("tenantId", longest=255, required=True),
            *text("externalIdentifier", longest=255),
            *fetch_options(),
        ],
    ),
    "app/connect": ({**USER, "options": {"redirectUrl": BACK}}, list(connect_fields())),
    "app/connect/confirm": (
        {"confirmation": "unknown", "userId": "alice"},
        [*text("confirmation", required=True), *text("userId", longest=255, required=True)],
    ),
}


def with_value(body: dict[str, Any], bad: Bad) -> dict[str, Any]:
    """Return a good body with the bad value in its place."""
    changed = copy.deepcopy(body)
    *parents, name = bad.field.split(".")
    place = changed
    for parent in parents:
        place = place.setdefault(parent, {})
    if bad.value is ABSENT:
        place.pop(name, None)
    else:
        place[name] = bad.value
    return changed


def send(here: Installation, call: str, body: bytes, **headers: str) -> httpx2.Response:
    return here.backend.http.post(
        f"/v1/mgmt/outbound/{call}", content=body, headers={"Content-Type": "application/json", **headers}
    )


def what_is_wrong_with(answer: httpx2.Response, status: int, code: str) -> str:
    """Check what every error answer promises; return the first broken promise."""
    if answer.status_code != status:
        return f"answered {answer.status_code}: {answer.text[:200]}"
    body = answer.json()
    if body["errorCode"] != code:
        return f"answered {body['errorCode']}: {body['message']}"
    if not body["message"] or body["message"] != body["errorMessage"] or not body["errorDescription"]:
        return f"unhelpful: {body}"
    if not body["requestId"] or body["requestId"] != answer.headers["x-request-id"]:
        return "no request id"
    if MARK in answer.text.replace(f"[0].{MARK}", "") or str(NUMBER) in answer.text:
        return f"echoes the value: {answer.text}"
    if answer.headers["cache-control"] != "no-store":
        return "may be cached"
    return ""


@pytest.mark.parametrize("call", CALLS)
def test_a_bad_value_is_refused_by_name_without_an_echo_and_nothing_is_written(here: Installation, call: str) -> None:
    good, bads = CALLS[call]
    before = dump(here.settings)
    complaints = []
    for bad in bads:
        answer = send(here, call, json.dumps(with_value(good, bad)).encode())
        # The hot path's parser takes half a surrogate pair for bad JSON, and does not say where it stood.
        unreadable = call.endswith(("token", "latest")) and "\ud800" in str(bad.value)
        complaint = what_is_wrong_with(answer, 400, MALFORMED if unreadable else bad.code)
        if not complaint:
            fields = [entry["field"] for entry in answer.json()["details"]["fields"]]
            if fields != ["body" if unreadable else bad.named or bad.field]:
                complaint = f"names {fields}"
        if complaint:
            complaints.append(f"{bad.field} = {str(bad.value)[:60]!r}: {complaint}")
    assert not complaints, "\n".join(complaints)
    assert dump(here.settings) == before


@pytest.mark.parametrize("call", CALLS)
def test_a_body_that_is_no_json_object_is_malformed(here: Installation, call: str) -> None:
    before = dump(here.settings)
    complaints = []
    for body in (
        b"",
        b"{",
        f'{{"appId": "{MARK}"'.encode(),
        f'["{MARK}"]'.encode(),
        f'"{MARK}"'.encode(),
        b"null",
        f"{MARK}=1".encode(),
        b"\xff\xfe" + MARK.encode(),
        b'{"a":' * 100_000,
        b"[" * 100_000,
    ):
        answer = send(here, call, body)
        # "null" and an empty body are also "the body is missing"
        expected = MISSING if body in (b"", b"null") and answer.json().get("errorCode") == MISSING else MALFORMED
        complaint = what_is_wrong_with(answer, 400, expected)
        if complaint:
            complaints.append(f"{body[:40]!r}: {complaint}")
    assert not complaints, "\n".join(complaints)
    assert dump(here.settings) == before


@pytest.mark.parametrize("call", [call for call in CALLS if "token" not in call])
def test_another_content_type_is_refused_with_the_remedy(here: Installation, call: str) -> None:
    before = dump(here.settings)
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = send(here, call, json.dumps(CALLS[call][0]).encode(), **{"Content-Type": content_type})
        assert what_is_wrong_with(answer, 400, MALFORMED) == ""
        assert "Content-Type: application/json" in answer.json()["message"]
    assert dump(here.settings) == before


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_a_huge_body_is_refused_before_it_is_read(here: Installation, call: str, *, chunked: bool) -> None:
    before = dump(here.settings)
    size = 1024 * 1024 + 1
    body = (b"x" * 65_536 for _ in range(17)) if chunked else b"x" * size
    answer = here.backend.http.post(
        f"/v1/mgmt/outbound/{call}", content=body, headers={"Content-Type": "application/json"}
    )
    assert what_is_wrong_with(answer, 413, "E011008") == ""
    assert dump(here.settings) == before


@pytest.mark.parametrize("call", ["app/user/token", "app/user/token/latest", "app/tenant/token", "app/connect"])
def test_fields_that_are_not_known_are_ignored(here: Installation, call: str) -> None:
    # the vendor's own samples send some
    good, _ = CALLS[call]
    answer = here.backend.post(call, {**good, "pretty": True, "options": {**good.get("options", {}), "locale": "de"}})
    assert answer.status_code == (200 if call == "app/connect" else 404), answer.text


@pytest.mark.parametrize("field", ["tenantId", "externalIdentifier", "options"])
def test_null_is_the_same_as_absent(here: Installation, field: str) -> None:
    body = {"appId": APP_ID, "userId": "nobody", "scopes": ["contacts.readonly"]}
    absent, null = here.backend.post("app/user/token", body), here.backend.post("app/user/token", {**body, field: None})
    assert (null.status_code, null.json()["errorCode"]) == (absent.status_code, absent.json()["errorCode"])
    assert null.status_code == 404


def test_null_options_are_the_same_as_absent_ones(here: Installation) -> None:
    options = {"redirectUrl": BACK, "scopes": None, "prompt": None, "loginHint": None, "resources": None}
    assert here.backend.connect_url(options=options, tenantId=None, tenantLevel=None)


def test_the_older_spelling_of_the_redirect_url_is_accepted(here: Installation) -> None:
    url = here.backend.connect_url(options={"redirectURL": BACK})
    browser = here.browser()
    page = browser.open(url)
    assert page.status_code == 200
    answer = browser.http.post(url, data={"decision": "cancel"})
    assert answer.headers["location"].startswith(f"{BACK}?")


def test_the_sdks_own_headers_are_accepted(here: Installation) -> None:
    answer = here.backend.http.get(
        "/v1/mgmt/outbound/apps",
        headers={
            "x-descope-sdk-name": "python",
            "x-descope-sdk-version": "2.16.0",
            "x-descope-project-id": here.backend.project_id,
            "x-descope-license": "tier4",
        },
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("app_id", ["x" * 65, "%00", "a%00b"])
def test_an_app_id_in_the_path_that_cannot_be_one_is_invalid(here: Installation, app_id: str) -> None:
    answer = here.backend.get(f"app/{app_id}")
    assert what_is_wrong_with(answer, 400, INVALID) == ""
    assert answer.json()["details"]["fields"][0]["field"] == "id"


def test_an_address_that_does_not_exist_and_a_method_that_it_does_not_take_are_told_apart(here: Installation) -> None:
    assert what_is_wrong_with(here.backend.get("nothing/here"), 404, "E011004") == ""
    assert what_is_wrong_with(here.backend.get("app/user/token"), 405, "E011010") == ""
