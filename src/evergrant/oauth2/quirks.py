"""A provider's differences from the RFCs, as data that requests are made and answers are read by.

`Quirks()` is a provider that does what the RFCs say. A catalogue entry is made of the same shapes, and the broker makes
`Quirks` of an entry and of the values of an app. Nothing in it is secret, and it can be stored: a revocation keeps it
for days.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from evergrant import placeholders
from evergrant.errors import UpstreamRejected
from evergrant.oauth2.quirk_types import Headers, Parameters, Pointers, Renames, Url
from evergrant.oauth2.source_types import Assertion, LoginStep


@dataclass(frozen=True, slots=True)
class ResponseShape:
    """Where a token answer keeps what RFC 6749 section 5.1 keeps at the top: JSON pointers, the first found wins."""

    access_token: Pointers = ("/access_token",)
    refresh_token: Pointers = ("/refresh_token",)
    expires_in: Pointers = ("/expires_in",)
    expires_at: Pointers = ()
    scope: Pointers = ("/scope",)
    error: Pointers = ("/error",)
    error_description: Pointers = ("/error_description",)
    expires_unit: Literal["s", "ms", "min"] = "s"
    expires_at_format: Literal["epoch", "epoch_ms", "iso"] = "epoch"


@dataclass(frozen=True, slots=True)
class DeadAnswer:
    """An answer by which a provider says, in its own words, that a refresh token is dead; what is set must all fit."""

    error: str = ""
    """The whole error code. Case does not count, and blanks and hyphens are underscores."""
    description: str = ""
    """A part of the description. Case does not count."""
    status: Annotated[int, Field(ge=200, le=499)] | None = None
    """The HTTP status; none: any that reports an error of ours."""

    def __post_init__(self) -> None:
        if not self.error and not self.description:
            raise ValueError('needs error or description, like { error = "invalid_refresh_token" }')

    def fits(self, status: int, codes: Collection[str], texts: Collection[str]) -> bool:
        """Tell whether an answer is meant: its status, what may be its error code, and what may explain it."""
        return (
            (self.status is None or self.status == status)
            and (not self.error or plain_code(self.error) in map(plain_code, codes))
            and any(self.description.lower() in text.lower() for text in (*texts, *codes, ""))
        )


def plain_code(code: str) -> str:
    """Write an error code as RFC 6749 writes its own: in small letters, with underscores."""
    return code.strip().lower().replace(" ", "_").replace("-", "_")


@dataclass(frozen=True, slots=True)
class Capture:
    """A value to take from an answer: from the callback by its parameter, else by a JSON pointer."""

    name: str
    source: Literal["callback", "token", "context"]
    place: str


@dataclass(frozen=True, slots=True)
class TokenExchange:
    """A step of the provider's own that trades one access token for another."""

    when: Annotated[tuple[Literal["connect", "refresh"], ...], Field(min_length=1)]
    """`connect`: after the code was redeemed. `refresh`: instead of the refresh token grant."""
    url: Url
    method: Literal["GET", "POST"] = "GET"
    params: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContextRequest:
    """One request after a connect, by the new access token, that tells what calls to the provider's API need."""

    url: Url
    method: Literal["GET", "POST"] = "GET"
    headers: Headers = field(default_factory=lambda: {"Authorization": "Bearer {access_token}"})
    json_body: str = ""
    """Sent as it is, for the providers that answer only GraphQL."""


@dataclass(frozen=True, slots=True)
class RevocationStyle:
    """How a provider revokes that does not do it as RFC 7009 says."""

    url: Url
    method: Literal["POST", "GET", "DELETE"] = "POST"
    format: Literal["form", "json", "query"] = "form"
    params: Parameters = field(default_factory=dict)
    """`{token}` is the one that is revoked; it may stand in `url` and `headers` too."""
    headers: Headers = field(default_factory=dict)
    auth: Literal["client", "basic", "bearer", "none"] = "client"
    """`client`: as at the token endpoint. `basic`: always HTTP Basic. `bearer`: by the access token."""
    token: Literal["refresh_token", "access_token"] = "access_token"


