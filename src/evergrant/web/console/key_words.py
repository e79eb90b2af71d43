"""Management keys in words: what they may do, and how they are."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from evergrant.broker.runtime.principal import ALL_PERMISSIONS, Permission, Principal
from evergrant.db import ManagementKey
from evergrant.web.console.states import State

P = Permission
SOON = timedelta(days=7)

WORDS: Mapping[str, tuple[str, str]] = {
    P.TOKENS_FETCH: ("Fetch tokens", "Gets access tokens that work, for users and tenants."),
    P.CALLS: ("Have calls made", "Calls apps' APIs for users and tenants, without a token."),
    P.SESSIONS: ("Mint agent sessions", "Keys for agents, which do no more than this key."),
    P.CONNECT: ("Connect users", "Makes connect links and confirms who came back."),
    P.CONNECTIONS_READ: ("See connections", "Who connected what, without tokens."),
    P.TOKENS_WRITE: ("Upload and end connections", "Also refreshes, revokes and deletes them."),
    P.APPS_READ: ("See apps", "Their settings, without secrets."),
    P.APPS_WRITE: ("Make and change apps", "Also sets their secrets and deletes them."),
    P.WEBHOOKS: ("Manage webhooks", "Makes them, reads their log, sends again."),
    P.AUDIT: ("Read the audit log", "And reports events of your own to it."),
    P.KEYS: ("Manage keys and trusted issuers", "Only such as can do no more than this key."),
    P.POLICIES: ("Manage policies", "Decides who may fetch and connect which app."),
    P.TOKENS_FETCH_REFRESH_TOKEN: ("Fetch refresh tokens", "Hands out what renews tokens. Rarely needed."),
}
"""Each permission, from the most usual to the least, with what it means."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Permissions that are often wanted together."""

    part: str
    name: str
    text: str
    permissions: frozenset[str]


AGENT = frozenset({P.TOKENS_FETCH, P.CONNECT})
"""What an application or an agent needs: to connect users and fetch their tokens, and nothing else."""
WITHOUT_TOKENS = frozenset({P.CALLS, P.SESSIONS, P.CONNECT})
"""What a backend of agents needs that never see a token."""
PRESETS = (
    Preset("agent", "Agent", "Fetches tokens and connects users.", AGENT),
    Preset("no-tokens", "Agent without tokens", "Has calls made and mints sessions; gets no token.", WITHOUT_TOKENS),
    Preset(
        "backend",
        "Backend",
        "Everything around connections; no keys, no app settings.",
        frozenset({P.TOKENS_FETCH, P.CONNECT, P.CONNECTIONS_READ, P.TOKENS_WRITE, P.APPS_READ}),
    ),
    Preset(
        "read-only",
        "Read-only",
        "Sees everything, changes nothing, gets no token.",
        frozenset({P.APPS_READ, P.CONNECTIONS_READ, P.AUDIT}),
    ),
    Preset("custom", "Custom", "You choose each permission.", frozenset()),
)


def givable(principal: Principal) -> frozenset[str]:
    """Return the permissions that somebody can give to a key."""
    return principal.permissions | principal.withheld


def words_of(permissions: Collection[str]) -> Sequence[str]:
    """Return permissions in words, the most usual first."""
    if set(permissions) >= ALL_PERMISSIONS:
        return ("Everything",)
    return [words for permission, (words, _) in WORDS.items() if permission in permissions]


def state_of(key: ManagementKey, successor: ManagementKey | None, now: datetime) -> State:
    """Return how a key is. `successor` is the one that takes its place."""
    if key.disabled:
        return State("", "circle-x", "Disabled")
    if key.expires_at is not None and key.expires_at <= now:
        return State("", "clock", "Expired")
    if successor is not None:
        return State("warn", "triangle-alert", "To be disabled")
    if key.expires_at is not None and key.expires_at <= now + SOON:
        return State("warn", "clock", "Expires soon")
    return State("good", "circle-check", "Active")


def successors(keys: Sequence[ManagementKey]) -> Mapping[str, ManagementKey]:
    """Return which key takes whose place, by the id of the old one."""
    return {key.replaces: key for key in keys if key.replaces and not key.disabled}
