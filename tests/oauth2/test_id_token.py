"""Who connected, by an id_token: one that says something else ends the trip, one that proves nothing names nobody."""

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from pydantic import SecretStr

from evergrant.errors import ConnectFailed
from evergrant.oauth2.id_token import Subject, identify
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.transport import Http, open_http
from tests.infra.scripted import ScriptedProvider, answer, json_answer
from tests.oauth2.signing import EC, ED, NOW, RSA, STRANGER, base64url, by_secret, claims, jwks, signed, unsigned

AT = int(NOW.timestamp())
MINUTE, HOUR = 60, 3600
ANOTHER = RSAKey.generate_key(2048, {"kid": "rsa-2"})


@pytest.fixture(autouse=True)
def _keys(provider: ScriptedProvider) -> None:
    provider.routes["/jwks"] = jwks(RSA, EC, ED)


@pytest.fixture
def told(http: Http, server: ServerMetadata, client: ClientRegistration) -> "Told":
    return Told(http, server, client)


class Told:
    """What is known of somebody by an id_token."""

    def __init__(self, http: Http, server: ServerMetadata, client: ClientRegistration) -> None:
        self.http, self.server, self.client = http, server, client

    async def by(
        self, token: SecretStr, *, nonce: str | None = "nonce-1", pkce: bool = True, later: int = 0
    ) -> Subject:
        now = NOW + timedelta(seconds=later)
        return await identify(self.http, self.server, self.client, token, nonce=nonce, pkce=pkce, now=now)

    async def nobody_by(self, token: SecretStr, **trip: Any) -> str:
        """Check that nobody is named, and return why."""
        found = await self.by(token, **trip)
        assert found.sub == ""
        assert found.problem.startswith("Example sent an id_token that cannot be verified: ")
        return found.problem

    async def refused(self, token: SecretStr, **trip: Any) -> str:
        """Check that the trip ends, and return why."""
        with pytest.raises(ConnectFailed) as failed:
            await self.by(token, **trip)
        assert failed.value.error == "invalid_id_token"
        return failed.value.message


@pytest.mark.parametrize(
    ("key", "alg"), [(RSA, "RS256"), (RSA, "PS256"), (EC, "ES256"), (ED, "EdDSA"), (ED, "Ed25519")]
)
async def test_a_verified_token_names_its_subject(told: Told, key: Any, alg: str) -> None:
    assert await told.by(signed(key, alg, key.kid)) == Subject("user-1")


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["client-1"]},
        {"aud": ["client-1", "api"], "azp": "client-1"},
        {"exp": AT - 9 * MINUTE},
        {"iat": AT + 9 * MINUTE},
        {"nbf": AT + 9 * MINUTE},
        {"iat": AT + 5 * MINUTE, "exp": AT + 10 * MINUTE},
        {"exp": str(AT + 300), "iat": str(AT)},
        {"exp": AT + 300.5},
    ],
)
async def test_minutes_between_clocks_and_times_as_text_are_fine(told: Told, changes: dict[str, Any]) -> None:
    assert await told.by(signed(**changes)) == Subject("user-1")


@pytest.mark.parametrize("pkce", [True, False])
async def test_without_a_nonce_in_the_request_none_is_compared(told: Told, pkce: bool) -> None:
    assert await told.by(signed(nonce=...), nonce=None, pkce=pkce) == Subject("user-1")


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"iss": "https://other.example"}, "another issuer"),
    ({"iss": "https://provider.example/"}, "another issuer"),
    ({"iss": ["https://provider.example"]}, "another issuer"),
    ({"aud": "client-2"}, "another client"),
    ({"aud": ["client-2"]}, "another client"),
    ({"aud": 7}, "another client"),
    ({"aud": ["client-1", "api"], "azp": "api"}, "several clients"),
    ({"exp": AT - HOUR - 1}, "expired"),
    ({"exp": str(AT - 2 * HOUR)}, "expired"),
    ({"nonce": "nonce-2"}, "another trip"),
    ({"nonce": ["nonce-1"]}, "another trip"),
]


