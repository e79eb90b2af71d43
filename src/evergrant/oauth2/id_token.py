"""Finds out by an id_token who connected (OpenID Connect Core 1.0 section 3.1.3.7), and whether the trip is sound.

The tokens beside it are good without it. So only an id_token that says something else than it must ends the trip; one
of which nothing can be known leaves the tokens, names nobody, and says why.

| the id_token | what comes of it |
|---|---|
| is verified, and all fits | its subject is who connected |
| has another nonce, or none where there was no PKCE either | ends the trip: the code may be somebody else's |
| is from another issuer, or for another client (`aud`, `azp`) | ends the trip |
| has a wrong signature, by the key that it names or by all that there are | ends the trip |
| expired more than an hour ago | ends the trip |
| has no nonce, but the trip had PKCE, which binds the code to it | nobody |
| is not a signed JWT, is encrypted, or lacks `iss`, `aud`, `exp`, `iat` or `sub` | nobody |
| is signed by HS256, HS384 or HS512, and not with the client secret | nobody |
| is signed by no algorithm, or one that is not known | nobody |
| names a key that the provider does not have, or its keys cannot be read | nobody |
| is more than 10 minutes too old or too early; up to there, clocks differ | nobody |
| came to an app that has no issuer or no key set to check it against | nobody; nothing is checked |

What authenticates users to evergrant is another matter, and strict: `signed_token`.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from pydantic import SecretStr

from evergrant.errors import ConnectFailed, EvergrantError
from evergrant.oauth2.jwks import PublicKey
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.signed_token import (
    ALGORITHMS,
    KEY_TYPES,
    InvalidToken,
    claims_signed_by,
    read_jwks,
    unverified_claims,
)
from evergrant.oauth2.stated_ends import finite_number
from evergrant.oauth2.transport import Http
from evergrant.oauth2.userinfo import MAX_SUBJECT_LENGTH, words_about

CLOCKS_DIFFER = timedelta(minutes=10)
LONG_AGO = timedelta(hours=1)
_HMACS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
_MOST_KEYS_TRIED = 32


@dataclass(frozen=True, slots=True)
class Subject:
    """Who connected: an id at the provider, or why it is not known. Both are empty where nothing was said."""

    sub: str = ""
    problem: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    """What people know the account by, where the provider said so: `email`, `name`."""


class _Contradiction(ValueError):
    """The id_token says something else than it must."""


class _Unverifiable(ValueError):
    """Nothing can be known of the id_token."""


async def identify(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    id_token: SecretStr,
    *,
    nonce: str | None,
    pkce: bool,
    now: datetime,
) -> Subject:
    """Return who connected by an id_token, or why that is not known, by the table above.

    `nonce` is the request's, None where there was none; `pkce` tells whether the code was bound to the trip by PKCE.

    Raises:
        ConnectFailed: `invalid_id_token`: it contradicts the trip.
    """
    who = client.name or "The provider"
    try:
        return await _verified_subject(http, server, client, id_token.get_secret_value(), nonce, pkce, now)
    except _Contradiction as error:
        raise ConnectFailed("invalid_id_token", f"{who} sent an id_token that is refused: {error}.") from None
    except _Unverifiable as error:
        return Subject(problem=f"{who} sent an id_token that cannot be verified: {error}.")


async def _verified_subject(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    token: str,
    nonce: str | None,
    pkce: bool,  # nonce and PKCE go together
    now: datetime,
) -> Subject:
    header, claims = _read(token)
    algorithm = str(header.get("alg"))
    if not server.issuer or not (server.jwks_uri or algorithm in _HMACS):
        raise _Unverifiable("the app has no issuer or no jwksUrl to check it against")
    # First what it says, verified or not: nobody but the provider can have written it, so it may well be believed
    # where it speaks against the trip. Nothing that it says for anybody is believed before the signature is.
    doubts = [
        *_doubts_about_parties(claims, server, client),
        *_doubts_about_trip(claims, nonce, pkce=pkce),
        *_doubts_about_time(claims, now),
    ]
    if algorithm in _HMACS:
        _check_hmac(token, algorithm, header, client)
    else:
        await _check_signature(http, server.jwks_uri, token, header, now)
    if doubts:
        raise _Unverifiable(doubts[0])
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_LENGTH or not subject.isprintable():
        raise _Unverifiable("it names no subject")
    return Subject(subject, words=words_about(claims))


def _read(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if token.count(".") == 4:
        raise _Unverifiable("it is encrypted")
    try:
        return jws.extract_compact(token.encode("ascii")).headers(), unverified_claims(token)
    except (JoseError, ValueError, RecursionError):
        raise _Unverifiable("it is not a signed token") from None


def _doubts_about_parties(claims: Mapping[str, Any], server: ServerMetadata, client: ClientRegistration) -> list[str]:
    issuer, audience, party = claims.get("iss"), claims.get("aud"), claims.get("azp")
    if not issuer or not audience:
        return ["it does not say who issued it, or for whom"]
    if issuer != _expected_issuer(server.issuer, claims):
        raise _Contradiction("it is from another issuer")
    audiences = audience if isinstance(audience, list) else [audience]
    if client.client_id not in audiences:
        raise _Contradiction("it is for another client")
    if len(audiences) > 1 and party != client.client_id:
        why = "it is for several clients and was not issued to this one"
        if party:
            raise _Contradiction(why)
        return [why]
    return []


def _expected_issuer(issuer: str, claims: Mapping[str, Any]) -> str:
    """Fill the tenant into the issuer template that Microsoft's shared endpoints publish."""
    tenant = claims.get("tid")
    if isinstance(tenant, str) and "/" not in tenant:
        return issuer.replace("{tenantid}", tenant)
    return issuer


