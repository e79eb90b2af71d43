"""The proxy: what goes on to an API, what comes back, whose word it is, and what is refused."""

import base64
import gzip
import json
from typing import Any

import httpx2
import pytest

from tests.calls.conftest import Api
from tests.infra.people import refused, someone
from tests.infra.scripted import answer, json_answer


def test_a_call_carries_the_connections_token_and_the_path_as_it_came(api: Api) -> None:
    given = api.call("/v1/a%20b/c?x=%2F&empty", "POST", json={"a": 1})
    assert (given.status_code, given.json()) == (200, {"ok": True}), given.text
    request = api.provider.requests[-1]
    assert request.target == "/base/v1/a%20b/c?x=%2F&empty"
    assert request.headers["authorization"] == f"Bearer {api.token}"
    assert request.json == {"a": 1}
    assert given.headers["evergrant-source"] == "provider"


def test_headers_go_on_but_for_those_of_the_way_here(api: Api) -> None:
    sent = {"X-Custom": "1", "Cookie": "a=b", "X-Forwarded-For": "192.0.2.1", "Origin": "https://a.example"}
    assert api.call("/a", headers=sent).status_code == 200
    got = api.provider.requests[-1].headers
    assert got["x-custom"] == "1"
    assert not {"cookie", "x-forwarded-for", "origin", "evergrant-user"} & got.keys()
    assert got["host"] == f"127.0.0.1:{api.provider.port}"


def test_an_answer_comes_back_without_what_is_not_the_callers(api: Api) -> None:
    api.provider.answers(
        answer(418, b"tea", set_cookie="a=b", x_ratelimit_remaining="7", cache_control="public", evergrant_source="me")
    )
    given = api.call("/a")
    assert (given.status_code, given.content) == (418, b"tea")
    assert given.headers["x-ratelimit-remaining"] == "7"
    assert given.headers["cache-control"] == "no-store"
    assert given.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert given.headers["x-content-type-options"] == "nosniff"
    assert given.headers["evergrant-source"] == "provider"
    assert "set-cookie" not in given.headers
    assert "strict-transport-security" not in given.headers


def test_a_compressed_answer_stays_compressed_for_who_may_fetch(api: Api) -> None:
    packed = gzip.compress(b"token " * 100)
    api.provider.answers(answer(200, packed, content_encoding="gzip"))
    mine = {"Authorization": api.here.backend.http.headers["authorization"], "Accept-Encoding": "gzip"}
    with api.http.stream("GET", f"/v1/proxy/{api.app_id}/a", headers=mine | {"Evergrant-User": api.user}) as given:
        assert b"".join(given.iter_raw()) == packed
    assert api.provider.requests[-1].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("packed", [False, True])
def test_a_token_that_an_api_echoes_reaches_nobody_who_may_not_fetch(api: Api, packed: bool) -> None:
    text = json.dumps({"you": f"Bearer {api.token}", "b": base64.b64encode(api.token.encode()).decode()}).encode()
    coded = {"content_encoding": "gzip"} if packed else {}
    api.provider.answers(answer(200, gzip.compress(text) if packed else text, x_echo=f"t={api.token}", **coded))
    given = api.call("/echo", headers={"Accept-Encoding": "br"})
    assert api.token not in given.text + given.headers["x-echo"]
    assert given.json()["you"].endswith("*" * len(api.token))
    assert len(given.content) == len(text)
    assert api.provider.requests[-1].headers["accept-encoding"] == "identity"
    assert "call.token_echoed" in api.recorded()


def test_what_is_compressed_beyond_reading_is_refused_to_who_may_not_fetch(api: Api) -> None:
    api.provider.answers(answer(200, b"\x0b\x02", content_encoding="br"))
    given = api.call("/a")
    assert refused(given, 502, "E111506"), given.text
    assert given.headers["evergrant-source"] == "evergrant"


def test_a_further_base_is_named_and_never_addressed(api: Api) -> None:
    assert api.call("/a", headers={"Evergrant-Base": "uploads"}).status_code == 200
    assert api.provider.requests[-1].target == "/uploads/a"
    given = api.call("/a", headers={"Evergrant-Base": "https://evil.example"})
    assert refused(given, 400, "E011003"), given.text
    assert "uploads" in given.json()["message"]


def test_the_apps_headers_are_sent_unless_the_caller_sends_the_same(api: Api) -> None:
    api.set_app(api_headers={"X-Api-Version": "2026-01", "X-Client": "{client_id}"})
    api.call("/a")
    api.call("/a", headers={"x-api-version": "2020"})
    first, second = (request.headers for request in api.provider.requests[-2:])
    assert (first["x-api-version"], first["x-client"], second["x-api-version"]) == ("2026-01", "evergrant", "2020")