@pytest.mark.parametrize(("changes", "why"), CONTRADICTIONS)
async def test_a_token_that_says_something_else_ends_the_trip(told: Told, changes: dict[str, Any], why: str) -> None:
    assert why in await told.refused(signed(**changes))


@pytest.mark.parametrize(("changes", "why"), CONTRADICTIONS)
async def test_it_ends_the_trip_also_where_its_signature_cannot_be_checked(
    told: Told, provider: ScriptedProvider, changes: dict[str, Any], why: str
) -> None:
    provider.routes["/jwks"] = answer(503)
    for token in (signed(**changes), unsigned(**changes), by_secret(b"another", **changes)):
        assert why in await told.refused(token)


async def test_without_pkce_a_missing_nonce_ends_the_trip(told: Told) -> None:
    assert "another trip" in await told.refused(signed(nonce=...), pkce=False)
    assert "another trip" in await told.refused(signed(nonce=""), pkce=False)


@pytest.mark.parametrize("kid", ["rsa-1", None])
async def test_a_wrong_signature_by_a_key_that_is_there_ends_the_trip(told: Told, kid: str | None) -> None:
    assert "signature is wrong" in await told.refused(signed(STRANGER, kid=kid))


async def test_an_altered_token_ends_the_trip(told: Told) -> None:
    head, _, signature = signed().get_secret_value().split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(sub="admin")).encode()).rstrip(b"=").decode()
    assert "signature is wrong" in await told.refused(SecretStr(f"{head}.{body}.{signature}"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"nonce": ...}, "to which trip"),
        ({"nonce": None}, "to which trip"),
        ({"iss": ...}, "who issued it"),
        ({"aud": ...}, "who issued it"),
        ({"aud": []}, "who issued it"),
        ({"aud": ["client-1", "api"]}, "several clients"),
        ({"exp": AT - 11 * MINUTE}, "expired"),
        ({"exp": AT - HOUR}, "expired"),
        ({"exp": ...}, "when it expires"),
        ({"exp": "tomorrow"}, "exp is not a time"),
        ({"exp": True}, "exp is not a time"),
        ({"exp": float("inf")}, "exp is not a time"),
        ({"exp": float("nan")}, "exp is not a time"),
        ({"exp": 10**400}, "exp is not a time"),
        ({"iat": ...}, "when it was issued"),
        ({"iat": "today"}, "iat is not a time"),
        ({"iat": AT + 11 * MINUTE}, "from the future"),
        ({"nbf": AT + HOUR}, "from the future"),
        ({"nbf": True}, "nbf is not a time"),
        ({"sub": ""}, "names no subject"),
        ({"sub": 5}, "names no subject"),
        ({"sub": "x" * 256}, "names no subject"),
        ({"sub": "a\x00b"}, "names no subject"),
        ({"sub": ...}, "names no subject"),
    ],
)
async def test_a_token_that_leaves_something_open_names_nobody(told: Told, changes: dict[str, Any], why: str) -> None:
    assert why in await told.nobody_by(signed(**changes))


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
async def test_a_symmetric_signature_counts_where_the_client_secret_made_it(
    told: Told, provider: ScriptedProvider, alg: str
) -> None:
    assert await told.by(by_secret(b"client-secret-1", alg)) == Subject("user-1")
    told.server = replace(told.server, jwks_uri="")  # which such providers have not
    assert await told.by(by_secret(b"client-secret-1", alg)) == Subject("user-1")
    assert provider.requests == []
    for another in (b"another", b"", RSA.as_pem(private=False)):
        assert "not with the client secret" in await told.nobody_by(by_secret(another, alg))


@pytest.mark.parametrize("secret", [None, SecretStr("")])
async def test_where_there_is_no_secret_no_symmetric_signature_counts(told: Told, secret: SecretStr | None) -> None:
    told.client = replace(told.client, client_secret=secret)
    assert "not with the client secret" in await told.nobody_by(by_secret(b""))


@pytest.mark.parametrize("alg", ["none", "nOnE", "XX99", "RS1", ""])
async def test_no_signature_and_an_unknown_one_are_no_proof(told: Told, alg: str) -> None:
    assert "algorithm is not accepted" in await told.nobody_by(unsigned(alg))


