"""The console's navigation: what there is, and who sees it."""

from collections.abc import Collection
from dataclasses import dataclass

from evergrant.broker.runtime.principal import Permission


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the navigation."""

    name: str
    icon: str
    part: str
    """What follows the project in its address; empty for the overview."""
    permissions: tuple[Permission, ...]
    """One of these is needed; none: an administrator."""


@dataclass(frozen=True, slots=True)
class Group:
    """Lines under one heading; the first group has none."""

    name: str
    entries: tuple[Entry, ...]


P = Permission
GROUPS = (
    Group(
        "",
        (
            Entry("Overview", "layout-dashboard", "", (P.CONNECTIONS_READ,)),
            Entry("Apps", "blocks", "apps", (P.APPS_READ,)),
            Entry("Connections", "link-2", "connections", (P.CONNECTIONS_READ,)),
        ),
    ),
    Group(
        "Access",
        (
            Entry("Keys", "key-round", "keys", (P.KEYS,)),
            Entry("Agents", "bot", "agents", (P.SESSIONS,)),
            Entry("Trusted issuers", "fingerprint", "issuers", (P.KEYS,)),
            Entry("Policies", "gavel", "policies", (P.POLICIES, P.KEYS)),
            Entry("Approvals", "shield-check", "approvals", (P.SESSIONS,)),
        ),
    ),
    Group(
        "Operation",
        (
            Entry("Webhooks", "webhook", "webhooks", (P.WEBHOOKS,)),
            Entry("Audit log", "scroll-text", "audit", (P.AUDIT,)),
            Entry("Health", "heart-pulse", "health", ()),
            Entry("Settings", "settings", "settings", ()),
        ),
    ),
)


def groups_for(permissions: Collection[str], *, is_admin: bool) -> list[Group]:
    """Return what an operator sees: nothing that would only refuse them."""

    def sees(entry: Entry) -> bool:
        return not set(permissions).isdisjoint(entry.permissions) if entry.permissions else is_admin

    groups = [Group(group.name, tuple(entry for entry in group.entries if sees(entry))) for group in GROUPS]
    return [group for group in groups if group.entries]