ROWS: list[tuple[dict[str, Any], int, str]] = [
    ({"path": "/../x"}, 400, "E011003"),
    ({"path": "/a/%2e%2e/x"}, 400, "E011003"),
    ({"path": "/a", "headers": {"X-HTTP-Method-Override": "DELETE"}}, 400, "E011003"),
    ({"path": "/a?_method=DELETE"}, 400, "E011003"),
    ({"path": "/a", "method": "TRACE"}, 400, "E011003"),
    ({"path": "/a", "headers": {"Evergrant-Retry": "9"}}, 400, "E011003"),
    ({"path": "/a", "headers": {"Evergrant-Timeout": "0"}}, 400, "E011003"),
    ({"path": "/a", "headers": {"Evergrant-User": None}}, 400, "E011003"),
    ({"path": "/a", "headers": {"Authorization": "Bearer nobody:knows-this"}}, 401, "E011005"),
    ({"path": "/token"}, 403, "E011006"),
    ({"path": "/admin/x"}, 403, "E011006"),
    ({"path": "/%61dmin/x"}, 403, "E011006"),
]


def test_what_evergrant_refuses_says_so_and_reaches_no_api(api: Api) -> None:
    api.set_app(api_base_url=api.provider.url, api_forbidden=["GET /admin/**"])
    for asked, status, code in ROWS:
        given = api.raw(**asked)
        assert refused(given, status, code), (asked, given.text)
        assert given.headers["evergrant-source"] == "evergrant"
        assert status != 403 or given.json()["details"]["rule"] == "forbidden"
    assert api.provider.requests == []
    assert api.recorded().count("call.denied") == 1  # once a minute of who was denied what


def test_an_app_that_is_not_there_and_one_without_an_api_are_told_apart(api: Api) -> None:
    other = api.here.backend.new_app(api.provider.registration("none"))
    headers = {"Authorization": f"Bearer {api.here.backend.project_id}:{api.key}", "Evergrant-User": api.user}
    assert refused(api.http.get("/v1/proxy/nothing/a", headers=headers), 404, "E111503")
    assert refused(api.http.get(f"/v1/proxy/{other}/a", headers=headers), 404, "E111510")


def test_without_a_connection_the_caller_learns_why_and_gets_a_link_if_it_asks(api: Api) -> None:
    given = api.call("/a", headers={"Evergrant-User": someone()})
    assert refused(given, 424, "E111504"), given.text
    given = api.call("/a", headers={"Evergrant-Scopes": "files mail"})
    assert refused(given, 424, "E111504")
    assert given.json()["details"]["missingScopes"] == ["mail"]
    given = api.call("/a", headers={"Evergrant-Scopes": "mail", "Evergrant-Connect": "1"})
    assert "connectUrl" not in given.json()["details"]  # this key may not connect
    mine = {"Authorization": api.here.backend.http.headers["authorization"]}
    given = api.call("/a", headers=mine | {"Evergrant-User": someone(), "Evergrant-Connect": "1"})
    assert given.json()["details"]["connectUrl"].startswith(api.here.url)


def test_what_happens_to_a_connection_holds_for_the_very_next_call(api: Api) -> None:
    assert api.call("/a").status_code == 200
    newer = api.connect()
    assert api.call("/a").status_code == 200
    assert api.provider.requests[-1].headers["authorization"] == f"Bearer {newer}"
    http = api.here.backend.http
    gone = http.delete("/v1/mgmt/outbound/user/tokens", params={"appId": api.app_id, "userId": api.user})
    assert gone.status_code == 200, gone.text
    assert refused(api.call("/a"), 424, "E111504")


def test_which_of_several_accounts_is_never_guessed(api: Api) -> None:
    second = api.connect(externalIdentifier="work")
    given = api.call("/a")
    assert refused(given, 409, "E111511"), given.text
    accounts = given.json()["details"]["accounts"]
    assert {account["externalIdentifier"] for account in accounts} == {"", "work"}
    assert api.call("/a", headers={"Evergrant-External-Identifier": "work"}).status_code == 200
    assert api.provider.requests[-1].headers["authorization"] == f"Bearer {second}"


def test_a_redirect_inside_a_base_leads_through_the_proxy_and_another_is_data(api: Api) -> None:
    where = {
        f"{api.provider.url}/base/b?c=1": f"{api.here.url}/v1/proxy/{api.app_id}/b?c=1",
        "b?c=1": f"{api.here.url}/v1/proxy/{api.app_id}/x/b?c=1",
        f"{api.provider.url}/uploads/b": f"{api.here.url}/v1/proxy/{api.app_id}/b",
        "/login": f"{api.provider.url}/login",
        f"{api.provider.url}/base-2/b": f"{api.provider.url}/base-2/b",
        "https://files.example/b": "https://files.example/b",
    }
    for location, expected in where.items():
        api.provider.answers(answer(302, b"", location=location))
        given = api.call("/x/a")
        assert (given.status_code, given.headers["location"]) == (302, expected)
        assert given.headers.get("evergrant-base") == ("uploads" if "/uploads/" in location else None)
    assert len(api.provider.requests) == len(where)


