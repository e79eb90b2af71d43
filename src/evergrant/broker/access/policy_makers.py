"""Who may make and remove policies.

Whoever holds the permission `policies` may: that is what it is for. Everybody else with `keys` may only shut out, or
hand on what they are allowed themselves. Otherwise somebody whom the policies exclude would let themselves in.

| without `policies` | may a key do it? |
|---|---|
| make the first policy for an app and action | yes: until then everybody was let in |
| make another | where a policy is about this key, with all that the new one lets be, and none about it forbids |
| make one that denies | yes |
| delete one | likewise, and unless it is the last: then everybody would be let in |
| delete one that denies or asks for approval | no |
| let users connect a tenant's own connection | as making another: never with the first one |

And like everything that lasts, a policy cannot be made by a key that expires, is limited to some networks or to other
apps, or lacks the permission for the action itself.
"""

from collections.abc import Sequence

from evergrant.broker.runtime.admission import LEVELS, TENANT, is_about
from evergrant.broker.runtime.authority import Authority, require_no_more
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.db import AccessPolicy
from evergrant.errors import PermissionDenied

_EFFECTS = {"deny": "denies", "approve": "wants approved"}
_PERMISSIONS = {"fetch": Permission.TOKENS_FETCH, "connect": Permission.CONNECT, "call": Permission.CALLS}


def require_may_make(maker: Principal, new: AccessPolicy, existing: Sequence[AccessPolicy]) -> None:
    """Check that a key lets nobody do more by a policy than it may do itself. `existing`: of the app and action.

    Raises:
        PermissionDenied: it would; the message says what is missing.
    """
    _require_authority(maker, new)
    if Permission.POLICIES in maker.permissions:
        return
    # One that asks for approval lets be what no policy was about, once somebody has approved.
    narrows = new.effect == "deny" or (not existing and not _lets_users_connect_tenants(new))
    if not narrows and not _is_allowed(maker, new, existing):
        raise PermissionDenied(
            "The access policies that there are do not allow this key itself what the new one would allow. "
            "This takes the permission 'policies'."
        )


def require_may_remove(remover: Principal, old: AccessPolicy, existing: Sequence[AccessPolicy]) -> None:
    """Check that a key opens nothing by removing a policy, and removes none that it could not make. `existing`: all.

    Raises:
        PermissionDenied: it does; the message says what is missing.
    """
    _require_authority(remover, old)
    if Permission.POLICIES in remover.permissions:
        return
    if old.effect != "allow":
        raise PermissionDenied(
            f"Without this policy, calls that it {_EFFECTS[old.effect]} are let be. "
            "This takes the permission 'policies'."
        )
    if len(existing) == 1 and not _lets_everybody(old):
        raise PermissionDenied(
            "Without its last access policy, the app is open to everybody. This takes the permission 'policies'."
        )
    if not _is_allowed(remover, old, existing):
        raise PermissionDenied(
            "The access policies do not allow this key itself what this one allows. "
            "This takes the permission 'policies'."
        )


def _require_authority(principal: Principal, policy: AccessPolicy) -> None:
    own = Permission.POLICIES if Permission.POLICIES in principal.permissions else _PERMISSIONS[policy.action]
    made = Authority(permissions=frozenset({own}), app_ids=frozenset({policy.app_id}))
    require_no_more(principal, made, what="a policy")


def _is_allowed(principal: Principal, policy: AccessPolicy, existing: Sequence[AccessPolicy]) -> bool:
    about = [other for other in existing if is_about(other, principal)]
    if any(other.effect != "allow" for other in about):
        return False
    return any(_contains(other, policy) for other in about)


def _contains(wider: AccessPolicy, policy: AccessPolicy) -> bool:
    for limit, limited in (
        (wider.scopes, policy.scopes),
        (wider.methods, policy.methods),
        (wider.paths, policy.paths),  # to the letter: a key without the permission has no use for more
        (wider.agents, policy.agents),
        (wider.via, policy.via),
    ):
        if limit and not (limited and set(limited) <= set(limit)):
            return False
    if _lets_users_connect_tenants(policy):  # which no policy does without saying so
        return set(policy.levels) <= set(wider.levels)
    return set(policy.levels or LEVELS) <= set(wider.levels or LEVELS)


def _lets_users_connect_tenants(policy: AccessPolicy) -> bool:
    return policy.action == "connect" and TENANT in policy.levels


def _lets_everybody(policy: AccessPolicy) -> bool:
    of_calls = policy.methods or policy.paths or policy.agents or policy.via
    return not (policy.claims or policy.key_ids or policy.scopes or len(policy.levels) == 1 or of_calls)
