"""Who is asking, and what they may do."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from evergrant.broker.runtime.agent_limits import AgentLimits
from evergrant.errors import AuthenticationFailed, PermissionDenied


class Permission(StrEnum):
    """What a management key can be allowed to do."""

    APPS_READ = "apps:read"
    APPS_WRITE = "apps:write"
    CALLS = "calls"
    CONNECT = "connect"
    CONNECTIONS_READ = "connections:read"
    TOKENS_FETCH = "tokens:fetch"
    TOKENS_FETCH_REFRESH_TOKEN = "tokens:fetch:refresh_token"
    TOKENS_WRITE = "tokens:write"
    SESSIONS = "sessions"
    KEYS = "keys"
    POLICIES = "policies"
    AUDIT = "audit"
    WEBHOOKS = "webhooks"


ALL_PERMISSIONS = frozenset(Permission)
FETCHING = frozenset({Permission.TOKENS_FETCH, Permission.TOKENS_FETCH_REFRESH_TOKEN})
"""What hands tokens out."""
FETCH_SCOPE = "outbound.token.fetch"
"""The scope with which a user's access token may fetch."""


CALL_SCOPE = "outbound.call"
"""The scope with which a user's access token may have calls made; the one that fetches includes it."""


def with_implied(permissions: Iterable[str]) -> frozenset[str]:
    """Add what a permission includes: who may fetch or change connections may list them."""
    given = frozenset(permissions)
    if given.isdisjoint({Permission.TOKENS_FETCH, Permission.TOKENS_WRITE}):
        return given
    return given | {Permission.CONNECTIONS_READ}


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated management key; an operator at the console; a user, or a tenant's machine, with a JWT; an agent.

    What a call checks decides who can make it: `require` lets management keys pass alone, and `require_for` users
    too, each for itself. So a call that forgets about users is closed to them.
    """

    project_id: str
    key_id: str
    """Empty for a user, and for an agent's session: what minted that is `session.key_id`."""
    permissions: frozenset[str]
    """For a user: what it may do for itself."""
    app_ids: frozenset[str]
    networks: tuple[IPv4Network | IPv6Network, ...]
    expires_at: datetime | None
    claims: Mapping[str, Any] | None = field(default=None, repr=False)
    """What a user's JWT says, validated, or the JWT that a session was exchanged for; None for a management key."""
    user_id: str = ""
    """The user that a JWT names, or whom a session is for; empty for a machine's, which stands for its tenant."""
    tenant_ids: frozenset[str] = frozenset()
    """The tenants that a JWT names, or the one that a session is for."""

    agent: str = ""
    """The agent that acts: a session's; else what a JWT says of its actor or client, never what a caller says."""
    act: tuple[str, ...] = ()
    """The whole chain of actors (RFC 8693 section 4.1), outermost first."""
    session: AgentLimits | None = None
    """What an agent session limits this to; None for everybody else."""

    operator: str = ""
    """Who is at the console, where that is no management key."""
    withheld: frozenset[str] = frozenset()
    """What may be given to others and not used: an operator makes keys that fetch, and fetches nothing."""

    name: str = field(init=False, repr=False, compare=False)
    """Who this is, as the audit log writes it.

    `key:<id>`, `operator:<who>`, `session:<id>`, `user:<id>` or `tenant:<id>`.
    """

    def __post_init__(self) -> None:
        """Find the name out once: a fetch needs it several times."""
        object.__setattr__(self, "name", self._name())

    def _name(self) -> str:
        if self.operator:
            return f"operator:{self.operator}"
        if self.session is not None:
            return f"session:{self.session.id}"
        if self.claims is None:
            return f"key:{self.key_id}"
        return f"user:{self.user_id}" if self.user_id else f"tenant:{','.join(sorted(self.tenant_ids))}"

    @property
    def is_user(self) -> bool:
        """Whether this is a user, a tenant's machine or an agent's session, and not a management key."""
        return self.claims is not None or self.session is not None

    @property
    def own_tenants(self) -> frozenset[str]:
        """The tenants within which connections are this user's own; an empty one for those in none."""
        if self.session is not None:
            return self.tenant_ids or frozenset({""})
        return self.tenant_ids | ({""} if self.user_id else frozenset())

    def check_usable(self, *, client_address: str, now: datetime) -> None:
        """Check what can change between two uses of a key.

        Raises:
            AuthenticationFailed: the key has expired, or may not be used from this address.
        """
        if self.expires_at is not None and self.expires_at <= now:
            raise AuthenticationFailed(f"This {self._kind} has expired.")
        if self.networks and not _is_within(client_address, self.networks):
            raise AuthenticationFailed(f"This {self._kind} may not be used from your address.")

    def require(self, *permissions: Permission) -> None:
        """Check a management key's permission; of several, one is enough.

        Raises:
            PermissionDenied: the key lacks it, and the message names it; or it is no management key.
        """
        if self.is_user:
            own = "an agent session" if self.session is not None else "a user's token"
            raise PermissionDenied(f"This takes a management key; {own} is not enough.")
        if self.permissions.isdisjoint(permissions):
            names = " or ".join(f"'{permission}'" for permission in permissions)
            who = "Your session" if self.operator else "This management key"
            raise PermissionDenied(f"{who} lacks the permission {names}.")

    def require_for(self, permission: Permission, *, user_id: str, tenant_id: str) -> None:
        """Check that this may be done for an owner: a key needs the permission, a user needs it and is the owner.

        Raises:
            PermissionDenied: not this credential, or not for this owner.
        """
        if not self.is_user:
            self.require(permission)
            return
        if permission not in self.permissions:
            if self.session is not None:
                raise PermissionDenied(f"This session does not have the permission '{permission}'.")
            scope = CALL_SCOPE if permission == Permission.CALLS else FETCH_SCOPE
            raise PermissionDenied(f"This token lacks the scope '{scope}'.")
        self.require_owner(user_id, tenant_id)

    def require_owner(self, user_id: str, tenant_id: str) -> None:
        """Check that a user asks about nobody else. A user is not its tenant, nor the other way round.

        A session is for one owner exactly: a user in a tenant is another than the same user in none. Management keys
        pass: check their permission apart.

        Raises:
            PermissionDenied: it is another user, or not a tenant of this token.
        """
        if not self.is_user:
            return
        if self.session is not None:
            if user_id != self.user_id or tenant_id not in self.own_tenants:
                raise PermissionDenied("This session is for another owner.")
            return
        if user_id != self.user_id:
            raise PermissionDenied(
                "This token is for another user." if self.user_id else "This token is for its tenant, not for a user."
            )
        if (tenant_id or not user_id) and tenant_id not in self.tenant_ids:
            raise PermissionDenied("This token is not for this tenant.")

    def require_app(self, app_id: str) -> None:
        """Check that the key, or the session, is not limited to other apps.

        Raises:
            PermissionDenied: it is.
        """
        if self.app_ids and app_id not in self.app_ids:
            raise PermissionDenied(f"This {self._kind} is limited to other apps.")

    def sees(self, app_id: str, external_identifier: str) -> bool:
        """Tell whether this may know of a connection that its owner has: a session may be for another of several."""
        if self.session is None:
            return True
        app = self.session.apps.get(app_id)
        return app is not None and app.external_identifier in (None, external_identifier)

    def require_every_app(self) -> None:
        """Check that the key is not limited to some apps: for what makes a new one, or shows what concerns all.

        What a key leaves behind is for `authority.require_no_more`, which asks for more.

        Raises:
            PermissionDenied: it is.
        """
        if self.app_ids:
            raise PermissionDenied(f"This {self._kind} is limited to some apps, and this concerns all of them.")

    @property
    def _kind(self) -> str:
        """What it is, in a message to whoever holds it."""
        return "session" if self.session is not None else "token" if self.is_user else "management key"


def _is_within(address: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network for network in networks)
