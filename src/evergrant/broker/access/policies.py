"""Access policies: who may fetch or connect which app, with which scopes.

An app and action without a policy are open, as ever, to everybody who is authenticated for them. As soon as there is
one, at least one must match. A policy that names claims is about users, one that names keys is about those management
keys, and one that names neither is about everybody.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select

from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.quirks import scope_words
from evergrant.broker.audit.record import record
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.crypto.opaque import new_id
from evergrant.db import AccessPolicy, ManagementKey
from evergrant.errors import InvalidValue, NotFound, PermissionDenied

FETCH, CONNECT = ACTIONS = ("fetch", "connect")


async def create_policy(
    broker: Broker,
    project_id: str,
    *,
    app_id: str,
    action: str,
    now: datetime,
    claims: Mapping[str, Sequence[str]] | None = None,
    key_ids: Sequence[str] = (),
    scopes: Sequence[str] = (),
) -> AccessPolicy:
    """Make a policy that allows an action to these users or keys, with at most these scopes; empty does not limit.

    Raises:
        AppNotFound: there is no such app.
        InvalidValue: an argument cannot be used; nothing is written.
    """
    await load_app(broker, project_id, app_id)
    problems = [("action", f"use {' or '.join(ACTIONS)}")] if action not in ACTIONS else []
    problems += [("claims", "give each claim at least one value") for values in (claims or {}).values() if not values]
    problems += [("scopes", "each scope is one word") for scope in scopes if scope.split() != [scope]]
    async with broker.database.read() as session:
        for key_id in key_ids:
            if await session.get(ManagementKey, (project_id, key_id)) is None:
                problems.append(("keyIds", "one is not a management key of this project"))
    if problems:
        raise InvalidValue.of(*problems)
    policy = AccessPolicy(
        project_id=project_id,
        id=new_id(22),
        app_id=app_id,
        action=action,
        claims={name: list(values) for name, values in (claims or {}).items()},
        key_ids=list(key_ids),
        scopes=list(scopes),
        created_at=now,
    )
    async with broker.database.write() as session:
        session.add(policy)
        await session.flush()
        await record(session, project_id, "policy.created", app_id=app_id, data=_audit_data(policy))
    broker.policies.forget(project_id)
    return policy


async def list_policies(broker: Broker, project_id: str) -> list[AccessPolicy]:
    """Return a project's policies, oldest first."""
    query = select(AccessPolicy).where(AccessPolicy.project_id == project_id)
    async with broker.database.read() as session:
        return list(await session.scalars(query.order_by(AccessPolicy.created_at, AccessPolicy.id)))


async def delete_policy(broker: Broker, project_id: str, policy_id: str, *, principal: Principal | None = None) -> None:
    """Delete a policy. Without any other for its app and action, these are open again.

    Raises:
        NotFound: the project has no such policy.
        PermissionDenied: `principal` is limited to other apps.
    """
    async with broker.database.write() as session:
        policy = await session.get(AccessPolicy, (project_id, policy_id))
        if policy is None:
            raise NotFound(f"Project '{project_id}' has no policy '{policy_id}'.")
        if principal is not None:
            principal.require_app(policy.app_id)
        app_id, data = policy.app_id, _audit_data(policy)
        await session.delete(policy)
        await record(session, project_id, "policy.deleted", app_id=app_id, data=data)
    broker.policies.forget(project_id)


async def check_policies(
    broker: Broker,
    principal: Principal,
    app_id: str,
    action: str,
    *,
    user_id: str,
    tenant_id: str,
    scopes: Collection[str] = (),
) -> None:
    """Check that a policy allows this, if there is any for the app and action. Costs no query for a few seconds.

    `user_id` and `tenant_id` say for whom it would be done; the audit log keeps every denial.

    Raises:
        PermissionDenied: no policy allows it.
    """
    by_use = broker.policies.get(principal.project_id)
    if by_use is None:
        by_use = await _load(broker, principal.project_id)
    policies = by_use.get((app_id, action))
    if policies is None:
        return
    matching = [policy for policy in policies if _is_about(policy, principal)]
    if any(not policy.scopes or set(scopes) <= set(policy.scopes) for policy in matching):
        return
    if matching and await _allowed_in_other_words(broker, principal.project_id, app_id, matching, scopes):
        return
    reason = "scopes" if matching else "principal"
    async with broker.database.write() as session:
        await record(
            session,
            principal.project_id,
            "policy.denied",
            app_id=app_id,
            user_id=user_id,
            tenant_id=tenant_id,
            data={"action": action, "reason": reason, "scopes": sorted(scopes)},
        )
    what = "with these scopes" if matching else "to this credential"
    raise PermissionDenied(f"The access policies of this app forbid '{action}' {what}.")


async def _allowed_in_other_words(
    broker: Broker, project_id: str, app_id: str, matching: Sequence[AccessPolicy], scopes: Collection[str]
) -> bool:
    """Tell whether a policy names these scopes as the provider spells them, or greater ones that contain them."""
    words = scope_words(broker, await load_app(broker, project_id, app_id))
    return any(not words.missing(scopes, policy.scopes) for policy in matching)


async def _load(broker: Broker, project_id: str) -> Mapping[tuple[str, str], Sequence[AccessPolicy]]:
    """Read a project's policies by app and action, and remember them."""
    asked_at = time.monotonic()
    by_use: dict[tuple[str, str], list[AccessPolicy]] = {}
    for policy in await list_policies(broker, project_id):
        by_use.setdefault((policy.app_id, policy.action), []).append(policy)
    broker.policies.put(project_id, by_use, as_of=asked_at)
    return by_use


def _is_about(policy: AccessPolicy, principal: Principal) -> bool:
    if not policy.claims and not policy.key_ids:
        return True
    if principal.claims is None:
        return principal.key_id in policy.key_ids
    claims = principal.claims
    return bool(policy.claims) and all(
        _claim_values(claims.get(name)) & set(values) for name, values in policy.claims.items()
    )


def _claim_values(claim: object) -> set[str]:
    """Return a claim's values as text: one, those of a list, or the names of an object's members."""
    values = claim if isinstance(claim, (list, dict)) else [claim]
    return {str(value).lower() if isinstance(value, bool) else str(value) for value in values if value is not None}


def _audit_data(policy: AccessPolicy) -> dict[str, Any]:
    return {
        "id": policy.id,
        "action": policy.action,
        "claims": policy.claims,
        "keyIds": policy.key_ids,
        "scopes": policy.scopes,
    }
