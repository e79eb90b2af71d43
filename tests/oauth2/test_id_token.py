"""Who connected: forged, stale and foreign id_tokens are refused; keys are fetched at a bounded rate."""

import asyncio
import base64
import hashlib
import hmac
import json
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey
from pydantic import SecretStr

from evergrant.errors import ConnectFailed, EgressRefused, UpstreamUnavailable
from evergrant.oauth2.id_token import InvalidToken, fetch_userinfo_subject, validate_id_token, verified_claims
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.transport import Http, open_http
from tests.infra.scripted import ScriptedProvider, answer, json_answer

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
RSA = RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig"})
EC = ECKey.generate_key("P-256", {"kid": "ec-1", "use": "sig"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed-1"})
STRANGER = RSAKey.generate_key(2048, {"kid": "rsa-1"})


def jwks(*keys: RSAKey | ECKey | OKPKey) -> bytes:
    return json_answer(200, {"keys": [key.as_dict(private=False) for key in keys]})


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    at = int(NOW.timestamp())
    full = {
        "iss": "https://provider.example",
        "aud": "client-1",
        "sub": "user-1",
        "iat": at,
        "exp": at + 300,
        "nonce": "nonce-1",
        **changes,
    }
    return {name: value for name, value in full.items() if value is not ...}


def signed(key: Any = RSA, alg: str = "RS256", kid: str | None = "rsa-1", **changes: Any) -> SecretStr:
    header = {"alg": alg} | ({"kid": kid} if kid else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # of the name EdDSA, which providers still use
        return SecretStr(jwt.encode(header, claims(**changes), key, algorithms=[alg]))


@pytest.fixture(autouse=True)
def _keys(provider: ScriptedProvider) -> None:
    provider.routes["/jwks"] = jwks(RSA, EC, ED)


async def subject_of(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    id_token: SecretStr,
    *,
    nonce: str | None = "nonce-1",
    now: datetime = NOW,
) -> str:
    return await validate_id_token(http, server, client, id_token, nonce=nonce, now=now)


@pytest.mark.parametrize(
    ("key", "alg"), [(RSA, "RS256"), (RSA, "PS256"), (EC, "ES256"), (ED, "EdDSA"), (ED, "Ed25519")]
)
async def test_a_valid_token_names_its_subject(
    http: Http, server: ServerMetadata, client: ClientRegistration, key: Any, alg: str
) -> None:
    assert await subject_of(http, server, client, signed(key, alg, key.kid)) == "user-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["client-1"]},
        {"aud": ["client-1", "api"], "azp": "client-1"},
        {"exp": int(NOW.timestamp()) - 110},
        {"iat": int(NOW.timestamp()) + 110},
        {"nbf": int(NOW.timestamp()) + 110},
    ],
)
async def test_a_list_of_audiences_and_two_minutes_of_skew_are_fine(
    http: Http, server: ServerMetadata, client: ClientRegistration, changes: dict[str, Any]
) -> None:
    assert await subject_of(http, server, client, signed(**changes)) == "user-1"


async def test_without_a_nonce_in_the_request_none_is_compared(
    http: Http, server: ServerMetadata, client: ClientRegistration
) -> None:
    assert await subject_of(http, server, client, signed(nonce=...), nonce=None) == "user-1"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": "https://other.example"}, "another issuer"),
        ({"iss": "https://provider.example/"}, "another issuer"),
        ({"iss": ...}, "another issuer"),
        ({"aud": "client-2"}, "another client"),
        ({"aud": ["client-2"]}, "another client"),
        ({"aud": ...}, "another client"),
        ({"aud": ["client-1", "api"]}, "several clients"),
        ({"aud": ["client-1", "api"], "azp": "api"}, "several clients"),
        ({"exp": int(NOW.timestamp()) - 121}, "expired"),
        ({"exp": ...}, "expired"),
        ({"exp": "tomorrow"}, "exp is not a time"),
        ({"exp": True}, "exp is not a time"),
        ({"exp": float("inf")}, "exp is not a time"),
        ({"iat": "today"}, "iat is not a time"),
        ({"nbf": True}, "nbf is not a time"),
        ({"iss": ["https://provider.example"]}, "another issuer"),
        ({"nonce": ["nonce-1"]}, "another trip"),
        ({"iat": int(NOW.timestamp()) + 121}, "from the future"),
        ({"iat": ...}, "when it was issued"),
        ({"nbf": int(NOW.timestamp()) + 121}, "from the future"),
        ({"nonce": "nonce-2"}, "another trip"),
        ({"nonce": ...}, "another trip"),
        ({"sub": ""}, "names no subject"),
        ({"sub": 5}, "names no subject"),
        ({"sub": "x" * 256}, "names no subject"),
        ({"sub": ...}, "names no subject"),
    ],
)
async def test_a_token_with_a_wrong_claim_is_refused(
    http: Http, server: ServerMetadata, client: ClientRegistration, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConnectFailed, match=why) as failed:
        await subject_of(http, server, client, signed(**changes))
    assert failed.value.error == "invalid_id_token"


