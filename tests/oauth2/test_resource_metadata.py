"""From a protected resource to its authorization server (RFC 9728), and who is believed on the way."""

from collections.abc import Sequence
from typing import Any

import pytest

from evergrant.errors import InvalidValue
from evergrant.oauth2.protected_resource import discover_either
from evergrant.oauth2.transport import Http
from tests.infra.scripted import ScriptedProvider, answer, json_answer

PRM = "/.well-known/oauth-protected-resource"
AS = "/.well-known/oauth-authorization-server"


def a_server(provider: ScriptedProvider, path: str = "", **members: Any) -> None:
    """Serve the metadata of an authorization server."""
    provider.routes[AS + path] = json_answer(
        200,
        {
            "issuer": provider.url + path,
            "authorization_endpoint": f"{provider.url}/authorize",
            "token_endpoint": f"{provider.url}/token",
            "registration_endpoint": f"{provider.url}/register",
            **members,
        },
    )


def a_resource(
    provider: ScriptedProvider, path: str, *, at: str = "", servers: Sequence[str] | None = None, **m: Any
) -> None:
    """Serve the metadata of a resource, at its usual place or another."""
    members = {"resource": provider.url + path, "authorization_servers": [provider.url], **m}
    if servers is not None:
        members["authorization_servers"] = list(servers)
    provider.routes[at or PRM + path] = json_answer(200, members)


async def refusal(http: Http, url: str) -> str:
    with pytest.raises(InvalidValue) as raised:
        await discover_either(http, url, resource_first=True)
    assert [entry["field"] for entry in raised.value.details["fields"]] == ["discoveryUrl"]
    return raised.value.message


@pytest.mark.parametrize("path", ["/mcp", "", "/", "/a/b/mcp", "/mcp/"])
@pytest.mark.parametrize("resource_first", [True, False])
async def test_a_resource_leads_to_its_server(
    http: Http, provider: ScriptedProvider, path: str, resource_first: bool
) -> None:
    a_server(provider, "/tenant", client_id_metadata_document_supported=True)
    where = PRM + ("" if path == "/" else path)
    a_resource(provider, path, at=where, servers=[f"{provider.url}/tenant"], scopes_supported=["notes", 5])
    found = await discover_either(http, provider.url + path, resource_first=resource_first)
    assert found.resource == provider.url + path
    assert found.scopes == ("notes",)
    assert found.server.issuer == f"{provider.url}/tenant"
    assert found.server.registration_endpoint == f"{provider.url}/register"
    assert found.server.client_id_metadata_document_supported


async def test_the_address_of_the_metadata_itself_will_do(http: Http, provider: ScriptedProvider) -> None:
    a_server(provider)
    a_resource(provider, "/mcp")
    assert (await discover_either(http, f"{provider.url}{PRM}/mcp")).resource == f"{provider.url}/mcp"


async def test_a_resource_that_answers_401_says_where_its_metadata_is(http: Http, provider: ScriptedProvider) -> None:
    a_server(provider)
    a_resource(provider, "/mcp", at="/elsewhere")
    challenge = f'Bearer error="invalid_token", resource_metadata="{provider.url}/elsewhere"'
    provider.routes["/mcp"] = answer(401, www_authenticate=challenge)
    assert (await discover_either(http, f"{provider.url}/mcp")).resource == f"{provider.url}/mcp"
    provider.routes["/mcp"] = answer(200, www_authenticate=challenge)
    with pytest.raises(InvalidValue):
        await discover_either(http, f"{provider.url}/mcp")


async def test_where_both_are_found_the_issuer_wins_unless_a_resource_is_looked_for(
    http: Http, provider: ScriptedProvider
) -> None:
    a_server(provider)
    a_resource(provider, "")
    assert (await discover_either(http, provider.url)).resource == ""
    assert (await discover_either(http, provider.url, resource_first=True)).resource == provider.url


async def test_an_issuer_is_found_where_a_resource_was_looked_for(http: Http, provider: ScriptedProvider) -> None:
    a_server(provider)
    found = await discover_either(http, provider.url, resource_first=True)
    assert (found.server.issuer, found.resource) == (provider.url, "")


@pytest.mark.parametrize("named", ["{}/other", "{}", "{}/mcp/", "https://evil.example/mcp", "{}.evil.example/mcp", 5])
async def test_metadata_of_another_resource_is_not_believed(http: Http, provider: ScriptedProvider, named: Any) -> None:
    a_server(provider)
    resource = named.format(provider.url) if isinstance(named, str) else named
    a_resource(provider, "/mcp", resource=resource)
    assert "another resource" in await refusal(http, f"{provider.url}/mcp")


async def test_metadata_of_another_resource_is_not_believed_from_a_challenge_either(
    http: Http, provider: ScriptedProvider
) -> None:
    a_server(provider)
    a_resource(provider, "/other", at="/elsewhere")
    provider.routes["/mcp"] = answer(401, www_authenticate=f'Bearer resource_metadata="{provider.url}/elsewhere"')
    assert f"{provider.url}/other" in await refusal(http, f"{provider.url}/mcp")


async def test_a_server_of_another_name_is_not_believed(http: Http, provider: ScriptedProvider) -> None:
    a_server(provider, "/tenant", issuer="https://accounts.other.example")
    a_resource(provider, "/mcp", servers=[f"{provider.url}/tenant"])
    assert "another issuer" in await refusal(http, f"{provider.url}/mcp")


@pytest.mark.parametrize("servers", [[], [5], "https://one.example"])
async def test_metadata_without_a_server_leads_nowhere(http: Http, provider: ScriptedProvider, servers: Any) -> None:
    a_resource(provider, "/mcp", authorization_servers=servers)
    assert "names no authorization server" in await refusal(http, f"{provider.url}/mcp")


@pytest.mark.parametrize(
    "issuer",
    ["http://192.0.2.1", "https://10.0.0.1", "https://169.254.169.254/latest", "https://[::1]", "file:///etc/passwd"],
)
async def test_metadata_cannot_send_us_to_an_address_that_may_not_be_called(
    http: Http, provider: ScriptedProvider, issuer: str
) -> None:
    a_resource(provider, "/mcp", servers=[issuer])
    assert "its authorization server" in await refusal(http, f"{provider.url}/mcp")
    provider.routes["/mcp"] = answer(401, www_authenticate=f'Bearer resource_metadata="{issuer}"')
    del provider.routes[f"{PRM}/mcp"]
    await refusal(http, f"{provider.url}/mcp")


@pytest.mark.parametrize("name", ["registration_endpoint", "token_endpoint", "authorization_endpoint"])
async def test_nor_can_the_servers_metadata(http: Http, provider: ScriptedProvider, name: str) -> None:
    a_server(provider, **{name: "http://192.0.2.1/register"})
    a_resource(provider, "/mcp")
    assert name in await refusal(http, f"{provider.url}/mcp")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"resource": ', b"{}", b"null"])
async def test_what_is_no_metadata_is_as_good_as_none(http: Http, provider: ScriptedProvider, body: bytes) -> None:
    provider.routes[f"{PRM}/mcp"] = answer(200, body, "application/json")
    assert "check the address" in await refusal(http, f"{provider.url}/mcp")


async def test_a_server_that_publishes_nothing_is_told(http: Http, provider: ScriptedProvider) -> None:
    a_resource(provider, "/mcp", servers=[f"{provider.url}/gone"])
    assert "its authorization server cannot be used" in await refusal(http, f"{provider.url}/mcp")
