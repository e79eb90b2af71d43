"""The kinds of values that quirks hold, each with an error message that says what to write instead.

The checks run where a value is read: from a catalogue file, and from where a quirk was stored. Code that makes a quirk
by itself is trusted.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from evergrant import placeholders

_LOOPBACK = r"http://(127\.0\.0\.1|localhost)(:\d+)?(/[^\s#]*)?"
_URL = re.compile(rf"https://[^\s#{{}}]+|{_LOOPBACK}")
_POINTER = re.compile(r"(/[^/\s]*)+")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]+")
_RENAMED = frozenset(
    {"response_type", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge", "login_hint"}
    | {"code_challenge_method", "grant_type", "client_secret", "code", "code_verifier", "refresh_token"}
    | {"error", "error_description", "token", "token_type_hint"}
)
_KEPT = frozenset({"state", "code", "refresh_token", "code_challenge", "code_verifier", "token"})
"""What no request may go without. A `client_id` may be left out where a header says who we are."""


def checked_url(text: str) -> str:
    """Return `text` if it is an https URL, in which variables may stand.

    Raises:
        ValueError: it is not; the message says what to write.
    """
    leading = placeholders.NAME.match(text)  # a variable that holds a whole origin, https:// included
    plain = placeholders.NAME.sub("x", f"https://x{text[leading.end() :]}" if leading else text)
    if not _URL.fullmatch(plain):
        raise ValueError(f"{text!r}: use an https URL without a fragment, like https://example.com/oauth/token")
    return text


def _pointer(text: str) -> str:
    if not _POINTER.fullmatch(text):
        raise ValueError(f"{text!r}: use a JSON pointer, like /data/access_token")
    return text


def _headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not value.isascii() or not value.isprintable():
            raise ValueError(f"{name!r}: use a header name of letters, digits and '-', and a value of visible ASCII")
    return headers


def _renames(names: Mapping[str, str]) -> Mapping[str, str]:
    unknown = sorted(names.keys() - _RENAMED)
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not a parameter of the protocol; use {', '.join(sorted(_RENAMED))}")
    dropped = sorted(name for name, new in names.items() if not new and name in _KEPT)
    if dropped:
        raise ValueError(f"{', '.join(dropped)}: can be given another name, but not be left out")
    return names


def _as_text(value: Any) -> Any:
    """Let numbers and booleans stand for themselves: `expires_in = 1800` means what `"1800"` does."""
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Url = Annotated[str, Field(max_length=2_000), AfterValidator(checked_url)]
Pointers = Annotated[tuple[Annotated[str, AfterValidator(_pointer)], ...], BeforeValidator(_as_list)]
"""JSON pointers (RFC 6901), of which the first that finds something counts; one may stand without a list."""
Parameters = Annotated[Mapping[Annotated[str, Field(min_length=1)], str], BeforeValidator(_as_text)]
Headers = Annotated[Mapping[str, str], AfterValidator(_headers)]
Renames = Annotated[Mapping[str, str], AfterValidator(_renames)]
"""Other names for the protocol's parameters; empty: not sent."""