@dataclass(frozen=True, slots=True)
class Quirks:
    """One provider's habits, for one app and one connection.

    `values` are the variables that are known, each checked by its catalogue entry. Texts keep their `{names}` and are
    filled when they are used, once, from these and from the values of the request.
    """

    values: Parameters = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    """Variables that have no value, so that a parameter made of one is left out."""
    signing_alg: str = ""
    """Of client assertions (RFC 7523); empty: as the key says."""
    hook: str = ""
    """A function in `hooks`, by name."""

    scope_separator: str = " "
    authorization_names: Renames = field(default_factory=dict)
    token_names: Renames = field(default_factory=dict)
    callback_names: Renames = field(default_factory=dict)
    redirect_uri: str = ""
    """What the provider wants to see in both requests instead of our callback address."""
    token_params: Parameters = field(default_factory=dict)
    refresh_params: Parameters = field(default_factory=dict)
    token_headers: Parameters = field(default_factory=dict)
    token_method: Literal["POST", "GET"] = "POST"
    token_format: Literal["form", "json", "query"] = "form"
    refresh_endpoint: str = ""
    introspection_endpoint: str = ""

    response: ResponseShape = ResponseShape()
    default_expires_in: int | None = None
    """Seconds, where the answer states no lifetime."""
    never_ends: bool = False
    """An access token whose answer states no lifetime, or 0, does not end."""
    refresh_token_max_seconds: int = 0
    """Seconds after the consent in which a refresh token dies, however it is used; 0: not known."""
    refresh_margin: int | None = None
    """Seconds before the end; the provider refuses to refresh earlier."""
    dead_refresh_token: tuple[DeadAnswer, ...] = ()
    """What the provider says to a dead refresh token, beside what everybody says."""
    captures: tuple[Capture, ...] = ()
    context_request: ContextRequest | None = None
    token_exchange: tuple[TokenExchange, ...] = ()
    revocation: RevocationStyle | None = None
    assertion: Assertion | None = None
    """What evergrant signs to obtain a token, or as one."""
    login: tuple[LoginStep, ...] = ()
    """The requests that obtain a token where it is not the token endpoint that gives it."""
    installation_check: str = ""
    """Called with the token of whoever installs the app: it answers 2xx only where that installation is theirs."""

    def fill(self, text: str, request: Parameters | None = None) -> str:
        """Fill the variables, and the values of a request, into a text."""
        return placeholders.fill(text, request or {}, self.values)

    def fill_all(self, texts: Parameters | Iterable[tuple[str, str]], request: Parameters) -> list[tuple[str, str]]:
        """Fill parameters; those that come out empty, or that need a variable without a value, are left out."""
        pairs = texts.items() if isinstance(texts, Mapping) else texts
        usable = [(name, text) for name, text in pairs if not set(placeholders.names_in(text)) & set(self.unset)]
        return [(name, value) for name, text in usable if (value := self.fill(text, request))]

    def url(self, text: str, who: str, request: Parameters | None = None) -> str:
        """Fill a URL that is going to be called.

        Raises:
            UpstreamRejected: a variable in it has no value that its catalogue entry allows.
        """
        known = self.values.keys() | (request or {}).keys()
        self._require([name for name in placeholders.names_in(text) if name not in known], who)
        return self.fill(text, request)

    def _require(self, missing: Sequence[str], who: str) -> None:
        if missing:
            raise UpstreamRejected(
                f"{who or 'The app'} needs a value for {', '.join(missing)}, and has none that its template allows.",
                provider_error="missing_variable",
            )

    def scope(self, scopes: Iterable[str], who: str) -> str:
        """Return scopes as one parameter, with their variables filled in. Other braces in them stay as they are.

        Raises:
            UpstreamRejected: a variable in one has no value that its catalogue entry allows.
        """
        scope = self.scope_separator.join(scopes)
        self._require([name for name in placeholders.names_in(scope) if name in self.unset], who)
        return self.fill(scope)

    def redirect(self, ours: str, who: str) -> str:
        """Return the `redirect_uri` to send: `ours`, unless the provider has another name for it.

        Raises:
            UpstreamRejected: it has another name, and the app does not say which.
        """
        return self.url(self.redirect_uri, who) if self.redirect_uri else ours

    def exchanges(self, when: Literal["connect", "refresh"]) -> list[TokenExchange]:
        """Return the token exchanges to make at this point."""
        return [step for step in self.token_exchange if when in step.when]

    def captured(self, source: Literal["callback", "token", "context"], find: Any) -> dict[str, str]:
        """Return the texts and numbers that `find` finds at the places of one source, by variable."""
        found = ((capture.name, find(capture.place)) for capture in self.captures if capture.source == source)
        return {name: text for name, value in found if (text := _text(value))}


NO_QUIRKS = Quirks()
"""What is true of a provider that does what the RFCs say."""


def renamed(params: Iterable[tuple[str, str]], names: Renames) -> list[tuple[str, str]]:
    """Give parameters their provider's names; those whose name is empty, and empty ones, are left out."""
    return [(new, value) for name, value in params if value and (new := names.get(name, name))]


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return str(value)


_STORED = TypeAdapter(Quirks)


def to_json(quirks: Quirks) -> dict[str, Any]:
    """Write quirks as JSON members, leaving out what has its usual value."""
    members: dict[str, Any] = _STORED.dump_python(quirks, mode="json", exclude_defaults=True)
    return members


def from_json(members: Mapping[str, Any]) -> Quirks:
    """Read quirks that `to_json` wrote."""
    return _STORED.validate_python(dict(members))
