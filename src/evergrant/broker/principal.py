"""Who is asking, and what they may do."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address

from evergrant.errors import AuthenticationFailed, PermissionDenied


class Permission(StrEnum):
    """What a management key can be allowed to do."""

    APPS_READ = "apps:read"
    APPS_WRITE = "apps:write"
    CONNECT = "connect"
    TOKENS_FETCH = "tokens:fetch"
    TOKENS_FETCH_REFRESH_TOKEN = "tokens:fetch:refresh_token"
    TOKENS_WRITE = "tokens:write"
    KEYS = "keys"
    AUDIT = "audit"


ALL_PERMISSIONS = frozenset(Permission)


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated management key."""

    project_id: str
    key_id: str
    permissions: frozenset[str]
    app_ids: frozenset[str]
    networks: tuple[IPv4Network | IPv6Network, ...]
    expires_at: datetime | None

    def check_usable(self, *, client_address: str, now: datetime) -> None:
        """Check what can change between two uses of a key.

        Raises:
            AuthenticationFailed: the key has expired, or may not be used from this address.
        """
        if self.expires_at is not None and self.expires_at <= now:
            raise AuthenticationFailed("This management key has expired.")
        if self.networks and not _is_within(client_address, self.networks):
            raise AuthenticationFailed("This management key may not be used from your address.")

    def require(self, permission: Permission) -> None:
        """Check a permission.

        Raises:
            PermissionDenied: the key lacks it; the message names it.
        """
        if permission not in self.permissions:
            raise PermissionDenied(f"This management key lacks the permission '{permission}'.")

    def require_app(self, app_id: str) -> None:
        """Check that the key is not limited to other apps.

        Raises:
            PermissionDenied: it is.
        """
        if self.app_ids and app_id not in self.app_ids:
            raise PermissionDenied("This management key is limited to other apps.")

    def require_every_app(self) -> None:
        """Check that the key is not limited to some apps.

        Raises:
            PermissionDenied: it is, so it cannot make new ones.
        """
        if self.app_ids:
            raise PermissionDenied("This management key is limited to existing apps.")


def _is_within(address: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network for network in networks)