async def test_a_token_signed_by_a_stranger_is_refused(
    http: Http, server: ServerMetadata, client: ClientRegistration
) -> None:
    with pytest.raises(ConnectFailed, match="signature is wrong"):
        await subject_of(http, server, client, signed(STRANGER))


async def test_an_altered_token_is_refused(http: Http, server: ServerMetadata, client: ClientRegistration) -> None:
    head, _, signature = signed().get_secret_value().split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(sub="admin")).encode()).rstrip(b"=").decode()
    with pytest.raises(ConnectFailed, match="signature is wrong"):
        await subject_of(http, server, client, SecretStr(f"{head}.{body}.{signature}"))


async def test_no_signature_is_no_proof(http: Http, server: ServerMetadata, client: ClientRegistration) -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    body = signed().get_secret_value().split(".")[1]
    with pytest.raises(ConnectFailed, match="algorithm is not accepted"):
        await subject_of(http, server, client, SecretStr(f"{head}.{body}."))


@pytest.mark.parametrize("secret", [b"client-secret-1-client-secret-1!", RSA.as_pem(private=False)])
async def test_a_symmetric_signature_is_no_proof(
    http: Http, server: ServerMetadata, client: ClientRegistration, secret: bytes
) -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"rsa-1"}').rstrip(b"=").decode()
    signed_part = f"{head}.{signed().get_secret_value().split('.')[1]}"
    mac = hmac.new(secret, signed_part.encode(), hashlib.sha256).digest()
    token = f"{signed_part}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    with pytest.raises(ConnectFailed, match="algorithm is not accepted"):
        await subject_of(http, server, client, SecretStr(token))


@pytest.mark.parametrize(
    "text", ["", "x", "a.b", "a.b.c", "a.b.c.d.e", "é.b.c", "e30.e30.", "e30.e30.e30", "W10.e30.e30", "bnVsbA.e30.e30"]
)
async def test_what_is_no_token_is_refused(
    http: Http, server: ServerMetadata, client: ClientRegistration, text: str
) -> None:
    with pytest.raises(ConnectFailed):
        await subject_of(http, server, client, SecretStr(text))