def _doubts_about_trip(claims: Mapping[str, Any], nonce: str | None, *, pkce: bool) -> list[str]:
    if nonce is None or claims.get("nonce") == nonce:
        return []
    if claims.get("nonce") or not pkce:
        raise _Contradiction("it belongs to another trip (nonce)")
    return ["it does not say to which trip it belongs (nonce)"]


def _doubts_about_time(claims: Mapping[str, Any], now: datetime) -> list[str]:
    doubts: list[str] = []
    at, leeway = now.timestamp(), CLOCKS_DIFFER.total_seconds()
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name)
        moment = finite_number(value)
        if moment is None:
            missing = {"exp": "it does not say when it expires", "iat": "it does not say when it was issued"}
            doubts += [f"its {name} is not a time"] if value is not None else [missing[name]] if name in missing else []
        elif name == "exp" and moment + leeway < at:
            if moment + LONG_AGO.total_seconds() < at:
                raise _Contradiction("it has expired")
            doubts.append("it has expired; is a clock wrong?")
        elif name != "exp" and moment - leeway > at:
            doubts.append("it is from the future; is a clock wrong?")
    return doubts


def _check_hmac(token: str, algorithm: str, header: Mapping[str, Any], client: ClientRegistration) -> None:
    """Check a signature by the client secret, which only the provider and we know (Core section 10.1)."""
    secret = client.client_secret.get_secret_value() if client.client_secret is not None else ""
    signed, _, signature = token.rpartition(".")
    try:
        given = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    except (binascii.Error, ValueError):
        given = b""
    expected = hmac.new(secret.encode(), signed.encode("ascii"), _HMACS[algorithm]).digest()
    if not secret or "crit" in header or not hmac.compare_digest(given, expected):
        raise _Unverifiable(f"it is signed with {algorithm}, and not with the client secret")


async def _check_signature(http: Http, jwks_uri: str, token: str, header: Mapping[str, Any], now: datetime) -> None:
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise _Unverifiable("its signature algorithm is not accepted")
    kid = kid if isinstance(kid, str) else None

    async def load() -> Mapping[str, Any]:
        return await read_jwks(http, jwks_uri)

    candidates: list[PublicKey] = []
    for wanted in (kid, ""):  # no key has the id "": where none fits, this asks for a set that is a minute old at most
        try:
            keys = await http.jwks.keys(jwks_uri, kid=wanted, now=now, load=load)
        except EvergrantError as error:
            raise _Unverifiable(error.message.rstrip(".")) from None
        candidates = _candidates(keys, algorithm, kid)
        if any(_verifies(key, token) for key in candidates[:_MOST_KEYS_TRIED]):
            return
    if not candidates or (kid is not None and all(key.kid != kid for key in candidates)):
        raise _Unverifiable("the provider has no key that it names")
    raise _Contradiction("its signature is wrong")


def _candidates(keys: list[PublicKey], algorithm: str, kid: str | None) -> list[PublicKey]:
    """Return the keys that may have signed: those of its id, else those without one; without an id, all that fit."""
    key_type = KEY_TYPES[algorithm[:2]]
    fitting = [key for key in keys if key.key_type == key_type and key.get("alg", algorithm) == algorithm]
    if kid is None:
        return fitting
    return [key for key in fitting if key.kid == kid] or [key for key in fitting if key.kid is None]


def _verifies(key: PublicKey, token: str) -> bool:
    try:
        claims_signed_by(key, token)
    except InvalidToken:
        return False
    return True
