"""What an agent session limits its bearer to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionApp:
    """What a session may do with one app. It narrows what policies and the connection allow, and widens nothing."""

    app_id: str
    scopes: tuple[str, ...] = ()
    """The connection has at least these; empty for any connection."""
    external_identifier: str | None = None
    """The only connection, where the owner has several; None for any."""
    access: Literal["read", "write"] = "read"
    """`read`: only methods and calls that change nothing."""
    methods: tuple[str, ...] = ()
    """Only these; empty for all that `access` lets be."""
    paths: tuple[str, ...] = ()
    """Only below these, written as in a policy; empty for all."""
    approve: Literal["never", "writes", "always"] = "never"
    """Which calls the owner approves, each by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLimits:
    """A session, as far as each use of it has to know."""

    id: str
    agent_name: str
    apps: Mapping[str, SessionApp]
    """The only apps, by id."""
    key_id: str = ""
    """The management key that minted it; policies about that key are about the session too. Empty for a user's JWT."""
    max_calls: int | None = None
    elicitation: Literal["url", "link"] = "url"
