"""Reads the token endpoint's answer (RFC 6749 section 5.1): lenient in what it takes, strict in what it returns."""

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from pydantic import SecretStr

from evergrant import clock
from evergrant.oauth2.pointers import find, first
from evergrant.oauth2.quirks import NO_QUIRKS, Quirks, ResponseShape

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
    one stays valid. `captured` is what the provider's quirks take from the answer, by variable, not yet checked.
    """

    access_token: SecretStr
    token_type: str
    expires_in: int | None
    refresh_token: SecretStr | None
    scopes: tuple[str, ...] | None
    id_token: SecretStr | None
    captured: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, body: bytes, content_type: str, quirks: Quirks = NO_QUIRKS) -> "TokenResponse":
        """Read a body, JSON or (as some older providers answer) form-encoded.

        Raises:
            InvalidTokenResponse: there is no usable access token in it. The message holds nothing of the
            body.
        """
        members = parse_body(body, content_type)
        if members is None:
            raise InvalidTokenResponse("the answer is neither JSON nor form-encoded")
        shape = quirks.response
        access_token = _token(first(members, shape.access_token), "access token")
        if access_token is None:
            raise InvalidTokenResponse("the answer has no access token")
        try:
            id_token = _token(members.get("id_token"), "id token")
        except InvalidTokenResponse:
            id_token = None  # it can be done without; the tokens beside it cannot
        return cls(
            access_token=access_token,
            token_type=_token_type(members.get("token_type")),
            expires_in=_lifetime(members, shape),
            refresh_token=_token(first(members, shape.refresh_token), "refresh token"),
            scopes=_scopes(first(members, shape.scope), quirks.scope_separator),
            id_token=id_token,
            captured=quirks.captured("token", functools.partial(find, members)),
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


def _lifetime(members: dict[str, Any], shape: ResponseShape) -> int | None:
    """Return the seconds that are left, from the lifetime or else from the moment of the end."""
    for place in shape.expires_in:
        number = _number(find(members, place))
        seconds = _in_range(number * _UNITS[shape.expires_unit]) if number is not None else None
        if seconds is not None:
            return seconds
    at = _instant(first(members, shape.expires_at), shape.expires_at_format)
    if at is None:
        return None
    left = (at - clock.utcnow()).total_seconds()
    # An end that has passed is our clock or theirs, not the absence of an end.
    return _in_range(max(left, 1.0))


_UNITS = {"s": 1.0, "ms": 0.001, "min": 60.0}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _in_range(seconds: float) -> int | None:
    return int(seconds) if 1 <= seconds <= MAX_LIFETIME_SECONDS else None


def _instant(value: object, form: str) -> datetime | None:
    if form != "iso":
        number = _number(value)
        epoch = number / 1000 if number is not None and form == "epoch_ms" else number
        # 0 and the like are ways to say "never"
        return datetime.fromtimestamp(epoch, UTC) if epoch is not None and 86_400 < epoch < 253_402_300_800 else None
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return at if at is None or at.tzinfo else at.replace(tzinfo=UTC)


def _scopes(value: object, separator: str) -> tuple[str, ...] | None:
    if isinstance(value, str):
        spaced = any(c.isspace() for c in value.strip())
        parts = value.split() if spaced else value.split("," if separator == " " or "," in value else separator)
    elif isinstance(value, list):
        parts = [part for part in value if isinstance(part, str)]
    else:
        return None
    scopes = tuple(dict.fromkeys(scope for part in parts if (scope := part.strip().strip(","))))
    if not scopes or sum(map(len, scopes)) > MAX_SCOPE_LENGTH:
        return None
    return scopes
