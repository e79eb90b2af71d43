"""Keys of a provider, and tokens that they sign."""

import base64
import hmac
import json
import warnings
from datetime import UTC, datetime
from typing import Any

from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey
from pydantic import SecretStr

from tests.infra.scripted import json_answer

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


def by_secret(secret: bytes, alg: str = "HS256", **changes: Any) -> SecretStr:
    """Return a token with a symmetric signature."""
    head = base64url(json.dumps({"alg": alg, "kid": "rsa-1"}).encode())
    said = f"{head}.{base64url(json.dumps(claims(**changes)).encode())}"
    mac = hmac.new(secret, said.encode(), f"sha{alg[2:]}").digest()
    return SecretStr(f"{said}.{base64url(mac)}")


def unsigned(alg: str = "none", **changes: Any) -> SecretStr:
    """Return a token without a signature."""
    head = base64url(json.dumps({"alg": alg}).encode())
    return SecretStr(f"{head}.{base64url(json.dumps(claims(**changes)).encode())}.")