@pytest.mark.parametrize(
    "text", ["", "x", "a.b", "a.b.c", "a.b.c.d.e", "é.b.c", "e30.e30.e30.e30", "W10.e30.e30", "bnVsbA.e30.e30"]
)
async def test_what_is_no_signed_token_names_nobody(told: Told, text: str) -> None:
    assert await told.nobody_by(SecretStr(text))


async def test_a_deeply_nested_token_names_nobody(told: Told) -> None:
    deep = base64url(b'{"alg":"RS256","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}")
    assert await told.nobody_by(SecretStr(f"{deep}.{deep}.x"))


async def test_without_a_key_id_each_key_that_fits_is_tried(told: Told, provider: ScriptedProvider) -> None:
    provider.routes["/jwks"] = jwks(ANOTHER, RSA, STRANGER, EC)
    assert await told.by(signed(kid=None)) == Subject("user-1")
    stranger = RSAKey.generate_key(2048)
    assert "signature is wrong" in await told.refused(signed(stranger, kid=None))


async def test_a_key_without_an_id_may_be_the_one_that_is_named(told: Told, provider: ScriptedProvider) -> None:
    nameless = {name: value for name, value in RSA.as_dict(private=False).items() if name != "kid"}
    provider.routes["/jwks"] = json_answer(200, {"keys": [nameless]})
    assert await told.by(signed()) == Subject("user-1")
    assert "no key that it names" in await told.nobody_by(signed(STRANGER))


async def test_a_key_that_is_replaced_under_its_old_id_is_found_after_a_minute(
    told: Told, provider: ScriptedProvider
) -> None:
    provider.routes["/jwks"] = jwks(STRANGER)
    assert "signature is wrong" in await told.refused(signed())
    provider.routes["/jwks"] = jwks(RSA)
    for _ in range(3):
        assert "signature is wrong" in await told.refused(signed())
    assert len(provider.requests) == 1
    assert await told.by(signed(), later=MINUTE) == Subject("user-1")


@pytest.mark.parametrize(
    "reply",
    [
        answer(500),
        answer(200, b"<html>"),
        answer(302),
        json_answer(200, {}),
        json_answer(200, {"keys": []}),
        json_answer(200, {"keys": "none"}),
        json_answer(200, {"keys": [{"kty": "RSA", "kid": "rsa-1"}, "odd", None]}),
        jwks(ANOTHER),
        jwks(EC),
    ],
)
async def test_keys_that_are_not_there_or_cannot_be_read_leave_the_tokens(
    told: Told, provider: ScriptedProvider, reply: bytes
) -> None:
    provider.routes["/jwks"] = reply
    assert await told.nobody_by(signed())


@pytest.mark.parametrize("jwks_uri", ["https://169.254.169.254/", "http://127.0.0.1:9/jwks", "nonsense"])
async def test_keys_at_an_address_that_cannot_be_called_leave_the_tokens(told: Told, jwks_uri: str) -> None:
    async with open_http(()) as told.http:
        told.server = replace(told.server, jwks_uri=jwks_uri)
        assert await told.nobody_by(signed())


@pytest.mark.parametrize("lacking", ["issuer", "jwks_uri"])
async def test_an_app_without_issuer_or_keys_checks_nothing(told: Told, lacking: str) -> None:
    changes: dict[str, Any] = {lacking: ""}
    told.server = replace(told.server, **changes)
    assert "no issuer or no jwksUrl" in await told.nobody_by(signed(nonce="nonce-2"))


async def test_a_templated_issuer_takes_the_tenant_of_the_token(told: Told) -> None:
    told.server = replace(told.server, issuer="https://login.example/{tenantid}/v2.0")
    assert await told.by(signed(iss="https://login.example/t-1/v2.0", tid="t-1")) == Subject("user-1")
    for changes in (
        {"iss": "https://login.example/t-1/v2.0", "tid": "t-2"},
        {"iss": "https://login.example/a/b/v2.0", "tid": "a/b"},
        {"iss": "https://login.example/t-1/v2.0"},
    ):
        assert "another issuer" in await told.refused(signed(**changes))
