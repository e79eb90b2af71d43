"""The kinds of values that a catalogue file holds, each with an error message that says what to write instead."""

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from evergrant import placeholders

_LOOPBACK = r"http://(127\.0\.0\.1|localhost)(:\d+)?(/[^\s#]*)?"
_URL = re.compile(rf"https://[^\s#{{}}]+|{_LOOPBACK}")
_FRAGMENT = re.compile(r"[^\s#{}]+")
_RENAMED = frozenset(
    {"response_type", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge", "login_hint"}
    | {"code_challenge_method", "grant_type", "client_secret", "code", "code_verifier", "refresh_token"}
    | {"error", "error_description", "token", "token_type_hint"}
)
_KEPT = frozenset({"state", "client_id", "code", "refresh_token", "code_challenge", "code_verifier", "token"})
"""What no request may go without; `client_id` may where a header says who we are, which `checks` looks at."""


def _matching(pattern: str, remedy: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"{text!r}: {remedy}")
        return text

    return check


def _url(text: str) -> str:
    leading = placeholders.NAME.match(text)  # a variable that holds a whole origin, https:// included
    plain = placeholders.NAME.sub("x", f"https://x{text[leading.end() :]}" if leading else text)
    if not _URL.fullmatch(plain):
        raise ValueError(f"{text!r}: use an https URL without a fragment, like https://example.com/oauth/token")
    return text


def _page(text: str) -> str:
    address, mark, fragment = text.partition("#")
    if mark and not _FRAGMENT.fullmatch(placeholders.NAME.sub("x", fragment)):
        raise ValueError(f"{text!r}: write something without spaces behind the '#', or remove it")
    _url(address)
    return text


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r}: not a regular expression: {error}") from None
    return text


def _renames(names: dict[str, str]) -> dict[str, str]:
    unknown = sorted(names.keys() - _RENAMED)
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not a parameter of the protocol; use {', '.join(sorted(_RENAMED))}")
    dropped = sorted(name for name, new in names.items() if not new and name in _KEPT - {"client_id"})
    if dropped:
        raise ValueError(f"{', '.join(dropped)}: can be given another name, but not be left out")
    return names


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9-]+", name) or not value.isascii() or not value.isprintable():
            raise ValueError(f"{name!r}: use a header name of letters, digits and '-', and a value of visible ASCII")
    return headers


def _as_text(value: Any) -> Any:
    """Let numbers and booleans stand for themselves: `expires_in = 1800` means what `"1800"` does."""
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Slug = Annotated[
    str, AfterValidator(_matching(r"[a-z0-9][a-z0-9-]{0,62}", "use at most 63 small letters, digits and '-'"))
]
Title = Annotated[str, Field(min_length=1, max_length=200)]
Description = Annotated[str, Field(max_length=300)]
Url = Annotated[str, Field(max_length=2_000), AfterValidator(_url)]
OptionalUrl = Annotated[str, Field(max_length=2_000), AfterValidator(lambda text: text and _url(text))]
PageUrl = Annotated[str, Field(max_length=2_000), AfterValidator(_page)]
"""One that only a browser opens: it may have a fragment."""
OptionalPageUrl = Annotated[str, Field(max_length=2_000), AfterValidator(lambda text: text and _page(text))]
Issuer = OptionalUrl
"""May hold `{tenantid}`, as Microsoft publishes it: that one is not a variable."""
Scope = Annotated[
    str,  # RFC 6749 section 3.3
    AfterValidator(_matching(r"[\x21\x23-\x5b\x5d-\x7e]+", "a scope has no spaces, quotes and backslashes")),
]
VariableName = Annotated[
    str, AfterValidator(_matching(r"[A-Za-z][A-Za-z0-9_]{0,62}", "use letters, digits and '_', a letter first"))
]
Regex = Annotated[str, AfterValidator(_regex)]
Pointer = Annotated[str, AfterValidator(_matching(r"(/[^/\s]*)+", "use a JSON pointer, like /data/access_token"))]
Pointers = Annotated[tuple[Pointer, ...], BeforeValidator(_as_list)]
Params = Annotated[dict[Annotated[str, Field(min_length=1)], str], BeforeValidator(_as_text)]
Headers = Annotated[dict[str, str], AfterValidator(_headers)]
Renames = Annotated[dict[str, str], AfterValidator(_renames)]
Seconds = Annotated[int, Field(ge=0)]
