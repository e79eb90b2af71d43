"""APIs, models and agents that mean ill: where a redirect leads, what goes round a rule, what brings a token out."""

import asyncio
import gzip
import zlib
from typing import Any

import httpx2
import pytest

from evergrant import clock
from evergrant.broker.calls.answers import as_result
from evergrant.broker.calls.asked import CallAnswer
from evergrant.broker.calls.bases import api_of
from evergrant.broker.runtime.principal import Principal
from evergrant.broker.runtime.unwritten_calls import Call
from tests.calls.conftest import Api
from tests.infra.people import refused, someone
from tests.infra.scripted import answer

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def test_no_redirect_or_link_of_an_api_leads_to_another_app_or_out_of_the_proxy(api: Api) -> None:
    base = f"{api.provider.url}/base"
    for place in (f"{base}/../../other/x", f"{base}/%2e%2e/%2E./v1/mgmt", f"{base}//a", f"{base}/a%5cb", "http://["):
        api.provider.answers(answer(302, b"", location=place, link=f'<{place}>; rel="next"'))
        given = api.call("/a")
        assert (given.status_code, given.headers["location"]) == (302, place)
        assert given.headers["link"] == f'<{place}>; rel="next"'


ROUND_RULES: list[dict[str, Any]] = [
    {"path": "/a?method=delete"},
    {"path": "/a?x=1&httpMethod=PATCH"},
    {"path": "/a?%24http_method=post"},
    {"path": "/a", "headers": {"X-Original-URL": "/admin"}},
    {"path": "/a", "headers": {"X-Rewrite-Url": "/admin"}},
    {"path": "/a", "method": "POST", "headers": FORM, "content": b"a=1&%5Fmethod=delete"},
    {"path": "/a", "method": "POST", "files": {"_method": (None, "DELETE")}},
]


def test_what_a_server_would_take_for_another_request_is_refused(api: Api) -> None:
    for asked in ROUND_RULES:
        given = api.call(**asked)
        assert refused(given, 400, "E011003"), (asked, given.text)
    assert api.provider.requests == []
    for asked in ({"path": "/a?method=photos.search"}, {"path": "/a", "method": "POST", "data": {"method": "card"}}):
        assert api.call(**asked).status_code == 200, asked


def test_a_compressed_answer_comes_whole_to_who_may_not_fetch(api: Api) -> None:
    bare = zlib.compressobj(wbits=-15)
    for coding, packed in (
        ("gzip", gzip.compress(b"one ") + gzip.compress(b"two")),
        ("deflate", bare.compress(b"one two") + bare.flush()),
    ):
        api.provider.answers(answer(200, packed, content_encoding=coding))
        assert api.call("/a").content == b"one two"


def test_the_token_that_an_api_refused_does_not_come_back_either(api: Api) -> None:
    api.user = someone()
    old = api.connect(refreshToken="rt-0")
    api.provider.routes["/token"] = {"access_token": "newer-token", "expires_in": 3600}
    api.provider.answers(answer(401, f"not {old}".encode()))
    given = api.call("/a", "PUT", content=b"x" * 300_000)  # too long to be sent again
    assert (given.headers["evergrant-retry-now"], given.content) == ("1", b"not " + b"*" * len(old))


def test_an_endpoint_that_mints_tokens_of_one_connection_is_nobodys_to_call(api: Api) -> None:
    entry = {"template_id": "github-app", "token_url": "https://github.com/login/oauth/access_token"}
    api.set_app(**entry, api_base_url="", api_further={})
    known = api.run(lambda broker: api_of(broker, api.here.backend.project_id, api.app_id))
    own = known.base("", {"installation_id": "7"})
    assert own.is_own_endpoint(["/app/installations/7/access_tokens"])


def test_what_callers_write_long_does_not_fill_the_memory_until_it_is_logged() -> None:
    nobody = Principal("p", "k", frozenset(), frozenset(), (), None)
    call = Call.begun(nobody, kind="call", at=clock.now(), method="X" * 9999, base="b" * 9999, path="/p" * 9999)
    assert len(call.method + call.base + call.path) < 3000


@pytest.mark.parametrize("charset", ["zlib", "bz2", "punycode", "rot13", "no-such"])
def test_an_api_names_no_codec_that_is_more_than_a_way_to_write_text(charset: str) -> None:
    async def body() -> Any:
        yield zlib.compress(b"x" * 1_000_000)

    kind = ((b"content-type", f"text/plain; charset={charset}".encode()),)
    result = asyncio.run(as_result(CallAnswer(status=200, headers=kind, body=body())))
    assert len(result["text"]) < 2000


def test_a_session_reaches_the_proxy_and_nothing_that_hands_out_or_changes(api: Api) -> None:
    key = api.session_key(connect=True)
    mine = {"Authorization": f"Bearer {key}"}

    def post(path: str, **body: Any) -> httpx2.Response:
        return api.http.post(path, json=body, headers=mine)

    outbound = "/v1/mgmt/outbound"
    whose = {"appId": api.app_id, "userId": api.user}
    for path, body in (
        ("app/user/token/latest", whose),
        ("app/user/token", {**whose, "scopes": ["files"]}),
        ("app/user/oauthtoken/upload", {**whose, "accessToken": "x"}),
        ("session/create", {"userId": api.user, "apps": [{"appId": api.app_id}], "agent": {"id": "b", "name": "B"}}),
        ("session/revoke", {"userId": api.user}),
        ("approval/decide", {"id": "x" * 22, "decision": "approve"}),
        ("accounts/session", {"userId": api.user}),
    ):
        assert post(f"{outbound}/{path}", **body).status_code == 403, path
    for path in ("sessions", "calls", "approvals", "apps"):
        assert api.http.get(f"{outbound}/{path}", headers=mine).status_code == 403, path


def test_who_may_fetch_but_not_this_app_gets_no_echoed_token_and_nobody_the_apps_secret(api: Api) -> None:
    mine = {"Authorization": api.here.backend.http.headers["authorization"]}
    secret = "of-the-app-8b1c7f"
    api.app_id = api.here.backend.new_app(api.provider.registration("kept"), clientSecret=secret)
    api.set_app(api_base_url=api.provider.url, api_headers={"X-Secret": "{client_secret}"})
    api.token = api.connect()
    api.provider.answers(lambda request: answer(200, str(sorted(request.headers.items())).encode()))
    said = api.call("/a", headers=mine).text
    assert api.token in said
    assert api.provider.requests[-1].headers["x-secret"] == secret
    assert secret not in said
    policy = {"appId": api.app_id, "action": "fetch", "scopes": ["other"]}
    assert api.here.backend.post("policies", policy).status_code == 200
    assert api.token not in api.call("/a", headers=mine).text
