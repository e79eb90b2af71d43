"""Tokens that authenticate somebody to us: nothing of them is forgiven, and keys are fetched at a bounded rate."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from joserfc.jwk import RSAKey
from pydantic import SecretStr

from evergrant.errors import EgressRefused, UpstreamUnavailable
from evergrant.oauth2.signed_token import InvalidToken, verified_claims
from evergrant.oauth2.transport import Http, open_http
from tests.infra.scripted import ScriptedProvider, answer, json_answer
from tests.oauth2.signing import EC, ED, NOW, RSA, STRANGER, base64url, by_secret, jwks, signed, unsigned


@pytest.fixture(autouse=True)
def _keys(provider: ScriptedProvider) -> None:
    provider.routes["/jwks"] = jwks(RSA, EC, ED)


async def verified(
    http: Http, provider: ScriptedProvider, token: SecretStr, *, now: datetime = NOW
) -> Mapping[str, Any]:
    return await verified_claims(http, f"{provider.url}/jwks", token.get_secret_value(), now=now)


@pytest.mark.parametrize(
    ("key", "alg"), [(RSA, "RS256"), (RSA, "PS256"), (EC, "ES256"), (ED, "EdDSA"), (ED, "Ed25519")]
)
async def test_a_token_of_anybody_is_verified_and_its_claims_left_to_the_caller(
    http: Http, provider: ScriptedProvider, key: Any, alg: str
) -> None:
    found = await verified(http, provider, signed(key, alg, key.kid, iss="https://anyone.example"))
    assert found["iss"] == "https://anyone.example"


@pytest.mark.parametrize("offsets", [{"exp": -110}, {"iat": 110}, {"nbf": 110}])
async def test_two_minutes_of_skew_are_fine(http: Http, provider: ScriptedProvider, offsets: dict[str, int]) -> None:
    changes: dict[str, Any] = {name: int(NOW.timestamp()) + offset for name, offset in offsets.items()}
    assert await verified(http, provider, signed(**changes))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": int(NOW.timestamp()) - 121}, "expired"),
        ({"exp": ...}, "expired"),
        ({"exp": str(int(NOW.timestamp()) + 300)}, "exp is not a time"),
        ({"exp": "tomorrow"}, "exp is not a time"),
        ({"exp": True}, "exp is not a time"),
        ({"exp": float("inf")}, "exp is not a time"),
        ({"iat": "today"}, "iat is not a time"),
        ({"nbf": True}, "nbf is not a time"),
        ({"iat": int(NOW.timestamp()) + 121}, "from the future"),
        ({"nbf": int(NOW.timestamp()) + 121}, "from the future"),
    ],
)
async def test_a_token_at_another_time_is_refused(
    http: Http, provider: ScriptedProvider, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidToken, match=why):
        await verified(http, provider, signed(**changes))


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (signed(STRANGER), "signature is wrong"),
        (unsigned(), "algorithm is not accepted"),
        (by_secret(b"client-secret-1"), "algorithm is not accepted"),
        (by_secret(RSA.as_pem(private=False)), "algorithm is not accepted"),
        (signed(kid="invented"), "no key that it names"),
        *((SecretStr(text), "not a signed token") for text in ("", "x", "a.b", "a.b.c", "a.b.c.d.e", "é.b.c")),
    ],
)
async def test_a_token_that_no_key_of_the_set_signed_is_refused(
    http: Http, provider: ScriptedProvider, token: SecretStr, why: str
) -> None:
    with pytest.raises(InvalidToken, match=why):
        await verified(http, provider, token)


async def test_without_a_key_id_there_must_be_no_choice(http: Http, provider: ScriptedProvider) -> None:
    assert await verified(http, provider, signed(kid=None))
    provider.routes["/jwks-2"] = jwks(RSA, RSAKey.generate_key(2048, {"kid": "rsa-2"}))
    with pytest.raises(InvalidToken, match="no key that it names"):
        await verified_claims(http, f"{provider.url}/jwks-2", signed(kid=None).get_secret_value(), now=NOW)


async def test_a_key_for_encryption_or_of_another_kind_does_not_verify(http: Http, provider: ScriptedProvider) -> None:
    odd = [
        RSA.as_dict(private=False) | {"use": "enc"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "rsa-1"},
        {"kty": "AKP", "kid": "rsa-1"},
        {"kty": "RSA", "kid": "rsa-1"},
        "odd",
    ]
    provider.routes["/jwks"] = json_answer(200, {"keys": odd})
    with pytest.raises(InvalidToken, match="no key that it names"):
        await verified(http, provider, signed())


async def test_of_a_set_of_thousands_of_keys_the_first_hundred_count(http: Http, provider: ScriptedProvider) -> None:
    mine, other = RSA.as_dict(private=False), EC.as_dict(private=False)
    for before, is_read in ((99, True), (100, False)):
        path = f"/jwks-{before}"
        provider.routes[path] = json_answer(200, {"keys": [*[{**other, "kid": f"k{n}"} for n in range(before)], mine]})
        if is_read:
            assert await verified_claims(http, f"{provider.url}{path}", signed().get_secret_value(), now=NOW)
        else:
            with pytest.raises(InvalidToken, match="no key that it names"):
                await verified_claims(http, f"{provider.url}{path}", signed().get_secret_value(), now=NOW)


async def test_a_key_of_1024_bits_proves_nothing(http: Http, provider: ScriptedProvider) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    modulus = weak.public_key().public_numbers().n.to_bytes(128, "big")
    keys = [{"kty": "RSA", "kid": "rsa-1", "e": "AQAB", "n": base64url(modulus)}]
    provider.routes["/jwks"] = json_answer(200, {"keys": keys})
    said = signed().get_secret_value().rpartition(".")[0]
    signature = weak.sign(said.encode(), padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(InvalidToken, match="no key that it names"):
        await verified(http, provider, SecretStr(f"{said}.{base64url(signature)}"))


async def test_keys_are_fetched_once_in_ten_minutes_also_by_many_at_once(
    http: Http, provider: ScriptedProvider
) -> None:
    await asyncio.gather(*(verified(http, provider, signed()) for _ in range(5)))
    assert len(provider.requests) == 1
    for minutes, fetches in ((9, 1), (10, 2)):
        later = NOW + timedelta(minutes=minutes)
        await verified(http, provider, signed(exp=int(later.timestamp())), now=later)
        assert len(provider.requests) == fetches


async def test_a_new_key_is_found_and_an_invented_one_causes_a_fetch_a_minute_at_most(
    http: Http, provider: ScriptedProvider
) -> None:
    await verified(http, provider, signed())
    new = RSAKey.generate_key(2048, {"kid": "rsa-2"})
    provider.routes["/jwks"] = jwks(RSA, new)
    with pytest.raises(InvalidToken):
        await verified(http, provider, signed(new, kid="rsa-2"))
    assert len(provider.requests) == 1
    later = NOW + timedelta(seconds=60)
    assert await verified(http, provider, signed(new, kid="rsa-2"), now=later)
    assert len(provider.requests) == 2
    for _ in range(5):
        with pytest.raises(InvalidToken):
            await verified(http, provider, signed(kid="invented"), now=later + timedelta(seconds=30))
    assert len(provider.requests) == 2


@pytest.mark.parametrize("reply", [answer(500), answer(200, b"<html>"), json_answer(200, {}), answer(302)])
async def test_keys_that_cannot_be_read_are_a_matter_of_time(
    http: Http, provider: ScriptedProvider, reply: bytes
) -> None:
    provider.routes["/jwks"] = reply
    with pytest.raises(UpstreamUnavailable):
        await verified(http, provider, signed())


async def test_callers_share_a_failure_to_fetch_keys_and_a_later_one_tries_again(
    http: Http, provider: ScriptedProvider
) -> None:
    provider.routes["/jwks"] = answer(503)
    together = [verified(http, provider, signed()) for _ in range(5)]
    outcomes = await asyncio.gather(*together, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UpstreamUnavailable] * 5
    assert len(provider.requests) == 1
    provider.routes["/jwks"] = jwks(RSA)
    assert await verified(http, provider, signed(), now=NOW + timedelta(seconds=5))


async def test_keys_at_an_address_that_is_not_public_are_not_fetched() -> None:
    async with open_http(()) as http:
        with pytest.raises(EgressRefused):
            await verified_claims(http, "https://169.254.169.254/", signed().get_secret_value(), now=NOW)
