"""Dynamic client registration (RFC 7591): what is sent, and what of the answer is believed."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from evergrant.errors import EgressRefused, UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2.dynamic_registration import RegisteredClient, register
from evergrant.oauth2.transport import Http
from tests.conftest import Clock
from tests.infra.scripted import ScriptedProvider, answer, json_answer

BACK = "https://evergrant.example/v1/outbound/oauth/callback"


async def registered(http: Http, provider: ScriptedProvider, members: Any, *, asked: str = "none") -> RegisteredClient:
    provider.routes["/register"] = json_answer(201, members)
    return await register(http, f"{provider.url}/register", redirect_uri=BACK, client_name="Notes", auth_method=asked)


async def test_a_request_says_what_rfc_7591_asks_for(http: Http, provider: ScriptedProvider) -> None:
    provider.routes["/register"] = json_answer(201, {"client_id": "c"})
    await register(
        http,
        f"{provider.url}/register",
        redirect_uri=BACK,
        client_name="Notizen für alle",
        scopes=["a", "b"],
        auth_method="client_secret_basic",
    )
    (request,) = provider.requests
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")
    assert json.loads(request.body) == {
        "client_name": "Notizen für alle",
        "redirect_uris": [BACK],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "client_secret_basic",
        "scope": "a b",
    }


async def test_what_the_server_decides_counts_and_not_the_wish(
    http: Http, provider: ScriptedProvider, clock: Clock
) -> None:
    ends = int(clock.now.timestamp()) + 60
    client = await registered(
        http,
        provider,
        {
            "client_id": "c",
            "client_secret": "s",
            "client_secret_expires_at": ends,
            "token_endpoint_auth_method": "client_secret_basic",
        },
        asked="client_secret_post",
    )
    assert client.client_id == "c"
    assert client.client_secret is not None
    assert client.client_secret.get_secret_value() == "s"
    assert client.auth_method == "client_secret_basic"
    assert client.expires_at == datetime.fromtimestamp(ends, UTC)
    assert "'s'" not in repr(client)


async def test_a_method_that_is_not_named_is_the_one_that_was_asked_for(http: Http, provider: ScriptedProvider) -> None:
    with_secret = {"client_id": "c", "client_secret": "s"}
    assert (await registered(http, provider, with_secret, asked="client_secret_post")).auth_method == (
        "client_secret_post"
    )
    assert (await registered(http, provider, {"client_id": "c"}, asked="client_secret_post")).auth_method == "none"


async def test_a_secret_that_is_not_to_be_used_is_not_kept(http: Http, provider: ScriptedProvider) -> None:
    members = {"client_id": "c", "client_secret": "s", "token_endpoint_auth_method": "none"}
    client = await registered(http, provider, members)
    assert (client.client_secret, client.auth_method) == (None, "none")


@pytest.mark.parametrize("expires_at", [0, None, -5, "soon", True, 10**18, 1_000_000, float("1e300")])
async def test_an_end_that_nobody_can_mean_is_none(http: Http, provider: ScriptedProvider, expires_at: Any) -> None:
    # Among them an end that is past already: believed, it would cost a registration at each connect.
    members = {"client_id": "c", "client_secret": "s", "client_secret_expires_at": expires_at}
    assert (await registered(http, provider, members, asked="client_secret_post")).expires_at is None


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"client_id": ""},
        {"client_id": 5},
        {"client_id": "a\nb"},
        {"client_id": "x" * 3000},
        {"client_id": "c", "client_secret": ["s"]},
        {"client_id": "c", "client_secret": "a\r\nb", "token_endpoint_auth_method": "client_secret_post"},
        {"client_id": "c", "client_secret": "s", "token_endpoint_auth_method": "private_key_jwt"},
        {"client_id": "c", "client_secret": "s", "token_endpoint_auth_method": ["none"]},
        {"client_id": "c", "token_endpoint_auth_method": "client_secret_post"},
        {"client_id": "c", "redirect_uris": ["https://evil.example/"]},
    ],
)
async def test_a_registration_that_cannot_be_used_is_refused(
    http: Http, provider: ScriptedProvider, members: Any
) -> None:
    with pytest.raises(UpstreamRejected) as raised:
        await registered(http, provider, members)
    assert raised.value.message.startswith("Notes: ")


@pytest.mark.parametrize("body", [b"<html>registered</html>", b"[]", b"{", b"", b"\xff\xfe"])
async def test_an_answer_that_is_no_object_is_for_later(http: Http, provider: ScriptedProvider, body: bytes) -> None:
    provider.routes["/register"] = answer(201, body, "application/json")
    with pytest.raises(UpstreamUnavailable):
        await register(http, f"{provider.url}/register", redirect_uri=BACK, client_name="N", auth_method="none")


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_refusal_is_told_in_the_servers_words(http: Http, provider: ScriptedProvider, status: int) -> None:
    said = {"error": "invalid_client_metadata", "error_description": "only\x00 friends"}
    provider.routes["/register"] = json_answer(status, said)
    with pytest.raises(UpstreamRejected) as raised:
        await register(http, f"{provider.url}/register", redirect_uri=BACK, client_name="N", auth_method="none")
    assert raised.value.provider_error == "invalid_client_metadata"
    assert "only friends" in raised.value.message


@pytest.mark.parametrize("status", [302, 429, 500, 503])
async def test_trouble_there_is_for_later(http: Http, provider: ScriptedProvider, status: int) -> None:
    provider.routes["/register"] = json_answer(status, {})
    with pytest.raises(UpstreamUnavailable):
        await register(http, f"{provider.url}/register", redirect_uri=BACK, client_name="N", auth_method="none")
    assert len(provider.requests) == 1, "never sent twice, and no redirect is followed"


async def test_a_registration_endpoint_that_has_moved_says_where(http: Http, provider: ScriptedProvider) -> None:
    provider.routes["/register"] = json_answer(308, {}, Location="/v2/register")
    with pytest.raises(UpstreamRejected, match="has moved to /v2/register"):
        await register(http, f"{provider.url}/register", redirect_uri=BACK, client_name="N", auth_method="none")
    assert len(provider.requests) == 1


@pytest.mark.parametrize("url", ["http://192.0.2.1/register", "https://10.0.0.1/register", "https://169.254.169.254/"])
async def test_an_address_that_may_not_be_called_is_not(http: Http, url: str) -> None:
    with pytest.raises(EgressRefused):
        await register(http, url, redirect_uri=BACK, client_name="N", auth_method="none")
