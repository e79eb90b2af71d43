"""Text that no database takes is refused by the name of its field. It is no outage, and holds nothing else up."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from evergrant.settings import Settings
from tests.infra.installation import APP_ID, Backend, Browser, Installation, installation
from tests.infra.rows import in_database, rows

ODD = {"NUL": "a\x00b", "half a surrogate": "a\ud800b", "very long": "x" * 100_000}
LONG_ADDRESS = "B" * 300


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every text in a body."""
    if isinstance(value, str):
        yield path
    for key, member in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from _leaves(member, (*path, key))


def _with(value: Any, path: tuple[Any, ...], text: str) -> Any:
    """Return a body with another text in one place."""
    if not path:
        return text
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], text)
    return copy


def calls(here: Installation) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of every call of the OpenAPI document."""
    for path, item in httpx2.get(f"{here.url}/openapi.json", trust_env=False).json()["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def body_of(here: Installation, operation: dict[str, Any]) -> Any:
    """Return the example of a call's body."""
    media = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "example" in media or "$ref" not in media.get("schema", {}):
        return media.get("example")
    schemas = httpx2.get(f"{here.url}/openapi.json", trust_env=False).json()["components"]["schemas"]
    return schemas[media["schema"]["$ref"].rpartition("/")[2]]["examples"][0]


def test_an_attacker_who_puts_nul_into_any_address_is_refused_and_causes_no_outage(here: Installation) -> None:
    """Every parameter of every call, and of every page that needs no credential."""
    seen = 0
    for method, path, operation in calls(here):
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "header":  # no server takes one with NUL
                continue
            filled = path.replace(f"{{{parameter['name']}}}", "a%00b") if parameter["in"] == "path" else path
            url = re.sub(r"\{\w+\}", "x", filled)
            url += f"?{parameter['name']}=a%00b" if parameter["in"] == "query" else ""
            answer = here.backend.http.request(method, url)
            assert answer.status_code in (400, 404), (method, url, answer.text)
            said = answer.json()["message"] if method.upper() != "HEAD" else parameter["name"]  # it has no body
            assert answer.status_code == 404 or parameter["name"] in said, (url, answer.text)
            seen += 1
    assert seen > 20
    with httpx2.Client(base_url=here.url, trust_env=False) as http:
        project = here.backend.project_id
        for path in (
            "/connect/a%00b",
            "/connect-result?err=a%00b",
            "/v1/outbound/oauth/callback?state=a%00b",
            "/v1/outbound/oauth/callback?code=c&state=s&iss=a%00b",
            "/v1/outbound/oauth/callback?error=a%00b",
            "/v1/outbound/oauth/callback/a%00b?state=s",
            "/oauth-client/a%00b/app.json",
            f"/oauth-client/{project}/a%00b.json",
            f"/oauth-client/{project}/{'x' * 3000}.json",
            f"/connect/{'x' * 3000}",
            "/static/a%00b",
            "/a%00b",
            "/connect/%ED%A0%80",
            "/v1/mgmt/outbound/app/%ED%A0%80",
        ):
            answer = http.get(path)
            assert answer.status_code in (400, 401, 404), (path, answer.status_code)
        for path in ("/connect/nobodys", "/v1/outbound/oauth/callback"):
            posted = http.post(
                path, content="state=a%00b&code=c", headers={"Content-Type": "application/x-www-form-urlencoded"}
            )
            assert posted.status_code == 400
    assert here.backend.get(f"app/{APP_ID}").status_code == 200


@pytest.mark.parametrize("odd", ODD)
def test_an_attacker_who_puts_odd_text_into_any_field_is_told_which(here: Installation, odd: str) -> None:
    """Every text of every call's example, one after the other. Control: the examples themselves are no bug either."""
    seen = 0
    for method, path, operation in calls(here):
        body = body_of(here, operation)
        if body is None:
            continue
        url = re.sub(r"\{\w+\}", "x", path)
        for place in _leaves(body):
            sent = json.dumps(_with(body, place, ODD[odd]))
            answer = here.backend.http.request(method, url, content=sent, headers={"Content-Type": "application/json"})
            assert answer.status_code not in (500, 503), (url, place, answer.text)
            assert ODD[odd] not in answer.text
            if odd != "very long" and place[-1] in ("appId", "id", "name", "userId", "tenantId", "clientId"):
                said = answer.json()["message"]
                assert answer.status_code == 400, (url, place)
                assert place[-1] in said or (odd != "NUL" and "JSON" in said), (url, place, said)
            seen += 1
    assert seen > 60


