"""What is asked after the tokens have come: it may fail in any way, and the tokens are as before."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from evergrant.oauth2 import follow_up
from evergrant.oauth2.quirks import Capture, ContextRequest, Quirks
from evergrant.oauth2.registration import ClientRegistration
from evergrant.oauth2.token_response import TokenResponse
from evergrant.oauth2.transport import Http
from tests.conftest import Clock
from tests.infra.scripted import Request, ScriptedProvider, answer, json_answer

TOKENS = TokenResponse(SecretStr("at-1"), "Bearer", None, None, None, None)
BAD = [json_answer(401, {"error": "no"}), json_answer(200, {"active": False, "exp": 99999999999}), answer(200, b"<p>")]


async def test_introspection_tells_when_a_token_ends(
    http: Http, client: ClientRegistration, provider: ScriptedProvider, clock: Clock
) -> None:
    quirks = Quirks(introspection_endpoint=f"{provider.url}/introspect", default_expires_in=900)
    provider.answers(json_answer(200, {"active": True, "exp": int((clock.now + timedelta(hours=2)).timestamp())}))
    assert (await follow_up.with_lifetime(http, client, TOKENS, quirks)).expires_in == 7200
    sent = provider.requests[0].form
    assert (sent["token"], sent["client_id"], sent["client_secret"]) == ("at-1", "client-1", "client-secret-1")
    stated = replace(TOKENS, expires_in=60)
    assert await follow_up.with_lifetime(http, client, stated, quirks) == stated
    assert len(provider.requests) == 1


@pytest.mark.parametrize("answered", BAD)
async def test_where_introspection_tells_nothing_the_usual_lifetime_counts(
    http: Http, client: ClientRegistration, provider: ScriptedProvider, answered: bytes
) -> None:
    provider.answers(answered)
    quirks = Quirks(introspection_endpoint=f"{provider.url}/introspect", default_expires_in=900)
    assert (await follow_up.with_lifetime(http, client, TOKENS, quirks)).expires_in == 900
    none = replace(quirks, default_expires_in=None)
    assert (await follow_up.with_lifetime(http, client, TOKENS, none)).expires_in is None


CAPTURES = (Capture("cloudId", "context", "/0/id"), Capture("name", "context", "/0/name"))


async def test_a_context_request_finds_what_api_calls_need(
    http: Http, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    wanted = ContextRequest(f"{provider.url}/sites", "GET", {"Authorization": "Bearer {access_token}"})
    provider.answers(json_answer(200, [{"id": "c-1"}, {"id": "c-2"}]))
    quirks = Quirks(context_request=wanted, captures=CAPTURES)
    assert await follow_up.context(http, client, SecretStr("at-1"), quirks) == {"cloudId": "c-1"}
    assert provider.requests[0].headers["authorization"] == "Bearer at-1"
    graphql = replace(wanted, method="POST", json_body='{"query": "{ me { id } }"}')
    await follow_up.context(http, client, SecretStr("at-1"), replace(quirks, context_request=graphql))
    request = provider.requests[1]
    assert (request.headers["content-type"], json.loads(request.body)) == (
        "application/json",
        {"query": "{ me { id } }"},
    )


@pytest.mark.parametrize("answered", [*BAD, json_answer(200, []), json_answer(200, {"0": 1}), answer(200, b"[[[[")])
async def test_a_context_request_that_fails_brings_nothing(
    http: Http, client: ClientRegistration, provider: ScriptedProvider, answered: bytes
) -> None:
    provider.answers(answered)
    quirks = Quirks(context_request=ContextRequest(f"{provider.url}/sites"), captures=CAPTURES)
    assert await follow_up.context(http, client, SecretStr("at-1"), quirks) == {}


async def test_a_provider_that_hangs_does_not_hold_the_tokens_up(
    http: Http, client: ClientRegistration, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(request: Request) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(follow_up, "SECONDS", 0.05)
    provider.answers(hang)
    quirks = Quirks(
        introspection_endpoint=f"{provider.url}/introspect",
        context_request=ContextRequest(f"{provider.url}/sites"),
        captures=CAPTURES,
    )
    async with asyncio.timeout(10):  # half of what the transport itself would wait for one of them
        assert await follow_up.with_lifetime(http, client, TOKENS, quirks) == TOKENS
        assert await follow_up.context(http, client, SecretStr("at-1"), quirks) == {}
