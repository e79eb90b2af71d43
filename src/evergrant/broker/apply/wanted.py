"""What somebody wants of a project: entries that name only what they care about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WantedThing:
    """One thing that shall be. What it does not name stays as it is, or begins as it always does."""

    where: str
    """The path to it in what its writer knows, such as `apps[0]`: what is wrong is told by that."""
    given: Mapping[str, Any]
    """What is named, by the names that the use cases have."""


@dataclass(frozen=True, kw_only=True)
class WantedProject:
    """What a project shall have. None is not looked at; empty is: there shall be none."""

    project: WantedThing | None = None
    apps: Sequence[WantedThing] | None = None
    issuers: Sequence[WantedThing] | None = None
    policies: Sequence[WantedThing] | None = None
    webhooks: Sequence[WantedThing] | None = None
