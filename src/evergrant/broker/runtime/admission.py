"""Whom an access policy is about, and whether policies let somebody have everything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from evergrant.broker.runtime.principal import Principal
from evergrant.db import AccessPolicy

FETCH, CONNECT, CALL = ACTIONS = ("fetch", "connect", "call")
EFFECTS = ("allow", "deny", "approve")
VIAS = ("proxy", "mcp")
USER, TENANT = LEVELS = ("user", "tenant")
"""Whose connections: a user's, in a tenant or not, or the tenant's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPolicy:
    """A policy as it is remembered: reading a field of a database row's object costs ten times as much."""

    id: str
    claims: Mapping[str, Sequence[str]]
    key_ids: Sequence[str]
    scopes: Sequence[str]
    levels: Sequence[str]
    methods: Sequence[str]
    paths: Sequence[str]
    agents: Sequence[str]
    via: Sequence[str]
    effect: str

    @classmethod
    def of(cls, row: AccessPolicy) -> Self:
        """Return what a row says."""
        return cls(**{name: getattr(row, name) for name in cls.__slots__})


Policy = AccessPolicy | KnownPolicy


def is_about(policy: Policy, principal: Principal) -> bool:
    """Tell whether a policy is about this key, user or agent, whatever it allows them.

    An agent's session is to policies what minted it: a key, or a user.
    """
    if policy.agents and principal.agent not in policy.agents:
        return False
    if not policy.claims and not policy.key_ids:
        return True
    if principal.claims is None:
        return (principal.session.key_id if principal.session else principal.key_id) in policy.key_ids
    claims = principal.claims
    return bool(policy.claims) and all(
        _claim_values(claims.get(name)) & set(values) for name, values in policy.claims.items()
    )


def allows_all(policies: Sequence[Policy], principal: Principal) -> bool:
    """Tell whether these policies, all of an app and action, let somebody do it with every connection and scope."""
    whole = [policy for policy in policies if is_about(policy, principal) and not policy.scopes]
    return not policies or {level for policy in whole for level in policy.levels or LEVELS} == set(LEVELS)


def _claim_values(claim: object) -> set[str]:
    """Return a claim's values as text: one, those of a list, or the names of an object's members."""
    values = claim if isinstance(claim, (list, dict)) else [claim]
    return {str(value).lower() if isinstance(value, bool) else str(value) for value in values if value is not None}
