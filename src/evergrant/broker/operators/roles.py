"""Roles: what people at the console may do. None of them ever gets to see a token."""

from collections.abc import Mapping
from types import MappingProxyType

from evergrant import operator_rules
from evergrant.broker.runtime.principal import ALL_PERMISSIONS, FETCHING, Permission

VIEWER, OPERATOR, ADMIN = operator_rules.ROLES
_VIEWER = frozenset({Permission.APPS_READ, Permission.CONNECTIONS_READ, Permission.AUDIT})

ROLES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        VIEWER: _VIEWER,
        OPERATOR: _VIEWER | {Permission.APPS_WRITE, Permission.CONNECT, Permission.TOKENS_WRITE, Permission.WEBHOOKS},
        ADMIN: ALL_PERMISSIONS - FETCHING,
    }
)
"""From the least to the most."""


def given_by(role: str) -> frozenset[str]:
    """Return what a role may give to keys and others, although it may not use it."""
    return FETCHING if role == ADMIN else frozenset()
