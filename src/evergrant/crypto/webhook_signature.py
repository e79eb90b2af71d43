"""Signatures of webhooks, as Standard Webhooks has them: HMAC-SHA256 over id, timestamp and body."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

from pydantic import SecretStr

SECRET_PREFIX = "whsec_"
_SECRET_BYTES = 32
"""The specification asks for 24 to 64."""


def new_webhook_secret() -> SecretStr:
    """Make a secret, in the form that verifiers take: `whsec_` and Base64."""
    return SecretStr(SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode("ascii"))


def signature(keys: Sequence[SecretStr], *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature`: one `v1,<Base64>` for each secret, separated by spaces.

    A receiver accepts a message when any of them is right, so that secrets can be replaced without a gap.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{_sign(key, signed)}" for key in keys)


def _sign(key: SecretStr, signed: bytes) -> str:
    raw = base64.b64decode(key.get_secret_value().removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.digest(raw, signed, hashlib.sha256)).decode("ascii")
