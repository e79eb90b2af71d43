"""Access policies: who may fetch, connect or call which app, with which scopes or methods and paths.

An app and action without a policy are open, as ever, to everybody who is authenticated for them. As soon as there is
one, at least one must match. A policy that names claims is about users, one that names keys is about those management
keys, and one that names neither is about everybody.

A policy also names levels: whose connections it is about, users' or tenants' own. Without levels it is about both, but
for one thing: a user connects a tenant's own only where a policy says `tenant`. Who may make policies is
`policy_makers`.

Policies about calls can also deny, or ask for approval. What they say to one call is for `calls.call_rules`.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.access.policy_makers import require_may_make, require_may_remove
from evergrant.broker.access.policy_problems import problems_of_policy
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.quirks import scope_words
from evergrant.broker.audit.record import record
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.admission import (
    CALL,
    CONNECT,
    FETCH,
    LEVELS,
    TENANT,
    USER,
    VIAS,
    KnownPolicy,
    is_about,
)
from evergrant.broker.runtime.authority import Authority, require_no_more
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.path_globs import METHODS
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.crypto.opaque import new_id
from evergrant.db import AccessPolicy, ManagementKey, OutboundApp
from evergrant.errors import AppNotFound, InvalidValue, NotFound, PermissionDenied
from evergrant.oauth2.scopes import stands_for


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
    levels: Sequence[str] = (),
    methods: Sequence[str] = (),
    paths: Sequence[str] = (),
    agents: Sequence[str] = (),
    via: Sequence[str] = (),
    effect: str = "allow",
    maker: Principal | None = None,
) -> AccessPolicy:
    """Make a policy that allows an action to these users or keys, with at most these scopes; empty does not limit.

    Methods, paths, ways and another effect than `allow` are for calls. `maker` is the key that asks for it; None
    for the operator.

    Raises:
        AppNotFound: there is no such app.
        InvalidValue: an argument cannot be used; nothing is written.
        PermissionDenied: the policy would allow more than its maker may do itself.
    """
    await load_app(broker, project_id, app_id)
    policy = AccessPolicy(
        project_id=project_id,
        id=new_id(22),
        app_id=app_id,
        action=action,
        claims={name: list(values) for name, values in (claims or {}).items()},
        key_ids=list(key_ids),
        scopes=list(scopes),
        levels=_in_order(levels, LEVELS),
        methods=_in_order(methods, METHODS),
        paths=list(paths),
        agents=list(agents),
        via=_in_order(via, VIAS),
        effect=effect,
        created_at=now,
    )
    problems = problems_of_policy(policy)
    if problems:
        raise InvalidValue.of(*problems)
    async with broker.database.read() as session:
        for key_id in key_ids:
            if await session.get(ManagementKey, (project_id, key_id)) is None:
                problems.append(("keyIds", "one is not a management key of this project"))
    if problems:
        raise InvalidValue.of(*problems)
    async with broker.database.write() as session:
        existing = await _lock_policies(session, project_id, app_id, action)
        if maker is not None:
            require_may_make(maker, policy, existing)
        session.add(policy)
        await session.flush()
        await record(session, project_id, "policy.created", app_id=app_id, data=_audit_data(policy))
    broker.policies.forget(project_id)
    return policy


def _in_order(values: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return each value once, the known ones in their order and before any other."""
    return [*(value for value in known if value in values), *(value for value in values if value not in known)]


async def list_policies(broker: Broker, project_id: str) -> list[AccessPolicy]:
    """Return a project's policies, oldest first."""
    query = select(AccessPolicy).where(AccessPolicy.project_id == project_id)
    async with broker.database.read() as session:
        return list(await session.scalars(query.order_by(AccessPolicy.created_at, AccessPolicy.id)))


async def delete_policy(broker: Broker, project_id: str, policy_id: str, *, principal: Principal | None = None) -> None:
    """Delete a policy. Without any other for its app and action, these are open again.

    Raises:
        NotFound: the project has no such policy.
        PermissionDenied: the policy allows more than `principal` may do itself, or removing it would.
    """
    async with broker.database.write() as session:
        policy = await session.get(AccessPolicy, (project_id, policy_id))
        existing = []
        if policy is not None:
            existing = await _lock_policies(session, project_id, policy.app_id, policy.action)
        if policy is None or policy not in existing:
            raise NotFound(f"Project '{project_id}' has no policy '{policy_id}'.")
        app_id, data = policy.app_id, _audit_data(policy)
        if principal is not None:
            require_may_remove(principal, policy, existing)
        await session.delete(policy)
        await record(session, project_id, "policy.deleted", app_id=app_id, data=data)
    broker.policies.forget(project_id)


async def require_may_delete_with_app(broker: Broker, principal: Principal, app_id: str) -> None:
    """Check that a key deletes no app with policies that it may not remove: an app made in its place would be open.

    Raises:
        PermissionDenied: it does.
    """
    if any(policy.app_id == app_id for policy in await list_policies(broker, principal.project_id)):
        made = Authority(permissions=frozenset({Permission.POLICIES}), app_ids=frozenset({app_id}))
        require_no_more(principal, made, what="the deletion of an app with access policies")


