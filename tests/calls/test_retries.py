"""Calls that are sent again, or led on to file stores, and those that are not."""

import socket
from typing import Any

import pytest

from evergrant.broker.calls import bases
from evergrant.catalog.api import Api as CataloguedApi
from tests.calls.conftest import Api
from tests.infra.people import refused, someone
from tests.infra.scripted import answer, json_answer
from tests.infra.waiting import wait_until

FILES, OTHER = "files.example.com", "other.example.com"


@pytest.fixture
def catalogued(api: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    """The same where the catalogue knows of file stores, and of answers that refuse a token with 200."""
    known = {
        "follow": [FILES],
        "expired": [{"status": 200, "pointer": "/error", "values": ["token_expired"]}],
        "headers": {"X-Client-Secret": "{client_secret}"},
    }
    monkeypatch.setattr(bases, "Api", lambda: CataloguedApi(**known))
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host in (FILES, OTHER) else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    return api


def moved(location: str, status: int = 302) -> bytes:
    return answer(status, b"", location=location)


def test_a_download_is_followed_to_a_named_file_store_and_no_credential_goes_there(catalogued: Api) -> None:
    api = catalogued
    files = f"http://{FILES}:{api.provider.port}"
    api.provider.routes |= {
        "/base/report": moved(f"{files}/1?signed=yes"),
        "/1": moved("/2", 307),
        "/2": moved("3", 301),
        "/3": answer(200, f"the report for {api.token}".encode()),
    }
    mine = {"X-Client-Secret": "mine", "X-Custom": "1", "Cookie": "a=b"}
    given = api.call("/report?q=1", headers=mine)
    assert (given.status_code, given.content) == (200, b"the report for " + b"*" * len(api.token))
    first, *hops = api.provider.requests
    assert first.headers["authorization"] == f"Bearer {api.token}"
    assert [request.target for request in hops] == ["/1?signed=yes", "/2", "/3"]
    for hop in hops:
        assert hop.headers["host"] == f"{FILES}:{api.provider.port}"
        assert api.token not in hop.head.decode()
        assert not {"authorization", "cookie", "evergrant-user"} & hop.headers.keys()
        assert hop.headers["x-custom"] == "1"
    api.call("/report")
    assert [request.headers.get("x-client-secret") for request in api.provider.requests[4:]] == ["secret"] + [None] * 3


def test_a_fourth_hop_another_host_and_another_method_are_data(catalogued: Api) -> None:
    api = catalogued
    files, other = (f"http://{host}:{api.provider.port}" for host in (FILES, OTHER))
    api.provider.routes |= {
        "/base/far": moved(f"{files}/1"),
        **{f"/{n}": moved(f"/{n + 1}") for n in range(1, 9)},
        "/base/away": moved(f"{other}/1"),
        "/base/later": moved(f"{files}/out"),
        "/out": moved(f"{other}/1"),
        "/base/user": moved(f"http://a@{FILES}:{api.provider.port}/1"),
    }
    for path, method, location, hops in (
        ("/far", "GET", f"{files}/4", 4),
        ("/away", "GET", f"{other}/1", 1),
        ("/later", "GET", f"{other}/1", 2),
        ("/user", "GET", f"http://a@{FILES}:{api.provider.port}/1", 1),
        ("/far", "POST", f"{files}/1", 1),
    ):
        api.provider.requests.clear()
        given = api.call(path, method)
        assert (given.status_code, given.headers["location"]) == (302, location), path
        assert given.headers["evergrant-source"] == "provider"
        assert len(api.provider.requests) == hops


def test_an_answer_that_says_the_token_has_ended_is_like_a_401(catalogued: Api) -> None:
    api = catalogued
    api.user = someone()
    api.connect(refreshToken="rt-0")
    api.provider.routes["/token"] = {"access_token": "newer-token", "expires_in": 3600, "refresh_token": "rt-1"}

    def by_token(request: Any) -> bytes:
        good = request.headers["authorization"] == "Bearer newer-token"
        return json_answer(200, {"good": True} if good else {"error": "token_expired"})

    api.provider.answers(by_token)
    given = api.call("/a", "POST", json={"a": 1})
    assert given.json() == {"good": True}
    assert [request.json for request in api.provider.requests_to("/base/a")] == [{"a": 1}] * 2
    # Whatever it says: no second refresh within the minute, and the answer is the API's.
    api.provider.answers((200, {"error": "token_expired"}))
    assert api.call("/a").json() == {"error": "token_expired"}
    for data in ({"error": "rate_limited"}, ["token_expired"]):
        api.provider.answers((200, data))
        assert api.call("/a").json() == data
    assert len(api.provider.requests_to("/token")) == 1


def test_a_long_body_is_sent_again_by_its_caller_also_where_the_answer_was_200(catalogued: Api) -> None:
    api = catalogued
    api.user = someone()
    api.connect(refreshToken="rt-0")
    api.provider.routes["/token"] = {"access_token": "newer-token", "expires_in": 3600}
    api.provider.answers((200, {"error": "token_expired"}))
    given = api.call("/a", "PUT", content=b"x" * 300_000)
    assert (given.status_code, given.headers["evergrant-retry-now"]) == (200, "1")
    assert given.json() == {"error": "token_expired"}
    assert len(api.provider.requests_to("/base/a")) == 1


def test_a_kept_connection_that_the_api_closes_is_tried_again_once_where_that_is_safe(api: Api) -> None:
    served: dict[Any, int] = {}

    def closes_at_the_second(request: Any) -> bytes | None:
        served[request.writer] = served.get(request.writer, 0) + 1
        if served[request.writer] == 1:
            return json_answer(200, {})
        request.writer.close()
        return None

    api.provider.answers(closes_at_the_second)
    for method, headers, status in (
        ("GET", {}, 200),
        ("PUT", {}, 200),
        ("POST", {"Idempotency-Key": "k"}, 200),
        ("POST", {}, 504),
    ):
        served.clear()
        api.provider.answers(json_answer(200, {}))  # whatever was kept before, one connection has had a request now
        assert api.call("/first").status_code == 200
        served.update(dict.fromkeys([api.provider.requests[-1].writer], 1))
        api.provider.answers(closes_at_the_second)
        api.provider.requests.clear()
        given = api.call("/a", method, headers=headers, content=b"x" if method != "GET" else None)
        assert given.status_code == status, (method, given.text)
        assert len(api.provider.requests) == (1 if status == 504 else 2), method
        assert status != 504 or refused(given, 504, "E111515")

    def closes(request: Any) -> None:
        request.writer.close()

    api.provider.answers(json_answer(200, {}))
    api.call("/first")
    api.provider.requests.clear()
    api.provider.answers(closes)
    assert refused(api.call("/a"), 504, "E111515")  # once more, and no more than that
    assert len(api.provider.requests) == 2
    api.provider.requests.clear()
    assert refused(api.call("/a"), 504, "E111515")  # not over a new connection, where the API has had it
    assert len(api.provider.requests) == 1
    wait_until(lambda: any(one.attempts == 2 and one.code == "E111515" for one in api.logged()), "the log tells it")


def test_where_nothing_was_sent_any_method_may_be_repeated_and_the_answer_says_when(api: Api) -> None:
    api.app_id = api.here.backend.new_app(api.provider.registration("none"))
    api.set_app(api_base_url="http://127.0.0.1:9")
    api.connect()
    given = api.call("/a", "POST", json={})
    assert refused(given, 503, "E111505"), given.text
    assert int(given.headers["retry-after"]) > 0
    assert given.headers["evergrant-source"] == "evergrant"
