"""What an agent session limits its bearer to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evergrant.errors import PermissionDenied


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

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "SessionApp":
        """Read what `wire` wrote."""
        return cls(
            app_id=stored["appId"],
            scopes=tuple(stored["scopes"]),
            external_identifier=stored["externalIdentifier"],
            access=stored["access"],
            methods=tuple(stored["methods"]),
            paths=tuple(stored["paths"]),
            approve=stored["approve"],
        )

    def wire(self) -> dict[str, Any]:
        """Write it as the API and the database have it."""
        return {
            "appId": self.app_id,
            "scopes": list(self.scopes),
            "externalIdentifier": self.external_identifier,
            "access": self.access,
            "methods": list(self.methods),
            "paths": list(self.paths),
            "approve": self.approve,
        }

    def identifier_for(self, asked: str) -> str:
        """Return which of the owner's connections somebody means who asks for this one; empty for the usual one.

        Raises:
            PermissionDenied: the session is for another.
        """
        if self.external_identifier is None:
            return asked
        if asked not in ("", self.external_identifier):
            raise PermissionDenied("This session is for another of the owner's connections of this app.")
        return self.external_identifier

    def scopes_to_connect(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """Return which scopes a trip that the session begins asks for; empty for the app's own.

        Raises:
            PermissionDenied: it would ask for others than the session is for.
        """
        if self.scopes and not set(asked) <= set(self.scopes):
            raise PermissionDenied("This session may not ask for other scopes than its own.")
        return asked or self.scopes

    def scopes_to_fetch(self, asked: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Return which scopes the connection must have; None for any."""
        return tuple(dict.fromkeys((*(asked or ()), *self.scopes))) if self.scopes else asked


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
