"""The token endpoint's answer (RFC 6749 section 5.1): lenient in what is read, strict in what comes out."""

import json
import math
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from pydantic import SecretStr

MAX_TOKEN_LENGTH = 64 * 1024
MAX_SCOPE_LENGTH = 16 * 1024
MAX_LIFETIME_SECONDS = 10 * 366 * 24 * 3600
"""Longer than any real lifetime: what exceeds it is a provider's way to say "never"."""

_FORM_MARKS = frozenset({"access_token", "error"})
_TOKEN_TYPES = {"bearer": "Bearer", "dpop": "DPoP", "pop": "PoP", "mac": "MAC"}


class InvalidTokenResponse(ValueError):
    """A token endpoint's answer that has no usable access token."""


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """Tokens that a provider issued.

    `expires_in` is the access token's lifetime in seconds from now, None when the provider didn't say (or
    said 0, by which several mean: never). `scopes` is None when the answer names none: then the scopes are
    those that were asked for (RFC 6749 section 5.1). `refresh_token` is None when none was sent: then the old
    one stays valid.
    """

    access_token: SecretStr
    token_type: str
    expires_in: int | None
    refresh_token: SecretStr | None
    scopes: tuple[str, ...] | None
    id_token: SecretStr | None

    @classmethod
    def parse(cls, body: bytes, content_type: str) -> "TokenResponse":
        """Read a body, JSON or (as some older providers answer) form-encoded.

        Raises:
            InvalidTokenResponse: there is no usable access token in it. The message holds nothing of the
            body.
        """
        members = parse_body(body, content_type)
        if members is None:
            raise InvalidTokenResponse("the answer is neither JSON nor form-encoded")
        access_token = _token(members.get("access_token"), "access token")
        if access_token is None:
            raise InvalidTokenResponse("the answer has no access token")
        try:
            id_token = _token(members.get("id_token"), "id token")
        except InvalidTokenResponse:
            id_token = None  # it can be done without; the tokens beside it cannot
        return cls(
            access_token=access_token,
            token_type=_token_type(members.get("token_type")),
            expires_in=_seconds(members.get("expires_in")),
            refresh_token=_token(members.get("refresh_token"), "refresh token"),
            scopes=_scopes(members.get("scope")),
            id_token=id_token,
        )


def parse_body(body: bytes, content_type: str) -> dict[str, Any] | None:
    """Return the members of a JSON object or a form; None for the rest, such as HTML and half an object."""
    try:
        text = body.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return None
    if text[:1] in ("{", "["):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None
    if text[:1] in ("<", '"') or "=" not in text or "html" in content_type.lower():
        return None
    try:
        members = dict(parse_qsl(text, max_num_fields=100))
    except ValueError:
        return None
    # some providers label a form as text, and not every text with an equals sign is a form
    is_form = "form-urlencoded" in content_type.lower() or not members.keys().isdisjoint(_FORM_MARKS)
    return members if members and is_form else None


def _token(value: object, what: str) -> SecretStr | None:
    if not isinstance(value, str) or not value:
        return None
    # RFC 6749 appendix A.12: visible ASCII. Anything else could split a header wherever the token is used.
    if len(value) > MAX_TOKEN_LENGTH or not value.isascii() or not value.isprintable():
        raise InvalidTokenResponse(f"the {what} is too long or has characters that no token has")
    return SecretStr(value)


def _token_type(value: object) -> str:
    return _TOKEN_TYPES.get(value.strip().lower(), "Bearer") if isinstance(value, str) else "Bearer"


def _seconds(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(seconds) or not 1 <= seconds <= MAX_LIFETIME_SECONDS:
        return None
    return int(seconds)


def _scopes(value: object) -> tuple[str, ...] | None:
    if isinstance(value, str):
        parts = value.split() if any(c.isspace() for c in value.strip()) else value.split(",")
    elif isinstance(value, list):
        parts = [part for part in value if isinstance(part, str)]
    else:
        return None
    scopes = tuple(dict.fromkeys(scope for part in parts if (scope := part.strip().strip(","))))
    if not scopes or sum(map(len, scopes)) > MAX_SCOPE_LENGTH:
        return None
    return scopes
