"""Client authentication by a signed assertion (RFC 7521 section 4.2, RFC 7523): the secret itself is never sent.

`private_key_jwt`: the app's client secret is a private key, in PEM or as a JWK. `client_secret_jwt`: it is text that
both sides know.
"""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, cast

from authlib.oauth2.rfc7523 import client_secret_jwt_sign, private_key_jwt_sign
from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from pydantic import SecretStr

from evergrant.errors import UpstreamRejected

METHODS = ("private_key_jwt", "client_secret_jwt")
TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LIFETIME_SECONDS = 120
MOST_KEY_LETTERS = 6_500
"""A key of RSA with 8,192 bits has 6,400 in PEM. To read a longer one takes many seconds, in which all others wait."""
_BY_CURVE = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_PRIVATE_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY")
_PRIVATE_PART = re.compile(r'"d"\s*:')
_FORMS: tuple[type[Key], ...] = (RSAKey, ECKey, OKPKey)
"""That of the keys that are slow to read comes first: a key of another form is read whole before it is refused."""


def assertion(
    secret: SecretStr, *, method: str, client_id: str, audience: str, alg: str, now: datetime, who: str
) -> str:
    """Return an assertion that `client_id` is who asks, for the token endpoint `audience`.

    `alg` may be empty: then it is what the key is for (RS256, ES256, ...), or HS256.

    Raises:
        UpstreamRejected: the secret is not a key of that kind; the message begins with `who`.
    """
    issued_at = int(now.timestamp())
    times = {"issued_at": issued_at, "expires_at": issued_at + LIFETIME_SECONDS}
    if method == "client_secret_jwt":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # how long a secret is, the provider has decided
            shared = OctKey.import_key(secret.get_secret_value())
            return cast(str, client_secret_jwt_sign(shared, client_id, audience, alg or "HS256", **times))
    with _own_key(secret, alg, who) as (key, alg):
        header = {"kid": key.kid} if key.kid else {}
        return cast(str, private_key_jwt_sign(key, client_id, audience, alg, header=header, **times))


def sign(secret: SecretStr, claims: Mapping[str, Any], *, alg: str, kid: str, who: str) -> str:
    """Sign claims with the private key that an app's secret is.

    Raises:
        UpstreamRejected: it is not a key, or not one for `alg`.
    """
    with _own_key(secret, alg, who) as (key, alg):
        header = {"alg": alg, **({"kid": name} if (name := kid or key.kid or "") else {})}
        return jwt.encode(header, dict(claims), key, algorithms=[alg])


@contextmanager
def _own_key(secret: SecretStr, alg: str, who: str) -> Iterator[tuple[Key, str]]:
    """Yield the private key that an app's secret is, and the algorithm: `alg`, or the one that the key is for.

    Raises:
        UpstreamRejected: it is not a key, or signing with it fails.
    """
    try:
        key = private_key(secret.get_secret_value())
        alg = alg or _algorithm(key)
        yield key, alg
    except (JoseError, ValueError, TypeError):
        raise UpstreamRejected(
            f"{who or 'The app'}: the client secret must be the private key that the provider knows, in PEM"
            f"{f', for {alg}' if alg else ''}.",
            provider_error="invalid_client_key",
        ) from None


def private_key(text: str, *, most: int = MOST_KEY_LETTERS) -> Key:
    """Read a private key, in PEM or as a JWK, of at most so many letters.

    Raises:
        ValueError: it is neither, a public key, or longer. The message holds nothing of it.
    """
    text = text.strip()
    if len(text) > most:
        raise ValueError("longer than a private key")
    for form in _FORMS:
        try:
            key = form.import_key(json.loads(text) if text.startswith("{") else text)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            continue
        if key.is_private:
            return key
    raise ValueError("not a private key in PEM or as a JWK")


def is_private_key(text: str) -> bool:
    """Tell whether a private key stands in a text: in PEM of any kind, locked ones too, or as a JWK.

    Such a secret signs. It is never sent.
    """
    return _PRIVATE_PEM.search(text) is not None or ('"kty"' in text and _PRIVATE_PART.search(text) is not None)


def _algorithm(key: Key) -> str:
    if isinstance(key, ECKey):
        return _BY_CURVE.get(key.curve_name, "ES256")
    return "EdDSA" if isinstance(key, OKPKey) else "RS256"
