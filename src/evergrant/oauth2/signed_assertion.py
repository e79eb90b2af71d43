"""Signs the JWTs that an entry describes: assertions (RFC 7523 section 3), and tokens that evergrant makes itself."""

import base64
import binascii
import hashlib
import secrets as random
import warnings
from collections.abc import Mapping
from datetime import datetime

from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import Key, OctKey

from evergrant.errors import UpstreamRejected
from evergrant.oauth2.client_assertion import private_key
from evergrant.oauth2.quirks import Quirks
from evergrant.oauth2.registration import ClientRegistration
from evergrant.oauth2.source_types import Assertion

MOST_KEY_LETTERS = 4_500
"""A key of RSA with 4,096 bits has 3,300 in PEM. It is read for every token, and any connection may bring one."""
_SHARED = ("HS256", "HS512")


def sign(
    wanted: Assertion, client: ClientRegistration, quirks: Quirks, values: Mapping[str, str], *, now: datetime
) -> str:
    """Return a signed JWT. `values` are the request's and the credentials' fields.

    Raises:
        UpstreamRejected: there is no such key, or it does not sign by this algorithm.
    """
    own = {"client_secret": client.client_secret, "signing_key": client.signing_key}
    keys = {name: key.get_secret_value() if key is not None else "" for name, key in own.items()}
    text = quirks.fill(wanted.key, {**values, **keys})
    try:
        key = _key(wanted, text)
        signed = {**values, "public_key_sha256": _fingerprint(key)}
        header = {"alg": wanted.alg, "typ": "JWT", **dict(quirks.fill_all(wanted.header, signed))}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # how long a key is, the provider has decided
            return jwt.encode(header, _claims(wanted, quirks, signed, now=now), key, algorithms=[wanted.alg])
    except (JoseError, ValueError, TypeError):
        kind = (
            "the shared secret"
            if wanted.alg in _SHARED
            else "the private key, in PEM or as a JWK, of at most 4,096 bits,"
        )
        raise UpstreamRejected(
            f"{client.name or 'The app'}: {kind} that signs by {wanted.alg} is needed, and what is stored is not that.",
            provider_error="invalid_client_key",
        ) from None


def _key(wanted: Assertion, text: str) -> Key:
    if wanted.alg not in _SHARED:
        return private_key(text, most=MOST_KEY_LETTERS)
    if not text:
        raise ValueError("no secret")
    if wanted.key_encoding == "text":
        return OctKey.import_key(text)
    try:
        raw = bytes.fromhex(text) if wanted.key_encoding == "hex" else base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not in that encoding") from None
    return OctKey.import_key(raw)


def _fingerprint(key: Key) -> str:
    """Return the SHA-256 of the public key (SubjectPublicKeyInfo), in base64; empty for a shared secret."""
    if isinstance(key, OctKey):
        return ""
    return base64.b64encode(hashlib.sha256(key.as_bytes(encoding="DER", private=False)).digest()).decode()


def _claims(wanted: Assertion, quirks: Quirks, values: Mapping[str, str], *, now: datetime) -> dict[str, object]:
    claims: dict[str, object] = {}
    for name, claim in wanted.claims.items():
        if isinstance(claim, str):
            claims |= dict(quirks.fill_all([(name, claim)], values))
        elif isinstance(claim, list):
            claims[name] = [quirks.fill(one, values) for one in claim]
        else:
            claims[name] = claim
    issued_at = int(now.timestamp()) - wanted.backdated
    claims |= {"iat": issued_at, "exp": issued_at + wanted.seconds}
    return {**claims, "jti": random.token_urlsafe(16)} if wanted.jti else claims