@pytest.mark.parametrize("odd", ["NUL", "half a surrogate"])
def test_an_attacker_who_puts_odd_text_into_names_that_are_free_is_refused(here: Installation, odd: str) -> None:
    """Members of objects whose names are the caller's own: claims, variables, parameters, data."""
    name, app = ODD[odd], {"appId": APP_ID}
    for path, body in (
        ("/v1/mgmt/outbound/policies", {**app, "action": "connect", "claims": {name: ["x"]}}),
        ("/v1/mgmt/outbound/policies", {**app, "action": "connect", "claims": {"roles": [name]}}),
        ("/v1/mgmt/outbound/app/connect", {**app, "userId": "u", "options": {"variables": {name: "x"}}}),
        ("/v1/mgmt/outbound/app/connect", {**app, "userId": "u", "options": {"prompt": [name]}}),
        (
            "/v1/mgmt/outbound/app/user/oauthtoken/upload",
            {**app, "userId": "u", "accessToken": "t", "details": {name: "x"}},
        ),
        ("/v1/mgmt/outbound/app/create", {"name": "n", "clientId": "c", "variables": {name: "x"}}),
        (
            "/v1/mgmt/outbound/app/create",
            {"name": "n", "clientId": "c", "authorizationUrlParams": [{"name": name, "value": "x"}]},
        ),
        ("/v1/mgmt/audit/event", {"action": "a", "type": "info", "actorId": "u", "data": {name: 1}}),
        ("/v1/mgmt/audit/event", {"action": "a", "type": "info", "actorId": "u", "data": {"x": [{"y": name}]}}),
    ):
        sent = json.dumps(body)
        answer = here.backend.http.post(path, content=sent, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, (path, body, answer.text)
    for depth in (200, 900, 960, 990, 4000):
        deep = '{"action":"a","type":"info","actorId":"u","data":{"x":' + "[" * depth + "]" * depth + "}}"
        sent_deep = here.backend.http.post(
            "/v1/mgmt/audit/event", content=deep, headers={"Content-Type": "application/json"}
        )
        assert sent_deep.status_code in (200, 400), depth
    assert here.backend.http.post("/v1/mgmt/audit/search", json={}).status_code == 200, "nor does one spoil the log"
    headers = {"Authorization": f"Bearer a%00b:{here.backend.management_key}"}
    assert httpx2.get(f"{here.url}/v1/mgmt/outbound/apps", headers=headers, trust_env=False).status_code == 401


def test_an_attacker_who_types_nul_into_the_consent_page_is_told_which_field(here: Installation) -> None:
    """Pages of a trip that is under way are no different."""
    browser = here.browser()
    link = here.backend.connect_url("alice")
    browser.open(link)
    for fields in ({"decision": "con\x00nect"}, {"decision": "connect", "variables.shop": "a\x00b"}):
        answer = browser.http.post(link, data=fields)
        assert answer.status_code == 400
        assert "NUL" in answer.text
    assert browser.connect(link)["outboundStatus"] == "connected"


def test_an_attacker_whose_address_cannot_be_written_blinds_no_log(settings: Settings) -> None:
    """A hop that hands on what its caller wrote: nothing of it is stored, and all other uses are written as ever."""
    with installation(settings) as here:
        key = {"X-Forwarded-For": LONG_ADDRESS}

        def ask_from(address: str) -> int:
            headers = [(b"X-Forwarded-For", address.encode("latin-1"))]
            return here.backend.http.get("/v1/mgmt/outbound/apps", headers=headers).status_code

        for address in (LONG_ADDRESS, "a\xe9", "1.2.3.4:x", "fe80::1%eth0", "unknown", "203.0.113.9"):
            assert ask_from(address) == 200, address
        made = here.backend.http.put(
            "/v1/mgmt/managementkey", json={"name": "k", "permissions": ["apps:read"]}, headers=key
        )
        assert made.status_code == 200, "what is audited is not refused for an odd address"
        with Browser().http as http:
            assert http.get(here.backend.connect_url("alice"), headers=key).status_code == 200
        user = Backend(here.url, here.backend.project_id, made.json()["cleartext"])
        with user.http:
            assert user.get("apps").status_code == 200
        here.connected("alice")
        here.backend.token("alice")

    # It has stopped, and so has written down what it had in memory.
    def select(statement: str) -> list[Any]:
        return [one for (one,) in in_database(settings, lambda connection: connection.execute(text(statement)))]

    assert [at is not None for at in select("SELECT last_used_at FROM management_keys")] == [True, True]
    seen = select("SELECT remote_address FROM audit_events WHERE action = 'key.used_from_new_address'")
    assert sorted(seen) == ["", "127.0.0.1", "127.0.0.1", "203.0.113.9"]
    assert set(select("SELECT remote_address FROM audit_events")) == set(seen)
    assert len(rows(settings, "grant_uses")) == 1
