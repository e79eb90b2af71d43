"""What providers and receivers answer is bounded before it is decoded, and after; in headers too.

Whoever is called may be an attacker: an app of somebody's own, a webhook's receiver, a provider that was taken over.
"""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from evergrant.errors import UpstreamUnavailable
from evergrant.oauth2 import incoming
from evergrant.oauth2.token_response import TokenResponse, parse_body
from evergrant.oauth2.transport import Http, open_http
from evergrant.settings import Settings
from tests.infra.certificates import certificate_for
from tests.infra.hostile import CHUNKED_HEAD, GZIP_HEAD, HEAD, TOKENS, bomb, chunked, compressed, drip, floods
from tests.infra.installation import SCOPES, Installation, installation
from tests.infra.scripted import Request, ScriptedProvider, json_answer, serving
from tests.oauth2.network import LOOPBACK, TLS, Names

TAKEN = 16 * 1024 * 1024
"""What may go out of a server before it hears that nobody listens: 2 MiB, and what the system buffers."""


@pytest.mark.parametrize("kind", floods())
async def test_an_attacker_whose_answer_never_ends_is_not_listened_to_for_long(
    http: Http, provider: ScriptedProvider, kind: str
) -> None:
    flood = floods()[kind]
    provider.answers(flood)
    with pytest.raises(UpstreamUnavailable) as refused:
        await http.post_json(f"{provider.url}/token", {})
    assert "did not answer in time" not in refused.value.message, "it must end by what came, not by the clock"
    assert flood.most_sent < TAKEN
    provider.answers(json_answer(200, {"control": True}))
    assert (await http.post_json(f"{provider.url}/token", {})).body == b'{"control": true}'


async def test_an_attacker_whose_answer_comes_in_ten_thousands_of_pieces_is_given_up(
    http: Http, provider: ScriptedProvider
) -> None:
    body = json.dumps({"access_token": "a" * 60_000}).encode()
    provider.answers(CHUNKED_HEAD + chunked(body, 1))
    with pytest.raises(UpstreamUnavailable, match="parts"):
        await http.get_json(f"{provider.url}/")
    provider.answers(CHUNKED_HEAD + chunked(body, 10))
    assert (await http.get_json(f"{provider.url}/")).body == body


