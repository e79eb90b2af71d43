"""Reads the token endpoint's answer (RFC 6749 section 5.1): lenient in what it takes, strict in what it returns."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from pydantic import SecretStr

from evergrant import clock
from evergrant.oauth2.lenient_json import clean_text, read_json, read_text
from evergrant.oauth2.odd_parts import part_or
from evergrant.oauth2.pointers import find, first
from evergrant.oauth2.quirks import NO_QUIRKS, Quirks
from evergrant.oauth2.stated_ends import access_token_seconds, refresh_token_seconds

MAX_TOKEN_LENGTH = 64 * 1024
MAX_SCOPE_LENGTH = 16 * 1024

_FORM_MARKS = frozenset({"access_token", "error"})
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 3.3
_TOKEN_TYPES = {"bearer": "Bearer", "dpop": "DPoP", "pop": "PoP", "mac": "MAC"}


class InvalidTokenResponse(ValueError):
    """A token endpoint's answer that has no usable access token."""


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """Tokens that a provider issued.

    `expires_in` is the access token's lifetime in seconds from now, None when the provider didn't say. It is 0 when
    the provider says that it has ended already and there is a refresh token to get another one with; without one, 0 is
    what several say who mean: never. `refresh_token_expires_in` are the seconds that the refresh token has, None when
    it has no end or none is known. `scopes` is None when the answer names none: then the scopes are
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
    refresh_token_expires_in: int | None = None

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
        refresh_token = part_or(
            None, "refresh token", lambda: _token(first(members, shape.refresh_token), "refresh token")
        )
        # The two are safe now. What stands beside them can be done without; they cannot.
        renewed_by = "" if refresh_token is None else refresh_token.get_secret_value()
        now = clock.now()

        def seconds() -> int | None:
            return access_token_seconds(
                members,
                shape,
                access_token.get_secret_value(),
                can_be_refreshed=refresh_token is not None,
                never_ends=quirks.never_ends,
                now=now,
            )

        return cls(
            access_token=access_token,
            token_type=part_or("Bearer", "token type", lambda: _token_type(members.get("token_type"))),
            expires_in=part_or(None, "lifetime", seconds),
            refresh_token=refresh_token,
            refresh_token_expires_in=part_or(
                None, "refresh token's end", lambda: refresh_token_seconds(members, shape, renewed_by, now=now)
            ),
            scopes=part_or(None, "scopes", lambda: _scopes(first(members, shape.scope), quirks.scope_separator)),
            id_token=part_or(None, "id token", lambda: _id_token(members.get("id_token"))),
            captured=part_or({}, "captured", lambda: quirks.captured("token", functools.partial(find, members))),
        )


def parse_body(body: bytes, content_type: str) -> dict[str, Any] | None:
    """Return the members of a JSON object or a form; None for the rest, such as HTML and half an object.

    No text in it has a NUL or half a surrogate.
    """
    text = read_text(body, content_type).strip("\ufeff \t\r\n\f\v\x00")
    if text[:1] in ("{", "[", '"'):
        try:
            value = read_json(text)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None
    if text[:1] == "<" or "=" not in text or "html" in content_type.lower():
        return None
    try:
        members = {clean_text(name): clean_text(value) for name, value in parse_qsl(text, max_num_fields=1000)}
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


def _id_token(value: object) -> SecretStr | None:
    try:
        return _token(value, "id token")
    except InvalidTokenResponse:
        return None


def _token_type(value: object) -> str:
    return _TOKEN_TYPES.get(value.strip().lower(), "Bearer") if isinstance(value, str) else "Bearer"


def _scopes(value: object, separator: str) -> tuple[str, ...] | None:
    if isinstance(value, str):
        spaced = any(c.isspace() for c in value.strip())
        parts = value.split() if spaced else value.split("," if separator == " " or "," in value else separator)
    elif isinstance(value, list):
        parts = [part for part in value if isinstance(part, str)]
    else:
        return None
    words = dict.fromkeys(scope for part in parts if (scope := part.strip().strip(",")))
    scopes = tuple(scope for scope in words if _SCOPE.fullmatch(scope))
    if not scopes or sum(map(len, scopes)) > MAX_SCOPE_LENGTH:
        return None
    return scopes