async def _lock_policies(session: AsyncSession, project_id: str, app_id: str, action: str) -> list[AccessPolicy]:
    """Return the policies for an app and action; nobody makes or deletes one until the transaction ends.

    Raises:
        AppNotFound: the app was deleted.
    """
    mine = (OutboundApp.project_id == project_id, OutboundApp.id == app_id)
    if (await session.execute(select(OutboundApp.id).where(*mine).with_for_update())).scalar_one_or_none() is None:
        raise AppNotFound
    query = select(AccessPolicy).where(
        AccessPolicy.project_id == project_id, AccessPolicy.app_id == app_id, AccessPolicy.action == action
    )
    return list(await session.scalars(query))


def are_known_to_be_none(broker: Broker, principal: Principal, app_id: str, action: str) -> bool:
    """Tell whether it is remembered that an app and action have no policy, so that nothing else need be asked."""
    by_use = broker.policies.get(principal.project_id)
    return by_use is not None and (app_id, action) not in by_use


async def may_have_tokens(broker: Broker, principal: Principal, app_id: str) -> bool:
    """Tell whether nothing keeps an app's tokens from somebody. Whom a policy might keep them from does not count."""
    if Permission.TOKENS_FETCH not in principal.permissions:
        return False
    return (app_id, FETCH) not in await _by_use(broker, principal)


async def check_policies(
    broker: Broker,
    principal: Principal,
    app_id: str,
    action: str,
    *,
    owner: ResourceOwner,
    granted_by: str = "",
    scopes: Collection[str] = (),
) -> None:
    """Check that a policy allows this, if there is any for the app and action. Costs no query for a few seconds.

    `owner` says whose connection it is, `granted_by` which user connects a tenant's. The audit log keeps one denial a
    minute of who was denied what with which app.

    Raises:
        PermissionDenied: no policy allows it.
    """
    policies = (await _by_use(broker, principal)).get((app_id, action))
    must_be_named = bool(action == CONNECT and principal.user_id and not owner.user_id)
    if policies is None and not must_be_named:
        return
    level = USER if owner.user_id else TENANT
    about = [policy for policy in policies or () if is_about(policy, principal)]
    matching = [policy for policy in about if level in (policy.levels or (() if must_be_named else LEVELS))]
    if any(not policy.scopes or set(scopes) <= set(policy.scopes) for policy in matching):
        return
    if matching and await _allowed_in_other_words(broker, principal.project_id, app_id, matching, scopes):
        return
    reason = "scopes" if matching else "level" if about or must_be_named else "principal"
    # A write for each would let whoever is denied fill the log, and hold up the project's other records.
    if broker.limits.denials.allows((principal.project_id, principal.name, app_id, action)):
        async with broker.database.write() as session:
            await record(
                session,
                principal.project_id,
                "policy.denied",
                app_id=app_id,
                user_id=granted_by or owner.user_id,
                tenant_id=owner.tenant_id,
                data={"action": action, "reason": reason, "scopes": sorted(scopes), "level": level},
            )
    if must_be_named and not matching:
        raise PermissionDenied(
            "A user connects a tenant's own connection only where an access policy of this app says so: make a policy "
            "for 'connect' with levels: ['tenant'], for those users, or let your backend start the connect trip."
        )
    whose = "for a tenant's own connection" if level == TENANT else "for a user's connection"
    what = {"scopes": "with these scopes", "level": whose, "principal": "to this credential"}[reason]
    raise PermissionDenied(f"The access policies of this app forbid '{action}' {what}.")


async def call_policies(broker: Broker, principal: Principal, app_id: str) -> Sequence[KnownPolicy]:
    """Return all policies about calls of an app, whomever they are about. Costs no query for a few seconds."""
    return (await _by_use(broker, principal)).get((app_id, CALL), ())


async def _allowed_in_other_words(
    broker: Broker, project_id: str, app_id: str, matching: Sequence[KnownPolicy], scopes: Collection[str]
) -> bool:
    """Tell whether a policy names these scopes as the provider spells them, or greater ones that contain them.

    One with a `{variable}` is any that has a value there.
    """
    words = scope_words(broker, await load_app(broker, project_id, app_id))
    return any(
        all(any(stands_for(one, scope) for one in policy.scopes) for scope in words.missing(scopes, policy.scopes))
        for policy in matching
    )


async def _by_use(broker: Broker, principal: Principal) -> Mapping[tuple[str, str], Sequence[KnownPolicy]]:
    """Return a project's policies by app and action, from memory for a few seconds."""

    async def read() -> Mapping[tuple[str, str], Sequence[KnownPolicy]]:
        by_use: dict[tuple[str, str], list[KnownPolicy]] = {}
        for policy in await list_policies(broker, principal.project_id):
            by_use.setdefault((policy.app_id, policy.action), []).append(KnownPolicy.of(policy))
        return by_use

    return await broker.policies.get_or_read(principal.project_id, read)


def _audit_data(policy: AccessPolicy) -> dict[str, Any]:
    of_calls = {"methods": policy.methods, "paths": policy.paths, "agents": policy.agents, "via": policy.via}
    more: dict[str, Any] = {name: values for name, values in of_calls.items() if values}
    if policy.effect != "allow":
        more["effect"] = policy.effect
    return {
        "id": policy.id,
        "action": policy.action,
        "claims": policy.claims,
        "keyIds": policy.key_ids,
        "scopes": policy.scopes,
        "levels": policy.levels,
        **more,
    }