@pytest.mark.parametrize(
    "body",
    [bomb(200), compressed(bomb(200)), compressed(compressed(compressed(bomb(50)))), compressed(b"") * 20_000],
    ids=["a bomb", "a bomb in a wrapper", "a bomb in wrappers", "thousands of members"],
)
async def test_an_attacker_whose_small_answer_unfolds_to_a_large_one_fills_no_memory(
    http: Http, provider: ScriptedProvider, body: bytes
) -> None:
    provider.answers(GZIP_HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    try:
        got = await http.get_json(f"{provider.url}/")
    except UpstreamUnavailable:
        pass
    else:
        assert len(got.body) <= incoming.MAX_BODY_BYTES
    whole = compressed(b'{"a":"%b"}' % (b"x" * 900_000))
    provider.answers(GZIP_HEAD + b"content-length: %d\r\n\r\n" % len(whole) + whole)
    assert len((await http.get_json(f"{provider.url}/")).body) > 900_000


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"{" + b",".join(b'"%d":1' % number for number in range(90_000)) + b"}",
        b'{"access_token":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'"' + b"\\u0000" * 150_000 + b'"',
        b'{"expires_in":' + b"9" * 900_000 + b"}",
        b"&".join([b"access_token=a"] * 60_000),
    ],
    ids=["lists", "objects", "keys", "a deep token", "escapes", "digits", "fields"],
)
async def test_an_attacker_whose_answer_is_nested_or_has_a_million_members_breaks_nothing(
    http: Http, provider: ScriptedProvider, body: bytes
) -> None:
    provider.answers(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    got = await http.get_json(f"{provider.url}/")
    read = parse_body(got.body, got.headers["content-type"])
    assert read is None or "access_token" not in read or read["access_token"] in (None, "a") or len(str(read)) < 1_000
    assert parse_body(TOKENS, "application/json") == json.loads(TOKENS)


async def test_an_attacker_who_drips_an_answer_holds_up_nobody_and_is_given_up(provider: ScriptedProvider) -> None:
    for dripping in (
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1_000,
        HEAD + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000,
    ):
        provider.routes["/slow"] = drip(dripping, 0.02)
        provider.routes["/token"] = json_answer(200, {"control": True})
        async with open_http(LOOPBACK, tls=TLS, seconds=0.5) as http:
            slow = [asyncio.create_task(http.get_json(f"{provider.url}/slow")) for _ in range(8)]
            for _ in range(20):
                assert (await http.get_json(f"{provider.url}/token")).status == 200
            for outcome in await asyncio.gather(*slow, return_exceptions=True):
                assert isinstance(outcome, UpstreamUnavailable)
                assert "did not answer in time" in outcome.message


@pytest.mark.parametrize("with_tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("at_once", [True, False], ids=["in one write", "in two"])
async def test_a_server_that_sends_a_second_answer_does_not_answer_the_next_users_request_with_it(
    tmp_path: Path, with_tls: bool, at_once: bool
) -> None:
    server_tls, client_tls = certificate_for("good.example", tmp_path)
    smuggled = json_answer(200, {"access_token": "the attacker's"})
    sent = threading.Event()

    async def answers(request: Request) -> None:
        own = json_answer(200, {"access_token": request.target})
        if at_once:
            request.writer.write(own + smuggled)
        else:
            request.writer.write(own)
            request.writer.write(smuggled)
        sent.set()

    with serving(ScriptedProvider(), tls=server_tls if with_tls else None) as provider:
        provider.answers(answers)
        base = f"{'https' if with_tls else 'http'}://good.example:{provider.port}"
        async with open_http(LOOPBACK, resolve=Names(good_example=[["127.0.0.1"]]), tls=client_tls) as http:
            for user in ("/alice", "/bob", "/carol"):
                assert json.loads((await http.get_json(f"{base}{user}")).body) == {"access_token": user}
                await asyncio.to_thread(sent.wait)  # until all of it is on its way
                sent.clear()
        assert provider.connections == 3
        provider.answers(lambda request: json_answer(200, {"access_token": request.target}))
        async with open_http(LOOPBACK, resolve=Names(good_example=[["127.0.0.1"]]), tls=client_tls) as http:
            for user in ("/alice", "/bob"):
                await http.get_json(f"{base}{user}")
        assert provider.connections == 4, "what ends where it says it ends keeps its connection"


@pytest.mark.parametrize("behind", [b"\r\n", b"\0", b"}", b"HTTP/1.1 200 OK\r\n", b"x" * 300_000])
@pytest.mark.parametrize("framed", [True, False], ids=["content-length", "chunked"])
async def test_bytes_behind_an_answer_cost_neither_its_tokens_nor_those_of_the_next(
    http: Http, provider: ScriptedProvider, behind: bytes, framed: bool
) -> None:
    whole = (
        HEAD + b"content-length: %d\r\n\r\n" % len(TOKENS) + TOKENS if framed else CHUNKED_HEAD + chunked(TOKENS, 50)
    )
    provider.answers(whole + behind)
    for _ in range(3):
        got = await http.post_json(f"{provider.url}/token", {})
        assert TokenResponse.parse(got.body, "application/json").access_token.get_secret_value() == "at-1"


@pytest.mark.parametrize("size", [1, 7, 1_000], ids=lambda size: f"chunks of {size}")
async def test_a_clumsy_server_that_sends_tokens_in_tiny_chunks_with_large_headers_is_understood(
    http: Http, provider: ScriptedProvider, size: int
) -> None:
    body = json.dumps({"access_token": "a" * 4_000}).encode()
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n" * 3
    head = CHUNKED_HEAD.replace(b"\r\n\r\n", b"\r\nx-policy: " + b"p" * 60_000 + b"\r\n\r\n")
    provider.answers(hints + head + chunked(body, size))
    assert (await http.get_json(f"{provider.url}/")).body == body
    large = b'{"keys": "%b"}' % (b"k" * 1_000_000)
    provider.answers(CHUNKED_HEAD + chunked(large, 512))
    assert (await http.get_json(f"{provider.url}/")).body == large


def test_while_attackers_answer_without_end_others_get_their_answers(settings: Settings) -> None:
    with installation(settings) as here, serving(ScriptedProvider()) as attacker:
        here.connected()
        all_floods = floods()
        attacker.routes.update({f"/{number}": flood for number, flood in enumerate(all_floods.values())})
        for number in range(len(all_floods)):
            here.backend.create_app(attacker.registration(f"app-{number}", tokenUrl=f"{attacker.url}/{number}"))
        asyncio.run(_others_are_answered(here, len(all_floods)))
        assert max(flood.most_sent for flood in all_floods.values()) < TAKEN


async def _others_are_answered(here: Installation, attackers: int) -> None:
    def upload(number: int) -> int:
        fields: dict[str, Any] = {"refreshToken": "rt", "scopes": ["files"], "verifyRefresh": True}
        body = {"appId": f"app-{number}", "userId": "mallory", **fields}
        return here.backend.post("app/user/oauthtoken/upload", body).status_code

    under_attack = [asyncio.create_task(asyncio.to_thread(upload, number)) for number in range(attackers)]
    for _ in range(10):
        assert (await asyncio.to_thread(here.backend.http.get, "/healthz")).status_code == 200
        assert (await asyncio.to_thread(here.backend.fetch, "alice", scopes=SCOPES)).status_code == 200
    assert set(await asyncio.gather(*under_attack)) <= {502, 503}
