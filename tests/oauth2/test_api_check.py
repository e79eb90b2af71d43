"""The check call: a refused credential, a bad minute and a wrong address are three different things."""

from dataclasses import replace

import pytest

from evergrant.errors import EvergrantError, GrantRefused, UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2.api_check import ApiCall, Expected, check_call
from evergrant.oauth2.transport import Http
from tests.conftest import Clock
from tests.infra.scripted import ScriptedProvider, answer, json_answer

PAGE = answer(200, b"<html>Welcome</html>", "text/html")
OK = Expected(ok=("/ok", "/data"))
EXPIRED = Expected(expired=((400, "/code", ("7",)), (200, "/error", ())))


def call_to(provider: ScriptedProvider) -> ApiCall:
    headers = {"Authorization": "Bearer secret-1", "X-Version": "3"}
    return ApiCall("GET", f"{provider.url}/me?full=1", headers, {"key": "secret 2"}, secrets=("secret-1", "secret 2"))


async def test_a_credential_that_works_is_sent_once_where_the_entry_says(
    http: Http, provider: ScriptedProvider
) -> None:
    provider.answers(json_answer(200, {"id": 1}), json_answer(200, {"data": []}))
    assert await check_call(http, call_to(provider)) == 200
    [sent] = provider.requests
    assert (sent.method, sent.target) == ("GET", "/me?full=1&key=secret+2")
    assert (sent.headers["authorization"], sent.headers["x-version"]) == ("Bearer secret-1", "3")
    assert await check_call(http, replace(call_to(provider), method="POST", body='{"query": 1}'), OK) == 200
    assert (provider.requests[1].body, provider.requests[1].headers["content-type"]) == (
        b'{"query": 1}',
        "application/json",
    )


@pytest.mark.parametrize(
    ("answered", "expected", "kind", "code"),
    [
        (json_answer(401, {}), Expected(), GrantRefused, "http_401"),
        (json_answer(403, {"message": "no secret-1 here"}), Expected(), GrantRefused, "http_403"),
        (json_answer(200, {"ok": False}), OK, GrantRefused, "not_ok"),
        (json_answer(200, {"ok": "no"}), replace(OK, ok_values=("true",)), GrantRefused, "not_ok"),
        (json_answer(400, {"code": 7}), EXPIRED, GrantRefused, "http_400"),
        (json_answer(200, {"error": "secret 2 has ended"}), EXPIRED, GrantRefused, "http_200"),
        (json_answer(400, {"code": 8}), EXPIRED, UpstreamRejected, "http_400"),
        (json_answer(404, {}), Expected(), UpstreamRejected, "http_404"),
        (answer(302, location="https://b.example/secret-1"), Expected(), UpstreamRejected, "http_302"),
        (PAGE, Expected(), UpstreamRejected, "no_api"),
        (PAGE, OK, UpstreamRejected, "no_api"),
        (json_answer(500, {"error": "secret-1"}), Expected(), UpstreamUnavailable, "http_500"),
    ],
)
async def test_what_an_answer_means_and_no_secret_is_in_it(
    http: Http, provider: ScriptedProvider, answered: bytes, expected: Expected, kind: type[EvergrantError], code: str
) -> None:
    provider.answers(answered)
    with pytest.raises(EvergrantError) as caught:
        await check_call(http, call_to(provider), expected, who="Example")
    assert (type(caught.value), caught.value.details["providerError"]) == (kind, code)
    assert caught.value.message.startswith("Example ")
    assert ("Redirects are not followed" in caught.value.message) == (code == "http_302")
    assert "secret" not in caught.value.message.replace("[redacted]", "")
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (429, {"retry-after": "30"}, 30),
        (429, {"x-reset-in": "7"}, 7),
        (403, {"x-left": "0", "x-reset-at": "{now}"}, 90),
    ],
)
async def test_too_many_calls_say_nothing_of_the_credential(
    http: Http, provider: ScriptedProvider, clock: Clock, status: int, headers: dict[str, str], wait: int
) -> None:
    at = str(int(clock.now.timestamp()) + 90)
    expected = Expected(wait_after=("X-Reset-In",), wait_until=("X-Reset-At",), remaining=("X-Left",))
    provider.answers(json_answer(status, {}, **{name: text.format(now=at) for name, text in headers.items()}))
    with pytest.raises(UpstreamUnavailable) as caught:
        await check_call(http, call_to(provider), expected)
    assert caught.value.retry_after == wait


async def test_what_no_header_can_have_is_never_sent(http: Http, provider: ScriptedProvider) -> None:
    with pytest.raises(GrantRefused):
        await check_call(http, replace(call_to(provider), headers={"Authorization": "Bearer a\r\nX-Other: b"}))
    assert provider.requests == []
