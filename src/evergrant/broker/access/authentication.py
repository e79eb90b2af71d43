"""Authentication: which management key, user or agent session a credential belongs to.

Recognising is on the hot path. A key that was found is remembered for a few seconds by its digest, so that a revoked
one stops working everywhere within that time and a busy one costs no query.
"""

from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_network

from sqlalchemy import func, select, update

from evergrant.broker.access.agent_sessions import bearer_of
from evergrant.broker.access.management_keys import MIN_KEY_LENGTH
from evergrant.broker.access.user_tokens import authenticate_user, looks_like_jwt
from evergrant.broker.audit.record import Actor, record
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal, with_implied
from evergrant.crypto.opaque import SESSION_PREFIX, digest, equal
from evergrant.db import AuditEvent, ManagementKey, Project
from evergrant.errors import AuthenticationFailed
from evergrant.networks import limited_as

NEW_ADDRESS = "key.used_from_new_address"
BATCH = 500
"""How many uses are written in one transaction."""


async def authenticate(
    broker: Broker, authorization: str, *, client_address: str, now: datetime, resource: str = ""
) -> Principal:
    """Recognise `Bearer <PROJECT_ID>:<MANAGEMENT_KEY>` (RFC 6750 section 2.1; split at the first colon).

    A user's JWT may stand in the key's place; or alone, where one project only trusts its issuer. The key of an agent
    session names its project itself, and may stand either way. `resource` is an address that JWTs may be for, beside
    their issuer's audience (RFC 8707); one that is for it alone is good nowhere else.

    Raises:
        AuthenticationFailed: whatever is wrong with it; only an expired key or a forbidden address is told apart, and
            only to somebody who holds the right key.
        RateLimited: it asks too much; or it is wrong, and this address has brought too many such.
        Unavailable: the database cannot be reached.
    """
    scheme, _, credential = authorization.partition(" ")
    project_id, colon, key = credential.strip().partition(":")
    if scheme.lower() != "bearer" or not colon or not key or not project_id:
        names_itself = looks_like_jwt(project_id) or project_id.startswith(SESSION_PREFIX)
        if scheme.lower() != "bearer" or colon or not names_itself:
            raise AuthenticationFailed
        project_id, key = "", project_id
    if key.startswith(SESSION_PREFIX):
        principal = await _session_or_count(broker, project_id, key, client_address)
    else:
        principal = await _key_or_user(broker, project_id, key, client_address, resource=resource, now=now)
    principal.check_usable(client_address=client_address, now=now)
    broker.limits.of(principal).take((principal.project_id, principal.name))
    if not principal.is_user:
        broker.uses.note_key(project_id, principal.key_id, client_address, at=now)
    return principal


async def _session_or_count(broker: Broker, project_id: str, key: str, client_address: str) -> Principal:
    """Find an agent session. A wrong key counts against the address."""
    network, limit = limited_as(client_address), broker.limits.credentials
    try:
        async with limit.turn(network):
            return await bearer_of(broker, project_id, key)
    except AuthenticationFailed:
        limit.take(network)
        raise


async def _key_or_user(
    broker: Broker, project_id: str, key: str, client_address: str, *, resource: str, now: datetime
) -> Principal:
    """Find a key or user. A wrong one counts against the address; a good one is never refused for those of others."""
    key_digest = digest(key)
    known = (project_id, digest(f"{key} at {resource}") if resource else key_digest)
    principal = broker.principals.get(known)
    if principal is not None:
        return principal
    network, limit = limited_as(client_address), broker.limits.credentials
    try:
        try:
            if len(key) >= MIN_KEY_LENGTH:  # there are no shorter ones
                async with limit.turn(network):
                    return await broker.principals.get_or_read(known, lambda: _look_up(broker, project_id, key_digest))
            raise AuthenticationFailed  # noqa: TRY301 - the handlers below are for this too
        except AuthenticationFailed:
            # An operator's own key may look like a JWT, but no JWT is the text of a key.
            if not looks_like_jwt(key):
                raise
            return await broker.principals.get_or_read(
                known,
                lambda: authenticate_user(broker, project_id, key, network=network, resource=resource, now=now),
            )
    except AuthenticationFailed:
        limit.take(network)
        raise


async def _look_up(broker: Broker, project_id: str, key_digest: bytes) -> Principal:
    query = (
        select(ManagementKey)
        .join(Project, Project.id == ManagementKey.project_id)
        # A call that was under way when the project was closed may have made a key.
        .where(Project.id == project_id, Project.closed_at.is_(None), ManagementKey.digest == key_digest)
    )
    async with broker.database.read() as session:
        row = (await session.execute(query)).scalar_one_or_none()
    if row is None or row.disabled or not equal(row.digest, key_digest):
        raise AuthenticationFailed
    return Principal(
        project_id=row.project_id,
        key_id=row.id,
        permissions=with_implied(row.permissions),
        app_ids=frozenset(row.app_ids),
        networks=tuple(ip_network(cidr) for cidr in row.allowed_cidrs),
        expires_at=row.expires_at,
    )


async def write_key_uses(broker: Broker) -> None:
    """Store when keys were last used, and from which new addresses. Called about once a minute.

    A crash loses no more than that.

    Raises:
        Unavailable: the database is away, or did not come to some of it: what is left is written the next time.
    """

    async def write_addresses(uses: Sequence[tuple[tuple[str, str, str], datetime]]) -> None:
        for (project_id, key_id, address), at in uses:
            await _record_address(broker, project_id, key_id, address, first_use=at)

    async def write_keys(uses: Sequence[tuple[tuple[str, str], datetime]]) -> None:
        async with broker.database.write() as session:
            for (project_id, key_id), at in uses:
                await session.execute(
                    update(ManagementKey)
                    .where(ManagementKey.project_id == project_id, ManagementKey.id == key_id)
                    .values(last_used_at=at, last_used_address=broker.uses.key_addresses.get((project_id, key_id), ""))
                )

    try:
        await broker.uses.addresses.drain(write_addresses, at_once=1)
    finally:
        await broker.uses.keys.drain(write_keys, at_once=BATCH)


async def _record_address(broker: Broker, project_id: str, key_id: str, address: str, *, first_use: datetime) -> None:
    """Tell the audit log of an address that a key was never used from before, as far as the log knows."""
    who = Actor(f"key:{key_id}", address)
    seen = (
        select(func.count())
        .select_from(AuditEvent)
        .where(
            AuditEvent.project_id == project_id,
            AuditEvent.action == NEW_ADDRESS,
            AuditEvent.actor == who.name,
            AuditEvent.remote_address == address,
        )
    )
    broker.uses.know_address(
        project_id, key_id, address
    )  # before, so that one that cannot be written is not noted again
    async with broker.database.write() as session:
        # Without a row there is no key any more, and perhaps no project to write to.
        known = await session.get(ManagementKey, (project_id, key_id)) is None
        if not known and not (await session.execute(seen)).scalar_one():
            data = {"keyId": key_id, "firstUse": first_use.isoformat(timespec="seconds")}
            await record(session, project_id, NEW_ADDRESS, data=data, who=who)
