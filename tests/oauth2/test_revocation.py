"""Revoking in the providers' own ways; what RFC 7009 says is in test_token_endpoint."""

import base64
import json
from typing import Any

import pytest
from pydantic import SecretStr

from evergrant.errors import UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2.quirks import Quirks, RevocationStyle
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.revocation import revoke
from evergrant.oauth2.transport import Http
from tests.infra.scripted import Request, ScriptedProvider, answer, json_answer

DONE = json_answer(200, {"ok": True})


@pytest.fixture
def revoking(http: Http, client: ClientRegistration, provider: ScriptedProvider) -> Any:
    async def run(
        *answers: bytes, path: str = "/{dc}/{client_id}/revoke", token_text: str = "token-1", **style: Any
    ) -> Request:
        provider.answers(*(answers or (DONE,)))
        quirks = Quirks(values={"dc": "eu"}, revocation=RevocationStyle(provider.url + path, **style))
        token = SecretStr(token_text)
        await revoke(http, ServerMetadata(), client, token=token, token_type_hint="access_token", quirks=quirks)
        return provider.requests[-1]

    return run


async def test_a_bearer_revokes_itself(revoking: Any) -> None:
    request = await revoking(auth="bearer")
    assert (request.method, request.path, request.body) == ("POST", "/eu/client-1/revoke", b"")
    assert request.headers["authorization"] == "Bearer token-1"


async def test_the_token_can_be_named_in_json_by_a_delete_with_basic(revoking: Any) -> None:
    request = await revoking(
        answer(204), method="DELETE", format="json", auth="basic", params={"access_token": "{token}"}
    )
    assert (request.method, json.loads(request.body)) == ("DELETE", {"access_token": "token-1"})
    assert base64.b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"client-1:client-secret-1"


async def test_it_can_be_all_in_the_query_and_without_a_client(revoking: Any) -> None:
    request = await revoking(format="query", auth="none", params={"token": "{token}"})
    assert request.query == {"token": "token-1"}
    assert request.body == b""


async def test_the_client_can_authenticate_as_at_the_token_endpoint(revoking: Any) -> None:
    request = await revoking(params={"t": "{token}"})
    assert request.form == {"t": "token-1", "client_id": "client-1", "client_secret": "client-secret-1"}


async def test_headers_can_say_who_we_are_and_which_token(revoking: Any) -> None:
    headers = {"Authorization": "Client {client_secret}", "X-Token": "{token}", "X-Version": "2022-06-28"}
    request = await revoking(auth="none", headers=headers, format="json", params={"id": "{client_id}"})
    assert request.headers["authorization"] == "Client client-secret-1"
    assert (request.headers["x-token"], request.headers["x-version"]) == ("token-1", "2022-06-28")
    assert json.loads(request.body) == {"id": "client-1"}


async def test_the_token_can_be_part_of_the_path_and_leads_nowhere_else(revoking: Any) -> None:
    style = {"path": "/tokens/{token}/invalidate", "token_text": "a/../b?c=(( d", "method": "GET", "auth": "none"}
    request = await revoking(**style)
    assert (request.method, request.path) == ("GET", "/tokens/a%2F..%2Fb%3Fc%3D%28%28%20d/invalidate")
    refused = json_answer(400, {"error": "no", "error_description": "no a%2F..%2Fb%3Fc%3D%28%28%20d"})
    with pytest.raises(UpstreamRejected) as caught:
        await revoking(refused, **style)
    assert "a%2F" not in caught.value.message


async def test_a_token_that_is_gone_already_is_revoked(revoking: Any) -> None:
    await revoking(json_answer(200, {"ok": False, "error": "token_revoked"}))
    await revoking(json_answer(404, {"message": "Not Found"}), method="DELETE")


@pytest.mark.parametrize(
    ("answered", "error"),
    [
        (json_answer(200, {"ok": False, "error": "not_allowed"}), UpstreamRejected),
        (json_answer(404, {"message": "Not Found"}), UpstreamRejected),
        (json_answer(503, {}), UpstreamUnavailable),
    ],
)
async def test_other_refusals_are_told_apart(revoking: Any, answered: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await revoking(answered)


async def test_a_renamed_parameter_is_renamed_at_the_revocation_endpoint_too(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    provider.answers(answer(200))
    quirks = Quirks(token_names={"client_id": "client_key", "token_type_hint": ""})
    await revoke(http, server, client, token=SecretStr("t"), token_type_hint="access_token", quirks=quirks)
    assert provider.requests[0].form == {
        "token": "t",
        "client_key": "client-1",
        "client_secret": "client-secret-1",
    }


async def test_the_revocation_endpoint_sees_the_headers_of_the_token_requests(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    provider.answers(answer(200))
    quirks = Quirks(token_headers={"user-agent": "server:{client_id}:1.0"})
    await revoke(http, server, client, token=SecretStr("t"), token_type_hint="access_token", quirks=quirks)
    assert provider.requests[0].headers["user-agent"] == "server:client-1:1.0"