async def test_a_key_for_encryption_or_of_another_kind_does_not_verify(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    provider.routes["/jwks"] = json_answer(
        200,
        {
            "keys": [
                RSA.as_dict(private=False) | {"use": "enc"},
                {"kty": "oct", "k": "c2VjcmV0", "kid": "rsa-1"},
                {"kty": "AKP", "kid": "rsa-1"},
                {"kty": "RSA", "kid": "rsa-1"},
                "odd",
            ]
        },
    )
    with pytest.raises(ConnectFailed, match="no key that it names"):
        await subject_of(http, server, client, signed())


async def test_a_key_of_1024_bits_proves_nothing(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    modulus = weak.public_key().public_numbers().n.to_bytes(128, "big")
    provider.routes["/jwks"] = json_answer(
        200, {"keys": [{"kty": "RSA", "kid": "rsa-1", "e": "AQAB", "n": base64url(modulus)}]}
    )
    said = signed().get_secret_value().rpartition(".")[0]
    signature = weak.sign(said.encode(), padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(ConnectFailed, match="no key that it names"):
        await subject_of(http, server, client, SecretStr(f"{said}.{base64url(signature)}"))


async def test_without_a_key_id_the_only_fitting_key_is_used_and_a_choice_is_refused(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    assert await subject_of(http, server, client, signed(kid=None)) == "user-1"
    other = replace(server, jwks_uri=f"{provider.url}/jwks-2")
    provider.routes["/jwks-2"] = jwks(RSA, RSAKey.generate_key(2048, {"kid": "rsa-2"}))
    with pytest.raises(ConnectFailed, match="no key that it names"):
        await subject_of(http, other, client, signed(kid=None))


async def test_a_server_without_issuer_or_keys_cannot_vouch(
    http: Http, server: ServerMetadata, client: ClientRegistration
) -> None:
    for lacking in (replace(server, issuer=""), replace(server, jwks_uri="")):
        with pytest.raises(ConnectFailed, match="no issuer or no jwks_uri"):
            await subject_of(http, lacking, client, signed())


async def test_a_templated_issuer_takes_the_tenant_of_the_token(
    http: Http, server: ServerMetadata, client: ClientRegistration
) -> None:
    shared = replace(server, issuer="https://login.example/{tenantid}/v2.0")
    assert await subject_of(http, shared, client, signed(iss="https://login.example/t-1/v2.0", tid="t-1")) == "user-1"
    for changes in (
        {"iss": "https://login.example/t-1/v2.0", "tid": "t-2"},
        {"iss": "https://login.example/a/b/v2.0", "tid": "a/b"},
        {"iss": "https://login.example/t-1/v2.0"},
    ):
        with pytest.raises(ConnectFailed, match="another issuer"):
            await subject_of(http, shared, client, signed(**changes))


async def test_keys_are_fetched_once_in_ten_minutes_also_by_many_at_once(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    await asyncio.gather(*(subject_of(http, server, client, signed()) for _ in range(5)))
    assert len(provider.requests) == 1
    later = NOW + timedelta(minutes=9)
    await subject_of(http, server, client, signed(exp=int(later.timestamp())), now=later)
    assert len(provider.requests) == 1
    later = NOW + timedelta(minutes=10)
    await subject_of(http, server, client, signed(exp=int(later.timestamp())), now=later)
    assert len(provider.requests) == 2


async def test_a_new_key_is_found_and_an_invented_one_causes_a_fetch_a_minute_at_most(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    await subject_of(http, server, client, signed())
    new = RSAKey.generate_key(2048, {"kid": "rsa-2"})
    provider.routes["/jwks"] = jwks(RSA, new)
    with pytest.raises(ConnectFailed):
        await subject_of(http, server, client, signed(new, kid="rsa-2"))
    assert len(provider.requests) == 1
    later = NOW + timedelta(seconds=60)
    assert await subject_of(http, server, client, signed(new, kid="rsa-2"), now=later) == "user-1"
    assert len(provider.requests) == 2
    for _ in range(5):
        with pytest.raises(ConnectFailed):
            await subject_of(http, server, client, signed(kid="invented"), now=later + timedelta(seconds=30))
    assert len(provider.requests) == 2


@pytest.mark.parametrize("reply", [answer(500), answer(200, b"<html>"), json_answer(200, {}), answer(302)])
async def test_keys_that_cannot_be_read_are_a_matter_of_time(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider, reply: bytes
) -> None:
    provider.routes["/jwks"] = reply
    with pytest.raises(UpstreamUnavailable):
        await subject_of(http, server, client, signed())


async def test_callers_share_a_failure_to_fetch_keys_and_a_later_one_tries_again(
    http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
) -> None:
    provider.routes["/jwks"] = answer(503)
    together = [subject_of(http, server, client, signed()) for _ in range(5)]
    outcomes = await asyncio.gather(*together, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UpstreamUnavailable] * 5
    assert len(provider.requests) == 1
    provider.routes["/jwks"] = jwks(RSA)
    assert await subject_of(http, server, client, signed(), now=NOW + timedelta(seconds=5)) == "user-1"


async def test_keys_at_an_address_that_is_not_public_are_not_fetched(
    server: ServerMetadata, client: ClientRegistration
) -> None:
    async with open_http(()) as http:
        with pytest.raises(EgressRefused):
            await subject_of(http, replace(server, jwks_uri="https://169.254.169.254/"), client, signed())


async def test_any_signed_token_can_be_verified_and_its_claims_left_to_the_caller(
    http: Http, provider: ScriptedProvider
) -> None:
    token = signed(iss="https://anyone.example").get_secret_value()
    found = await verified_claims(http, f"{provider.url}/jwks", token, now=NOW)
    assert found["iss"] == "https://anyone.example"
    with pytest.raises(InvalidToken):
        await verified_claims(http, f"{provider.url}/jwks", token, now=NOW + timedelta(hours=1))


# the userinfo call


@pytest.mark.parametrize(
    ("members", "subject"),
    [
        ({"sub": "u-1", "id": "x"}, "u-1"),
        ({"id": 583231}, "583231"),
        ({"user_id": "u-2"}, "u-2"),
        ({"sub": "", "id": "u-3"}, "u-3"),
    ],
)
async def test_userinfo_names_the_subject(
    http: Http, server: ServerMetadata, provider: ScriptedProvider, members: dict[str, Any], subject: str
) -> None:
    provider.routes["/userinfo"] = json_answer(200, members)
    assert await fetch_userinfo_subject(http, server, SecretStr("at-1")) == subject
    assert provider.requests[0].headers["authorization"] == "Bearer at-1"


@pytest.mark.parametrize(
    "reply",
    [
        json_answer(401, {"error": "invalid_token", "error_description": "at-1 is bad"}),
        answer(403, b"<html>"),
        json_answer(200, {"name": "Ann"}),
        json_answer(200, {"id": True, "sub": "x" * 300}),
    ],
)
async def test_userinfo_that_names_nobody_fails_the_trip(
    http: Http, server: ServerMetadata, provider: ScriptedProvider, reply: bytes
) -> None:
    provider.routes["/userinfo"] = reply
    with pytest.raises(ConnectFailed) as failed:
        await fetch_userinfo_subject(http, server, SecretStr("at-1"))
    assert failed.value.error == "invalid_userinfo"
    assert "at-1" not in failed.value.message


@pytest.mark.parametrize(
    "reply", [answer(500), answer(429), answer(302, Location="/"), answer(200, b"<html>", "text/html")]
)
async def test_userinfo_that_is_away_is_a_matter_of_time(
    http: Http, server: ServerMetadata, provider: ScriptedProvider, reply: bytes
) -> None:
    provider.routes["/userinfo"] = reply
    with pytest.raises(UpstreamUnavailable):
        await fetch_userinfo_subject(http, server, SecretStr("at-1"))
