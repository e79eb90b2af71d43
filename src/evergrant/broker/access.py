"""Who may do what: management keys, from making one to recognising it.

Recognising is on the hot path. A key that was found is remembered for a few seconds by its digest, so that a revoked
one stops working everywhere within that time and a busy one costs no query.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.principal import ALL_PERMISSIONS, Permission, Principal
from evergrant.broker.runtime import Broker
from evergrant.crypto.opaque import digest, equal, new_id, new_management_key
from evergrant.db import ManagementKey
from evergrant.errors import AuthenticationFailed, InvalidValue, NotFound

REMEMBER_SECONDS = 4.0
"""A revocation is effective everywhere within 5 seconds."""
MAX_REMEMBERED = 10_000
MIN_KEY_LENGTH = 32


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: the only time that its text is known."""

    id: str
    text: str


async def authenticate(broker: Broker, authorization: str, *, client_address: str, now: datetime) -> Principal:
    """Recognise `Bearer <PROJECT_ID>:<MANAGEMENT_KEY>` (RFC 6750 section 2.1; split at the first colon).

    Raises:
        AuthenticationFailed: whatever is wrong with it; only an expired key or a forbidden address is told apart, and
            only to somebody who holds the right key.
        Unavailable: the database cannot be reached.
    """
    scheme, _, credential = authorization.partition(" ")
    project_id, colon, key = credential.strip().partition(":")
    if scheme.lower() != "bearer" or not colon or not key or not project_id:
        raise AuthenticationFailed
    key_digest = digest(key)
    remembered = broker.principals.get((project_id, key_digest))
    if remembered is not None and remembered[1] > time.monotonic():
        principal = remembered[0]
    else:
        principal = await _look_up(broker, project_id, key_digest)
        if len(broker.principals) >= MAX_REMEMBERED:
            broker.principals.clear()
        broker.principals[project_id, key_digest] = (principal, time.monotonic() + REMEMBER_SECONDS)
    principal.check_usable(client_address=client_address, now=now)
    broker.keys_used[project_id, principal.key_id] = now
    return principal


async def _look_up(broker: Broker, project_id: str, key_digest: bytes) -> Principal:
    query = select(ManagementKey).where(ManagementKey.project_id == project_id, ManagementKey.digest == key_digest)
    async with broker.database.read() as session:
        row = (await session.execute(query)).scalar_one_or_none()
    if row is None or row.disabled or not equal(row.digest, key_digest):
        broker.principals.pop((project_id, key_digest), None)
        raise AuthenticationFailed
    return Principal(
        project_id=row.project_id,
        key_id=row.id,
        permissions=frozenset(row.permissions),
        app_ids=frozenset(row.app_ids),
        networks=tuple(ip_network(cidr) for cidr in row.allowed_cidrs),
        expires_at=row.expires_at,
    )


async def create_key(
    session: AsyncSession,
    project_id: str,
    *,
    name: str,
    now: datetime,
    key_id: str | None = None,
    text: str | None = None,
    permissions: Collection[str] = ALL_PERMISSIONS,
    app_ids: Sequence[str] = (),
    allowed_cidrs: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> NewKey:
    """Make a management key; `text` is for a key that the operator's own tools generated.

    Raises:
        InvalidValue: an argument cannot be used; nothing is written.
    """
    problems = [
        ("permissions", f"there is no '{permission}'; use {', '.join(Permission)}")
        for permission in permissions
        if permission not in ALL_PERMISSIONS
    ]
    if not permissions:
        problems.append(("permissions", "give at least one"))
    for cidr in allowed_cidrs:
        try:
            ip_network(cidr)
        except ValueError:
            problems.append(("allowedCidrs", f"'{cidr}' is not a network like 203.0.113.0/24"))
    if problems:
        raise InvalidValue.of(*problems)
    if text is not None:
        check_key_text(text)
    key_id = key_id or new_id(12)
    key = NewKey(key_id, text or new_management_key(key_id))
    session.add(
        ManagementKey(
            project_id=project_id,
            id=key.id,
            name=name,
            digest=digest(key.text),
            permissions=sorted(permissions),
            app_ids=list(app_ids),
            allowed_cidrs=list(allowed_cidrs),
            expires_at=expires_at,
            created_at=now,
        )
    )
    return key


def check_key_text(text: str) -> None:
    """Check a key that the operator's own tools generated.

    Raises:
        InvalidValue: it is too short to be random, or could not stand in a header.
    """
    if len(text) < MIN_KEY_LENGTH or not text.isascii() or any(c.isspace() for c in text):
        raise InvalidValue.of(("managementKey", f"use at least {MIN_KEY_LENGTH} random characters without spaces"))


async def list_keys(broker: Broker, project_id: str) -> list[ManagementKey]:
    """Return a project's keys, oldest first. Their texts are not stored."""
    async with broker.database.read() as session:
        query = select(ManagementKey).where(ManagementKey.project_id == project_id)
        return list(await session.scalars(query.order_by(ManagementKey.created_at, ManagementKey.id)))


async def set_key_disabled(broker: Broker, project_id: str, key_id: str, *, disabled: bool) -> None:
    """Disable a key or enable it again; effective everywhere within 5 seconds.

    Raises:
        NotFound: the project has no such key.
    """
    async with broker.database.write() as session:
        key = await session.get(ManagementKey, (project_id, key_id))
        if key is None:
            raise NotFound(f"Project '{project_id}' has no management key '{key_id}'.")
        key.disabled = disabled
    broker.principals.clear()


async def delete_key(broker: Broker, project_id: str, key_id: str) -> None:
    """Delete a key; effective everywhere within 5 seconds.

    Raises:
        NotFound: the project has no such key.
    """
    async with broker.database.write() as session:
        key = await session.get(ManagementKey, (project_id, key_id))
        if key is None:
            raise NotFound(f"Project '{project_id}' has no management key '{key_id}'.")
        await session.delete(key)
    broker.principals.clear()


async def write_down_use(broker: Broker) -> None:
    """Store when keys were last used. Called about once a minute; a crash loses no more than that."""
    used = dict(broker.keys_used)
    if not used:
        return
    async with broker.database.write() as session:
        for (project_id, key_id), at in used.items():
            await session.execute(
                update(ManagementKey)
                .where(ManagementKey.project_id == project_id, ManagementKey.id == key_id)
                .values(last_used_at=at)
            )
    for key, at in used.items():
        if broker.keys_used.get(key) == at:
            del broker.keys_used[key]
