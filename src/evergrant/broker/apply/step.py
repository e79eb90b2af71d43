"""One step of a plan, and how its changes are told: by names on the wire, and never with a secret."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic.alias_generators import to_camel

NEVER_SHOWN = frozenset(
    {"client_secret", "signing_key", "login_client_secret", "secret", "url"}
    # In these, an operator may have put a password.
    | {"api_headers", "authorization_url_params", "token_url_params", "logo"}
)
"""Fields of which a plan says that they change, and not to what."""
_ON_THE_WIRE = {
    "scope_descriptions": "scopes",
    "login_client_id": "login.clientId",
    "login_client_secret": "login.clientSecret",
}

Kind = Literal["project", "app", "trustedIssuer", "policy", "webhook"]
Act = Literal["create", "update", "delete"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One field that changes. `before` and `after` are None where they are not shown."""

    field: str
    shown: bool
    before: Any = None
    after: Any = None


@dataclass(frozen=True, kw_only=True)
class PlanStep:
    """One thing to do, by the use case that anybody else would do it by."""

    act: Act
    kind: Kind
    name: str
    changes: Sequence[Change] = ()
    note: str = ""
    """What somebody should know before they say yes."""
    where: str = ""
    """The entry that it comes from; empty for a deletion."""
    do: Callable[[datetime], Awaitable[str]]
    """Does it now, and returns what is left to do for a person; mostly nothing."""


@dataclass(frozen=True)
class LeftOver:
    """Something that there is and that nobody named."""

    kind: Kind
    name: str


def change(field: str, after: Any, before: Any = None) -> Change:
    """Say that a field of this name in the use cases changes."""
    name = _ON_THE_WIRE.get(field, to_camel(field))
    if field in NEVER_SHOWN:
        return Change(field=name, shown=False)
    return Change(field=name, shown=True, before=before, after=after)


def all_new(given: Mapping[str, Any], *, but: Sequence[str] = ()) -> list[Change]:
    """Return the changes of a thing that is made: every field that is given and not empty."""
    return [change(name, value) for name, value in given.items() if name not in but and value not in (None, "", [], {})]