def test_an_api_that_is_away_or_garbles_is_told_apart(api: Api) -> None:
    api.provider.answers(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n")
    assert refused(api.call("/a"), 502, "E111506")

    def breaks_off(request: Any) -> None:
        request.writer.close()

    api.provider.answers(breaks_off)
    assert refused(api.call("/a", "POST", json={}), 504, "E111515")
    other = api.here.backend.new_app(api.provider.registration("none"))
    api.app_id = other
    api.set_app(api_base_url="http://127.0.0.1:9")
    api.connect()
    given = api.call("/a")
    assert refused(given, 503, "E111505"), given.text
    assert int(given.headers["retry-after"]) > 0


def test_an_answer_that_breaks_off_has_no_proper_end(api: Api) -> None:
    def half(request: Any) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        request.writer.close()

    api.provider.answers(half)
    with pytest.raises(httpx2.RemoteProtocolError):
        api.call("/a")


def test_a_token_that_ended_is_refreshed_once_and_the_call_repeated(api: Api) -> None:
    api.user = someone()
    old = api.connect(refreshToken="rt-0")
    api.provider.routes["/token"] = {"access_token": "newer-token", "expires_in": 3600, "refresh_token": "rt-1"}

    def by_token(request: Any) -> bytes:
        good = request.headers["authorization"] == "Bearer newer-token"
        return json_answer(200 if good else 401, {"good": good})

    api.provider.answers(by_token)
    given = api.call("/a", "POST", json={"a": 1})
    assert (given.status_code, given.json()) == (200, {"good": True})
    bodies = [request.json for request in api.provider.requests_to("/base/a")]
    assert bodies == [{"a": 1}, {"a": 1}]
    assert old != "newer-token"
    api.provider.answers((401, {}))  # whatever it says: no second refresh within the minute, and no consent ends
    assert [api.call("/a").status_code for _ in range(3)] == [401, 401, 401]
    assert len(api.provider.requests_to("/token")) == 1
    assert api.here.backend.fetch(api.user, appId=api.app_id, scopes=["files"]).status_code == 200


def test_an_api_key_that_is_refused_stays_and_the_refusal_is_returned(api: Api) -> None:
    api.provider.answers((401, {"error": "no"}))
    assert (api.call("/a").status_code, api.call("/a").json()) == (401, {"error": "no"})
    api.provider.answers((200, {}))
    assert api.call("/a").status_code == 200


def test_a_long_body_streams_and_the_caller_sends_it_again_itself(api: Api) -> None:
    api.user = someone()
    api.connect(refreshToken="rt-0")
    api.provider.routes["/token"] = {"access_token": "newer-token", "expires_in": 3600}
    api.provider.answers((401, {}), (200, {}))
    body = b"x" * 300_000
    given = api.call("/a", "PUT", content=body)
    assert (given.status_code, given.headers["evergrant-retry-now"]) == (401, "1")
    given = api.call("/a", "PUT", content=body)
    assert given.status_code == 200
    assert api.provider.requests[-1].body == body


def test_a_stated_time_is_waited_for_only_where_that_was_asked_and_repeats_safely(api: Api) -> None:
    limited = answer(429, b"", retry_after="1")
    api.provider.answers(limited)
    assert api.call("/a").status_code == 429
    assert api.call("/a", "POST", headers={"Evergrant-Retry": "1"}, json={}).status_code == 429
    assert api.call("/a", headers={"Evergrant-Retry": "1", "Evergrant-Max-Wait": "0"}).status_code == 429
    assert len(api.provider.requests) == 3
    api.provider.answers(limited, (200, {}))
    keyed = {"Evergrant-Retry": "1", "Idempotency-Key": "k"}
    assert api.call("/a", "POST", headers=keyed, json={}).status_code == 200


def test_a_session_key_is_taken_where_a_providers_sdk_puts_its_credential(api: Api) -> None:
    key = api.session_key()
    basic = base64.b64encode(f"{key}:".encode()).decode()
    for headers in ({"x-api-key": key}, {"Authorization": f"token {key}"}, {"Authorization": f"Basic {basic}"}):
        given = api.http.get(f"/v1/proxy/{api.app_id}/a", headers=headers)
        assert given.status_code == 200, given.text
        head = api.provider.requests[-1].head.decode()
        assert key not in head
        assert basic not in head
    given = api.http.get(f"/v1/proxy/{api.app_id}/a", params={"Authorization": "x"}, headers={"x-other": key})
    assert refused(given, 401, "E011005")
    given = api.http.delete(f"/v1/proxy/{api.app_id}/a", headers={"Authorization": f"Bearer {key}"})
    assert refused(given, 403, "E011006")
    assert given.json()["details"]["rule"] == "session"


def test_every_call_is_logged_and_a_write_before_it_is_sent(api: Api) -> None:
    seen: list[Any] = []

    def looks(request: Any) -> tuple[int, Any]:
        seen.extend(api.logged())
        return 201, {}

    api.provider.answers(looks)
    assert api.call("/things?secret=1", "POST", json={}).status_code == 201
    (ahead,) = seen
    assert (ahead.method, ahead.path, ahead.status, ahead.user_id) == ("POST", "/things", 0, api.user)
