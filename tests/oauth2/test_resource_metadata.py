"""From a protected resource to its authorization server (RFC 9728), and who is believed on the way."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from evergrant.errors import InvalidValue
from evergrant.oauth2 import challenge, protected_resource
from evergrant.oauth2.protected_resource import discover_either
from evergrant.oauth2.transport import Http, open_http
from tests.infra.scripted import Request, ScriptedProvider, answer, json_answer
from tests.infra.waiting import PATIENCE
from tests.oauth2.network import LOOPBACK

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


@pytest.mark.parametrize(
    "named",
    ["{}/other", "{}/mc", "{}/mcp/x", "{}/mcp?a=b", "{}/mcp#a", "https://evil.example/mcp", "{}.evil.example/mcp", 5],
)
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


@pytest.mark.parametrize("name", ["token_endpoint", "authorization_endpoint"])
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


# what servers do in their own ways


@pytest.mark.parametrize("named", ["{}", "{}/", "{}/mcp/", "{}/a", "HTTP://{host}/a/mcp"])
async def test_a_resource_may_be_named_by_its_origin_or_a_part_of_its_path(
    http: Http, provider: ScriptedProvider, named: str
) -> None:
    a_server(provider)
    path = "/a/mcp" if "/a" in named else "/mcp"
    resource = named.format(provider.url, host=provider.url.removeprefix("http://"))
    a_resource(provider, path, resource=resource)
    assert (await discover_either(http, provider.url + path)).resource == resource


@pytest.mark.parametrize("place", [PRM, f"/mcp{PRM}", f"{PRM}/mcp"])
@pytest.mark.parametrize("asked", ["/mcp", "/mcp/"])
@pytest.mark.parametrize("challenge", ["", "Bearer"])
async def test_the_metadata_is_found_without_a_challenge_that_names_it(
    http: Http, provider: ScriptedProvider, place: str, asked: str, challenge: str
) -> None:
    a_server(provider)
    a_resource(provider, "/mcp", at=place)
    if challenge:
        provider.routes[asked] = answer(401, www_authenticate=challenge)
    found = await discover_either(http, provider.url + asked, resource_first=True)
    assert found.resource == f"{provider.url}/mcp"


@pytest.mark.parametrize("to_get", [405, 404, 406, 200, 400, 500])
@pytest.mark.parametrize("to_post", [401, 403])
async def test_a_challenge_to_a_post_will_do(http: Http, provider: ScriptedProvider, to_get: int, to_post: int) -> None:
    a_server(provider)
    a_resource(provider, "/mcp", at="/meta")

    def mcp(request: Request) -> bytes:
        if request.method == "GET":
            return answer(to_get)
        return answer(to_post, www_authenticate=f'Bearer resource_metadata="{provider.url}/meta"')

    provider.routes["/mcp"] = mcp
    assert (await discover_either(http, f"{provider.url}/mcp")).resource == f"{provider.url}/mcp"
    (posted,) = [request for request in provider.requests_to("/mcp") if request.method == "POST"]
    assert posted.json["method"] == "initialize"
    assert posted.headers["accept"] == "application/json, text/event-stream"
    assert "authorization" not in posted.headers


async def test_a_stream_that_never_ends_holds_nothing_up(
    provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(challenge, "ASK_SECONDS", 0.2)
    a_server(provider)
    a_resource(provider, "/mcp", at="/meta")

    async def mcp(request: Request) -> bytes | None:
        if request.method == "GET":
            request.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hello\n\n")
            return None
        return answer(401, www_authenticate=f"Bearer resource_metadata={provider.url}/meta")

    provider.routes["/mcp"] = mcp
    async with open_http(LOOPBACK, seconds=PATIENCE * 10) as http:
        found = await discover_either(http, f"{provider.url}/mcp", resource_first=True)
    assert found.resource == f"{provider.url}/mcp"


async def test_of_several_challenge_headers_each_is_read(http: Http, provider: ScriptedProvider) -> None:
    a_server(provider)
    a_resource(provider, "/mcp", at="/meta")
    headers = f'WWW-Authenticate: Bearer resource_metadata="{provider.url}/meta"\r\nWWW-Authenticate: Basic realm="x"'
    provider.routes["/mcp"] = f"HTTP/1.1 401 X\r\n{headers}\r\ncontent-length: 0\r\n\r\n".encode()
    assert (await discover_either(http, f"{provider.url}/mcp")).resource == f"{provider.url}/mcp"


async def test_what_the_challenge_names_comes_before_what_the_path_says(http: Http, provider: ScriptedProvider) -> None:
    a_server(provider, "/one")
    a_server(provider, "/two")
    a_resource(provider, "/mcp", servers=[f"{provider.url}/one"])
    a_resource(provider, "/mcp", at="/meta", servers=[f"{provider.url}/two"])
    provider.routes["/mcp"] = answer(401, www_authenticate=f'Bearer resource_metadata="{provider.url}/meta"')
    found = await discover_either(http, f"{provider.url}/mcp", resource_first=True)
    assert found.server.issuer == f"{provider.url}/two"
    del provider.routes["/meta"]
    found = await discover_either(http, f"{provider.url}/mcp", resource_first=True)
    assert found.server.issuer == f"{provider.url}/one"


async def test_the_challenges_scopes_stand_in_where_the_metadata_has_none(
    http: Http, provider: ScriptedProvider
) -> None:
    a_server(provider)
    a_resource(provider, "/mcp")
    provider.routes["/mcp"] = answer(401, www_authenticate='Bearer scope="notes:read notes:write"')
    assert (await discover_either(http, f"{provider.url}/mcp")).scopes == ("notes:read", "notes:write")
    a_resource(provider, "/mcp", scopes_supported=["notes"])
    assert (await discover_either(http, f"{provider.url}/mcp")).scopes == ("notes",)


async def test_a_resource_that_moved_by_a_slash_is_followed(http: Http, provider: ScriptedProvider) -> None:
    a_server(provider)
    a_resource(provider, "/mcp/", at="/meta")
    provider.routes["/mcp"] = answer(307, Location="/mcp/")
    provider.routes["/mcp/"] = answer(401, www_authenticate='Bearer resource_metadata="/meta"')
    assert (await discover_either(http, f"{provider.url}/mcp")).resource == f"{provider.url}/mcp/"


async def test_the_first_server_that_can_be_used_counts(http: Http, provider: ScriptedProvider) -> None:
    a_server(provider, "/good")
    servers = ["http://192.0.2.1", f"{provider.url}/gone", f"{provider.url}/good/", provider.url]
    a_resource(provider, "/mcp", servers=servers)
    assert (await discover_either(http, f"{provider.url}/mcp")).server.issuer == f"{provider.url}/good"


async def test_the_hosts_document_of_another_resource_is_no_obstacle(http: Http, provider: ScriptedProvider) -> None:
    a_resource(provider, "/other", at=PRM)
    assert f"{provider.url}/other" in await refusal(http, f"{provider.url}/mcp")
    a_server(provider)
    found = await discover_either(http, f"{provider.url}/mcp", resource_first=True)
    assert (found.server.issuer, found.resource) == (provider.url, "")


# servers of before there was such metadata


async def test_an_older_mcp_server_is_its_own_authorization_server(http: Http, provider: ScriptedProvider) -> None:
    a_server(provider)
    provider.routes["/v1/mcp"] = answer(401, www_authenticate='Bearer scope="notes"')
    found = await discover_either(http, f"{provider.url}/v1/mcp")
    assert (found.server.issuer, found.resource, found.scopes) == (provider.url, "", ("notes",))


async def test_an_address_that_demands_no_token_does_not_stand_for_its_host(
    http: Http, provider: ScriptedProvider
) -> None:
    a_server(provider)
    with pytest.raises(InvalidValue, match="there is no metadata at"):
        await discover_either(http, f"{provider.url}/realms/mistyped")


async def test_default_addresses_are_taken_where_a_token_endpoint_answers_as_one(
    http: Http, provider: ScriptedProvider
) -> None:
    provider.routes["/mcp"] = answer(401)
    provider.routes["/token"] = answer(400, b"<html>", "text/html")
    assert f"{provider.url}/token (no token endpoint)" in await refusal(http, f"{provider.url}/mcp")
    provider.routes["/token"] = json_answer(400, {"error": "invalid_request"})
    server = (await discover_either(http, f"{provider.url}/mcp")).server
    assert (server.authorization_endpoint, server.registration_endpoint) == (
        f"{provider.url}/authorize",
        f"{provider.url}/register",
    )
    assert provider.requests_to("/register") == [], "nobody is registered by asking"


async def test_every_address_that_was_tried_is_in_the_message(http: Http, provider: ScriptedProvider) -> None:
    provider.routes["/a/mcp"] = answer(405)
    told = await refusal(http, f"{provider.url}/a/mcp")
    places = [f"{PRM}/a/mcp", f"/a/mcp{PRM}", PRM, f"{AS}/a/mcp", AS, "/.well-known/openid-configuration", "/token"]
    for path in places:
        assert f"{provider.url}{path} (" in told, path
    assert f"{provider.url}/a/mcp (status 405 to GET, status 405 to POST)" in told


async def test_a_search_ends(http: Http, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protected_resource, "SECONDS", 0.2)
    provider.answers(lambda request: asyncio.sleep(PATIENCE))
    assert "took longer than" in await refusal(http, f"{provider.url}/mcp")
