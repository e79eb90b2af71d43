"""What somebody wants of a project: entries that name only what they care about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One thing that shall be. What it does not name stays as it is, or begins as it always does."""

    where: str
    """The path to it in what its writer knows, such as `apps[0]`: what is wrong is told by that."""
    given: Mapping[str, Any]
    """What is named, by the names that the use cases have."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a project shall have. None is not looked at; empty is: there shall be none."""

    project: Entry | None = None
    apps: Sequence[Entry] | None = None
    issuers: Sequence[Entry] | None = None
    policies: Sequence[Entry] | None = None
    webhooks: Sequence[Entry] | None = None
