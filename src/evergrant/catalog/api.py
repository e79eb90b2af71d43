"""The `[api]` of an entry: where the provider's API is, and how a call carries the credential."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from evergrant import placeholders
from evergrant.catalog.field_types import OptionalUrl, Slug, StrictModel
from evergrant.oauth2.quirk_types import Headers, Pointers, Url

_CALL = re.compile(r"(GET|HEAD|POST) (/\S*|https://\S+|http://(127\.0\.0\.1|localhost)[:/]\S+)")
_RULE = re.compile(r"(GET|HEAD|OPTIONS|POST|PUT|PATCH|DELETE|\*) /\S*")
_HOST = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]{2,}")


def _call(text: str) -> str:
    if text and not _CALL.fullmatch(text):
        raise ValueError(f"{text!r}: write a method and a path, or an https URL, like GET /users/me")
    return text


def _rule(text: str) -> str:
    if not _RULE.fullmatch(text):
        raise ValueError(
            f"{text!r}: write a method and a path, like POST /search; * stands for one segment, ** for more"
        )
    return text


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError(f"{text!r}: write a host name, like files.example.com")
    return text


Rule = Annotated[str, AfterValidator(_rule)]
"""A method and the path below the base, in which `*` stands for one segment and `**` for any number."""
Prefix = Annotated[str, StringConstraints(strip_whitespace=False)]


class Credential(StrictModel):
    """Where a call carries the credential. `{token}` is the access token, or the key."""

    place: Annotated[Literal["header", "query", "basic"], Field(alias="in")] = "header"
    """`basic`: HTTP Basic with `username` and `password`."""
    name: str = "Authorization"
    """Of the header or the query parameter."""
    prefix: Prefix = Field(default_factory=lambda found: "Bearer " if found.get("name") == "Authorization" else "")
    """Before the value in a header, with its space: `Bearer ` in `Authorization`, nothing elsewhere."""
    value: str = "{token}"
    username: str = "{token}"
    """Of `basic`. It may hold fields and variables, like `password`."""
    password: str = ""


class ExpiredAnswer(StrictModel):
    """An answer that means that the token has ended, besides 401."""

    status: Annotated[int, Field(ge=200, le=499)]
    pointer: str = ""
    """A JSON pointer into the answer."""
    values: tuple[str, ...] = ()


class RateLimit(StrictModel):
    """Response headers that say when the next call may come; `Retry-After` is always read."""

    after: tuple[str, ...] = ()
    """Seconds from now."""
    at: tuple[str, ...] = ()
    """A moment, in epoch seconds."""
    remaining: tuple[str, ...] = ()
    """How many calls are left."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A credential as a call carries it: ready headers and query parameters."""

    headers: Mapping[str, str]
    query: Mapping[str, str]


class Api(StrictModel):
    """Where a provider's API is, and what every call of it needs."""

    base_url: OptionalUrl = ""
    """May hold `{variables}`, captured ones too. Paths stand behind it."""
    further: dict[Slug, Url] = Field(default_factory=dict)
    """Other bases, by name: uploads, content."""
    verification: Literal["confirmed", "unconfirmed"] = "unconfirmed"
    sources: Annotated[int, Field(ge=0)] = 0
    """How many independent sources agree on the base."""
    credential: Credential = Credential()
    headers: Headers = Field(default_factory=dict)
    """Sent with every call, unless the caller sends the same. They may hold `{client_id}`, `{client_secret}`, fields
    and variables."""
    check: Annotated[str, AfterValidator(_call)] = ""
    """A harmless call that tells whether a credential works: `GET /users/me`."""
    check_body: str = ""
    """JSON, for APIs that answer only a POST."""
    check_ok: Pointers = ()
    """What a good answer has, and neither null nor false, where its status tells nothing."""
    check_ok_values: tuple[str, ...] = ()
    """What it must be there, as text; none: anything."""
    safe: tuple[Rule, ...] = ()
    """Calls that only read although they are a POST."""
    forbidden: tuple[Rule, ...] = ()
    """Calls that hand out credentials: nobody makes them by way of evergrant."""
    follow: tuple[Annotated[str, AfterValidator(_host)], ...] = ()
    """Hosts to which the API redirects downloads, which need no credential."""
    expired: tuple[ExpiredAnswer, ...] = ()
    rate: RateLimit = RateLimit()

    def carried(self, values: Mapping[str, str]) -> Carried:
        """Return a credential as calls carry it; `values` are its fields, the variables, `token` and the client's.

        A header or parameter that needs a value which is not there is left out, and so is a header with line breaks:
        behind one, others could stand. A token that stands in `base_url` stands nowhere else.
        """
        credential, headers, query = self.credential, {}, {}
        if "token" in placeholders.names_in(self.base_url):
            pass
        elif credential.place == "basic":
            pair = f"{placeholders.fill(credential.username, values)}:{placeholders.fill(credential.password, values)}"
            if not _missing(credential.username + credential.password, values):
                headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        elif not _missing(credential.value, values):
            value = placeholders.fill(credential.value, values)
            if credential.place == "query":
                query[credential.name] = value
            else:
                headers[credential.name] = f"{credential.prefix}{value}"
        others = {
            name: placeholders.fill(text, values) for name, text in self.headers.items() if not _missing(text, values)
        }
        whole = {**others, **headers}
        return Carried({name: text for name, text in whole.items() if text.isprintable()}, query)


def _missing(text: str, values: Mapping[str, str]) -> list[str]:
    return [name for name in placeholders.names_in(text) if not values.get(name)]
