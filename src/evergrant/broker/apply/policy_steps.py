"""Steps for policies. A policy is what it says and has no name: it is there, or it is not."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from evergrant.broker.access.policies import create_policy, delete_policy
from evergrant.broker.access.policy_problems import problems_of_policy
from evergrant.broker.apply.step import PlanStep, all_new
from evergrant.broker.apply.wanted import WantedThing
from evergrant.broker.runtime.broker import Broker
from evergrant.db import AccessPolicy
from evergrant.errors import InvalidValue

_UNLIMITED: dict[str, Any] = {
    "claims": {},
    **{name: [] for name in ("key_ids", "scopes", "levels", "methods", "paths", "agents", "via")},
    "effect": "allow",
}
Content = tuple[Any, ...]


def content_of(policy: AccessPolicy) -> Content:
    """Return what a policy says, in a form that is equal for two that say the same."""
    claims = tuple(sorted((name, tuple(sorted(set(values)))) for name, values in policy.claims.items()))
    lists = (policy.key_ids, policy.scopes, policy.levels, policy.methods, policy.paths, policy.agents, policy.via)
    return (policy.app_id, policy.action, policy.effect, claims, *(tuple(sorted(set(values))) for values in lists))


def wanted_policy(entry: WantedThing, app_ids: Collection[str]) -> AccessPolicy:
    """Return the policy that an entry describes; it is nobody's row.

    Raises:
        InvalidValue: a field is wrong, or the app is neither there nor wanted.
    """
    policy = AccessPolicy(**{**_UNLIMITED, **entry.given})
    problems = problems_of_policy(policy)
    if policy.app_id not in app_ids:
        problems.append(("appId", "there is no such app, and none is to be made: check its spelling"))
    if problems:
        raise InvalidValue.of(*problems)
    return policy


def policy_step(broker: Broker, project_id: str, entry: WantedThing, wanted: AccessPolicy) -> PlanStep:
    """Return the step that makes a policy."""

    async def create(now: datetime) -> str:
        await create_policy(broker, project_id, **entry.given, now=now)
        return ""

    changes = all_new(entry.given, but=["app_id", "action"])
    return PlanStep(act="create", kind="policy", name=name_of(wanted), changes=changes, where=entry.where, do=create)


def policy_deletion(broker: Broker, stored: AccessPolicy) -> PlanStep:
    """Return the step that deletes a policy."""

    async def delete(_now: datetime) -> str:
        await delete_policy(broker, stored.project_id, stored.id)
        return ""

    return PlanStep(act="delete", kind="policy", name=name_of(stored), note=stored.id, do=delete)


def name_of(policy: AccessPolicy) -> str:
    """Say in a few words which policy this is."""
    parts = [f"{policy.effect} {policy.action} of {policy.app_id}"]
    parts += [f"{claim}={'|'.join(values)}" for claim, values in sorted(policy.claims.items())]
    lists = (policy.key_ids, policy.agents, policy.scopes, policy.levels, policy.methods, policy.paths, policy.via)
    return " ".join([*parts, *(",".join(values) for values in lists if values)])
