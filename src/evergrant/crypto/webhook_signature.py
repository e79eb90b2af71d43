"""Signatures of webhooks, as Standard Webhooks has them: HMAC-SHA256 over id, timestamp and body."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

from pydantic import SecretStr

SECRET_PREFIX = "whsec_"
_SECRET_BYTES = 32
_LEAST_BYTES, _MOST_BYTES = 24, 64
"""What the specification asks for."""


def new_webhook_secret() -> SecretStr:
    """Make a secret, in the form that verifiers take: `whsec_` and Base64."""
    return SecretStr(SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode("ascii"))


def is_webhook_secret(secret: SecretStr) -> bool:
    """Tell whether somebody's own secret is one: `whsec_` and Base64 of 24 to 64 bytes."""
    text = secret.get_secret_value()
    if not text.startswith(SECRET_PREFIX):
        return False
    try:
        raw = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        return False
    return _LEAST_BYTES <= len(raw) <= _MOST_BYTES


def signature(keys: Sequence[SecretStr], *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature`: one `v1,<Base64>` for each secret, separated by spaces.

    A receiver accepts a message when any of them is right, so that secrets can be replaced without a gap.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{_sign(key, signed)}" for key in keys)


def _sign(key: SecretStr, signed: bytes) -> str:
    raw = base64.b64decode(key.get_secret_value().removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.digest(raw, signed, hashlib.sha256)).decode("ascii")
