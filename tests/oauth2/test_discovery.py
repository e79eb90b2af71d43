"""Metadata discovery: where it looks, what it believes, and what it tells the operator."""

from typing import Any

import pytest

from evergrant.errors import InvalidValue
from evergrant.oauth2.discovery import discover
from evergrant.oauth2.transport import Http, open_http
from tests.infra.scripted import ScriptedProvider, answer, json_answer

OIDC = "/.well-known/openid-configuration"
RFC8414 = "/.well-known/oauth-authorization-server"


def document(provider: ScriptedProvider, issuer: str, **members: Any) -> bytes:
    return json_answer(
        200,
        {
            "issuer": issuer,
            "authorization_endpoint": f"{provider.url}/authorize",
            "token_endpoint": f"{provider.url}/token",
            **members,
        },
    )


async def test_everything_that_is_used_is_read(http: Http, provider: ScriptedProvider) -> None:
    provider.routes[OIDC] = document(
        provider,
        provider.url,
        revocation_endpoint=f"{provider.url}/revoke",
        userinfo_endpoint=f"{provider.url}/userinfo",
        jwks_uri=f"{provider.url}/jwks",
        registration_endpoint=f"{provider.url}/register",
        token_endpoint_auth_methods_supported="odd",
        authorization_response_iss_parameter_supported=True,
    )
    found = await discover(http, provider.url)
    assert found.issuer == provider.url
    assert found.token_endpoint == f"{provider.url}/token"
    assert found.revocation_endpoint == f"{provider.url}/revoke"
    assert found.jwks_uri == f"{provider.url}/jwks"
    assert found.token_endpoint_auth_methods_supported == ()
    assert found.authorization_response_iss_parameter_supported


@pytest.mark.parametrize(
    ("given", "served", "issuer"),
    [
        ("", OIDC, ""),
        ("/", OIDC, "/"),
        ("", RFC8414, ""),
        ("/realms/a", f"/realms/a{OIDC}", "/realms/a"),
        ("/realms/a/", f"/realms/a{OIDC}", "/realms/a"),
        ("/realms/a", f"{RFC8414}/realms/a", "/realms/a"),
        ("/realms/a", f"{OIDC}/realms/a", "/realms/a"),
        (OIDC, OIDC, ""),
        (OIDC, OIDC, "/"),
        (f"/realms/a{OIDC}", f"/realms/a{OIDC}", "/realms/a"),
        (f"{RFC8414}/realms/a", f"{RFC8414}/realms/a", "/realms/a"),
        (f"/realms/a{RFC8414}", f"/realms/a{RFC8414}", "/realms/a"),
        (f"/common/v2.0{OIDC}", f"/common/v2.0{OIDC}", "/{tenantid}/v2.0"),
    ],
)
async def test_an_issuer_or_a_document_url_leads_to_the_document(
    http: Http, provider: ScriptedProvider, given: str, served: str, issuer: str
) -> None:
    provider.routes[served] = document(provider, provider.url + issuer)
    assert (await discover(http, provider.url + given)).issuer == provider.url + issuer


@pytest.mark.parametrize(
    "issuer", ["https://accounts.other.example", "{}.evil.example", "{}/realms/b", "{}/{{tenantid}}/v2.0", ""]
)
async def test_a_document_of_another_issuer_is_not_believed(
    http: Http, provider: ScriptedProvider, issuer: str
) -> None:
    provider.routes[OIDC] = document(provider, issuer.format(provider.url))
    with pytest.raises(InvalidValue, match="for another issuer than its address says") as invalid:
        await discover(http, provider.url)
    assert [entry["field"] for entry in invalid.value.details["fields"]] == ["discoveryUrl"]


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"token_endpoint": None}, "has no token_endpoint"),
        ({"authorization_endpoint": 5}, "has no authorization_endpoint"),
        ({"token_endpoint": "http://provider.example/token"}, "its token_endpoint must start with https://"),
    ],
)
async def test_an_endpoint_that_could_not_be_called_is_named(
    http: Http, provider: ScriptedProvider, members: dict[str, object], problem: str
) -> None:
    provider.routes[OIDC] = document(provider, provider.url, **members)
    with pytest.raises(InvalidValue, match=problem):
        await discover(http, provider.url)


