"""Signed tokens that prove something to us by themselves (RFC 7519): each is believed wholly or refused."""

import json
import warnings
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import InvalidClaimError, JoseError, MissingClaimError, SecurityWarning

from evergrant.errors import UpstreamUnavailable
from evergrant.oauth2.jwks import PublicKey
from evergrant.oauth2.token_response import parse_body
from evergrant.oauth2.transport import Http

# Asymmetric only. A symmetric one would be signed with the client secret, which is no proof towards anybody
# who holds it, and invites mistaking a public key for a secret; "none" proves nothing.
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
LEEWAY = timedelta(minutes=2)
LAST_SECOND = 253_402_300_799
"""The end of the year 9999; what says more is no time."""
MAX_KEY_ID = 255
BEARER_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""What the header may call a token that a bearer presents (RFC 7519 section 5.1, RFC 9068 section 2.1), in any case."""


class InvalidToken(ValueError):
    """A signed token that must not be believed; the message says why and holds nothing of the token."""


async def verified_claims(http: Http, jwks_uri: str, token: str, *, now: datetime) -> Mapping[str, Any]:
    """Return the claims of a bearer's JWT signed by a key at `jwks_uri` and valid at `now`, give or take 2 minutes.

    Issuer, audience and what else the claims should say are the caller's to check.

    Raises:
        InvalidToken: wrong form, algorithm, key, signature or time; or it is no bearer token.
        UpstreamUnavailable: the keys cannot be fetched.
        EgressRefused: the address of the keys may not be called.
    """
    claims = await signed_claims(http, jwks_uri, token, now=now)
    check_times(claims, now)
    return claims


async def signed_claims(http: Http, jwks_uri: str, token: str, *, now: datetime) -> Mapping[str, Any]:
    """Do the same without a look at the times.

    Raises:
        InvalidToken, UpstreamUnavailable, EgressRefused: as `verified_claims`.
    """
    unverified_header = header_of(token)
    algorithm, kid = unverified_header.get("alg"), unverified_header.get("kid")
    if algorithm not in ALGORITHMS:
        raise InvalidToken("its signature algorithm is not accepted")
    if kid is not None and not isinstance(kid, str):
        raise InvalidToken("its key id is not text")
    _check_is_bearer_token(unverified_header)

    async def load() -> Mapping[str, Any]:
        return await read_jwks(http, jwks_uri)

    key = _choose(await http.jwks.keys(jwks_uri, kid=kid, now=now, load=load), algorithm, kid)
    claims = claims_signed_by(key, token)
    if "cnf" in claims:
        raise InvalidToken("it is bound to a key of its sender (cnf), and evergrant takes bearer tokens only")
    if "events" in claims:
        raise InvalidToken("it tells of an event, and identifies nobody")
    return claims


def header_of(token: str) -> Mapping[str, Any]:
    """Return the header of a JWT, which nobody has verified unless its signature is.

    Raises:
        InvalidToken: it is not a signed JWT.
    """
    try:
        return jws.extract_compact(token.encode("ascii")).headers()
    except (JoseError, ValueError, RecursionError):
        raise InvalidToken("it is not a signed token") from None


def _check_is_bearer_token(header: Mapping[str, Any]) -> None:
    """Check that a token is of a kind that identifies its bearer; the same issuer signs others with the same keys.

    Logout tokens, security events (RFC 8417) and proofs of possession (RFC 9449) say what they are in `typ`.

    Raises:
        InvalidToken: it is of another kind.
    """
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in BEARER_TYPES:
        raise InvalidToken("its type (typ) is not that of a bearer token: JWT or at+jwt")


def claims_signed_by(key: PublicKey, token: str) -> Mapping[str, Any]:
    """Return the claims of a JWT that `key` signed.

    Raises:
        InvalidToken: it did not, or the header asks for what is not understood.
    """
    try:
        registry = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        with warnings.catch_warnings():
            # RFC 9864 renames EdDSA to Ed25519, and joserfc warns of the old name, which providers still use
            warnings.simplefilter("ignore", SecurityWarning)
            return jwt.decode(token, key, registry=registry).claims
    except (JoseError, ValueError, TypeError):
        raise InvalidToken("its signature is wrong") from None


async def read_jwks(http: Http, jwks_uri: str) -> Mapping[str, Any]:
    """Fetch a key set (RFC 7517 section 5).

    Raises:
        UpstreamUnavailable: there is none right now.
        EgressRefused: the address may not be called.
    """
    answer = await http.get_json(jwks_uri)
    document = parse_body(answer.body, "application/json") if answer.status == 200 else None
    if document is None or not isinstance(document.get("keys"), list):
        raise UpstreamUnavailable("The provider's signing keys cannot be read right now.")
    return document


def unverified_claims(token: str) -> Mapping[str, Any]:
    """Return the claims of a JWT without any check, to find the issuer whose keys will check them.

    Raises:
        InvalidToken: it is not a signed JWT.
    """
    try:
        claims = json.loads(jws.extract_compact(token.encode("ascii")).payload)
    except (JoseError, ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise InvalidToken("it is not a signed token")
    return claims


def key_id_of(token: str) -> str:
    """Return the id of the key that a verified token names; empty where it names none that can be shown."""
    kid = jws.extract_compact(token.encode("ascii")).headers().get("kid")
    return kid if isinstance(kid, str) and kid.isprintable() and len(kid) <= MAX_KEY_ID else ""


def _choose(keys: list[PublicKey], algorithm: str, kid: str | None) -> PublicKey:
    key_type = KEY_TYPES[algorithm[:2]]
    fitting = [key for key in keys if key.key_type == key_type and key.get("alg", algorithm) == algorithm]
    if kid is not None:
        fitting = [key for key in fitting if key.kid == kid]
    # OpenID Connect Core 10.1: without a kid, there must be no choice
    if len(fitting) != 1:
        raise InvalidToken("the provider has no key that it names")
    return fitting[0]


def check_times(claims: Mapping[str, Any], now: datetime) -> None:
    """Check when a token is valid, give or take 2 minutes (RFC 7519 sections 4.1.4 to 4.1.6).

    Raises:
        InvalidToken: not now, or it does not say until when.
    """
    at, leeway = now.timestamp(), LEEWAY.total_seconds()
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name)
        # Numbers of JSON have no bounds, and some that it can be made to hold compare with nothing.
        if value is not None and not (type(value) in (int, float) and 0 <= value <= LAST_SECOND):
            raise InvalidToken(f"its {name} is not a time")
        if name == "exp" and (value is None or value <= at - leeway):
            raise InvalidToken("it has expired, or does not say when it does")
        if name != "exp" and value is not None and value > at + leeway:
            raise InvalidToken("it is from the future; is the clock right?")


def check_parties(claims: Mapping[str, Any], *, issuer: str, audience: str, recipient: str) -> None:
    """Check who issued a token, and that it is for us (RFC 7519 sections 4.1.1 and 4.1.3).

    `recipient` is what the message calls the audience.

    Raises:
        InvalidToken: it is from another issuer, or for another audience.
    """
    registry = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer}, aud={"essential": True, "value": audience}
    )
    try:
        registry.validate({name: claims[name] for name in ("iss", "aud") if name in claims})
    except (MissingClaimError, InvalidClaimError) as error:
        wrong = "from another issuer" if "iss" in error.claim else f"for another {recipient}"
        raise InvalidToken(f"it is {wrong}") from None