@pytest.mark.parametrize("name", ["revocation_endpoint", "userinfo_endpoint", "jwks_uri", "registration_endpoint"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        None,
        False,
        5,
        [],
        {},
        "none",
        "http://provider.example/x",
        "https://169.254.169.254/",
        "https://u:p@a.example/",
    ],
)
async def test_an_optional_endpoint_that_is_none_is_as_if_left_out(
    http: Http, provider: ScriptedProvider, name: str, value: object
) -> None:
    provider.routes[OIDC] = document(provider, provider.url, **{name: value})
    found = await discover(http, provider.url)
    assert (getattr(found, name), found.token_endpoint) == ("", f"{provider.url}/token")


async def test_the_next_document_is_read_where_one_cannot_be_used(http: Http, provider: ScriptedProvider) -> None:
    provider.routes[OIDC] = document(provider, "https://accounts.other.example")
    provider.routes[RFC8414] = document(provider, provider.url)
    assert (await discover(http, provider.url)).issuer == provider.url


async def test_an_issuer_may_be_written_with_capitals_and_its_port(http: Http, provider: ScriptedProvider) -> None:
    provider.routes[OIDC] = document(provider, provider.url.replace("http://", "HTTP://"))
    assert (await discover(http, provider.url)).token_endpoint == f"{provider.url}/token"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["{}/meta", "/meta", "meta", "/meta#x"])
async def test_a_redirect_on_the_same_origin_is_followed_once(
    http: Http, provider: ScriptedProvider, status: int, where: str
) -> None:
    provider.routes[OIDC] = answer(status, Location=where.format(provider.url))
    provider.routes["/meta"] = provider.routes["/.well-known/meta"] = document(provider, provider.url)
    assert (await discover(http, provider.url)).issuer == provider.url
    provider.routes["/meta"] = provider.routes["/.well-known/meta"] = answer(status, Location="/meta-2")
    provider.routes["/meta-2"] = document(provider, provider.url)
    with pytest.raises(InvalidValue, match=f"which leads to {provider.url}/meta-2: enter that"):
        await discover(http, provider.url)


@pytest.mark.parametrize(
    "where",
    ["https://elsewhere.example/meta", "http://127.0.0.2:1/meta", "https://169.254.169.254/meta", "https://[::1"],
)
async def test_a_redirect_to_another_origin_is_told_and_not_followed(
    http: Http, provider: ScriptedProvider, where: str
) -> None:
    provider.routes[OIDC] = answer(301, Location=f"{where}?session=1")
    told = f"which leads to {where}: enter that" if "[" not in where else "there is no metadata at"
    with pytest.raises(InvalidValue) as raised:
        await discover(http, provider.url)
    assert told in raised.value.message
    assert "session" not in raised.value.message


async def test_every_address_that_was_tried_is_named(http: Http, provider: ScriptedProvider) -> None:
    with pytest.raises(InvalidValue) as raised:
        await discover(http, f"{provider.url}/tenant")
    for path in (f"/tenant{OIDC}", f"{RFC8414}/tenant", f"{OIDC}/tenant", f"/tenant{RFC8414}"):
        assert f"{provider.url}{path} (status 404)" in raised.value.message


@pytest.mark.parametrize(
    "reply",
    [
        answer(404),
        answer(302, Location="/"),
        answer(500),
        answer(200, b"<html>", "text/html"),
        answer(200, b'{"issuer":', "application/json"),
        json_answer(200, ["issuer"]),
    ],
)
async def test_an_address_without_metadata_is_the_operators_to_mend(
    http: Http, provider: ScriptedProvider, reply: bytes
) -> None:
    provider.answers(reply)
    with pytest.raises(InvalidValue, match=r"discoveryUrl: there is no metadata at .*; check the address"):
        await discover(http, provider.url)


async def test_an_unreachable_or_refused_address_is_the_operators_to_mend(provider: ScriptedProvider) -> None:
    async with open_http(()) as http:
        with pytest.raises(InvalidValue, match="must start with https"):
            await discover(http, provider.url)
        with pytest.raises(InvalidValue, match=r"nowhere\.invalid cannot be reached"):
            await discover(http, "https://nowhere.invalid")
