"""Management keys: making, changing and deleting them. A key manages only keys that can do no more than itself."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network
from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.record import record
from evergrant.broker.runtime.authority import Authority, require_no_more
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import ALL_PERMISSIONS, Permission, Principal, with_implied
from evergrant.crypto.opaque import KEY_PREFIX, SESSION_PREFIX, digest, is_management_key, new_id, new_management_key
from evergrant.db import ManagementKey
from evergrant.errors import AlreadyExists, InvalidValue, NotFound, PermissionDenied

MIN_KEY_LENGTH = 32
MIN_DIFFERENT_CHARACTERS = 10
"""Of 32 random hexadecimal digits, fewer than one text in ten thousand has less."""
MAX_DESCRIPTION = 2_000
MOST_NETWORKS, MOST_APPS = 100, 500


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: the only time that its text is known."""

    id: str
    text: str


async def create_key(
    session: AsyncSession,
    project_id: str,
    *,
    name: str,
    now: datetime,
    description: str = "",
    key_id: str | None = None,
    text: str | None = None,
    permissions: Collection[str] = ALL_PERMISSIONS,
    app_ids: Sequence[str] = (),
    allowed_cidrs: Sequence[str] = (),
    expires_at: datetime | None = None,
    replaces: str = "",
    maker: Principal | None = None,
) -> NewKey:
    """Make a management key, as the last step of the caller's transaction.

    `text` is for a key that the operator's own tools generated, `replaces` the id of a key whose place it takes,
    `maker` for a key that asks for another.

    Raises:
        AlreadyExists: there is a key with this `key_id`.
        InvalidValue: an argument cannot be used; nothing is written.
        PermissionDenied: the new key could do more than its maker.
    """
    problems = [
        ("permissions", f"there is no '{permission}'; use {', '.join(Permission)}")
        for permission in permissions
        if permission not in ALL_PERMISSIONS
    ]
    if not permissions:
        problems.append(("permissions", "give at least one"))
    problems += _length_problems(description, app_ids) + network_problems("allowedCidrs", allowed_cidrs)
    if replaces and await session.get(ManagementKey, (project_id, replaces)) is None:
        problems.append(("replaces", "there is no such key"))
    if problems:
        raise InvalidValue.of(*problems)
    if text is not None:
        check_key_text(text)
    key_id = key_id or new_id(12)
    key = NewKey(key_id, text or new_management_key(key_id))
    row = ManagementKey(
        project_id=project_id,
        id=key.id,
        name=name,
        description=description,
        digest=digest(key.text),
        permissions=sorted(permissions),
        app_ids=list(app_ids),
        allowed_cidrs=list(allowed_cidrs),
        expires_at=expires_at,
        created_at=now,
        replaces=replaces,
    )
    if maker is not None:
        _require_no_more(maker, row)
    session.add(row)
    try:
        await session.flush()
    except IntegrityError:
        if text is not None:
            raise
        raise AlreadyExists("This key was made already, and its text was shown then.") from None
    data = {"keyId": key.id, "name": name, "permissions": row.permissions, "appIds": row.app_ids}
    if replaces:
        data["replaces"] = replaces
    await record(session, project_id, "key.created", data=data)
    return key


def network_problems(field: str, networks: Sequence[str]) -> list[tuple[str, str]]:
    """Check the networks that a key shall work from, and return what is wrong as `(field, problem)` pairs."""
    if len(networks) > MOST_NETWORKS:
        return [(field, f"use at most {MOST_NETWORKS}")]
    problems = []
    for network in networks:
        try:
            ip_network(network)
        except ValueError:
            problems.append((field, f"'{network[:64]}' is not an address or a network like 203.0.113.0/24"))
    return problems


def _length_problems(description: str, app_ids: Sequence[str] = ()) -> list[tuple[str, str]]:
    problems = []
    if len(description) > MAX_DESCRIPTION:
        problems.append(("description", f"use at most {MAX_DESCRIPTION:,} characters"))
    if len(app_ids) > MOST_APPS:
        problems.append(("appIds", f"use at most {MOST_APPS}"))
    return problems


def check_key_text(text: str) -> None:
    """Check a key that the operator's own tools generated.

    Raises:
        InvalidValue: it is too short to be random, or could not stand in a header; it is one that can be guessed; or
            it is one of ours, mistyped.
    """
    if len(text) < MIN_KEY_LENGTH or not all("!" <= c <= "~" for c in text):
        raise InvalidValue.of(("managementKey", f"use at least {MIN_KEY_LENGTH} random characters without spaces"))
    if _can_be_guessed(text):
        problem = "it can be guessed: take random characters, such as 'openssl rand -base64 32' prints"
        raise InvalidValue.of(("managementKey", problem))
    if text.startswith(SESSION_PREFIX):
        raise InvalidValue.of(("managementKey", f"begins with {SESSION_PREFIX}, as keys of agent sessions do"))
    if text.startswith(KEY_PREFIX) and not is_management_key(text):
        raise InvalidValue.of(("managementKey", "its checksum is wrong: copy the whole key again"))


def _can_be_guessed(text: str) -> bool:
    """Tell whether a text has few different characters, repeats itself, or counts up or down most of the way."""
    if len(set(text)) < MIN_DIFFERENT_CHARACTERS:
        return True
    if any(text[period:] == text[:-period] for period in range(1, len(text) // 2 + 1)):
        return True
    steps = [abs(ord(one) - ord(other)) <= 1 for one, other in pairwise(text.lower())]
    return sum(steps) * 2 > len(steps)


def authority_of(key: ManagementKey) -> Authority:
    """Return what a key can do."""
    return Authority(
        permissions=with_implied(key.permissions),
        app_ids=frozenset(key.app_ids),
        networks=tuple(ip_network(cidr) for cidr in key.allowed_cidrs),
        expires_at=key.expires_at,
    )


def _require_no_more(principal: Principal, key: ManagementKey) -> None:
    require_no_more(principal, authority_of(key), what="the other key")


def manages(principal: Principal, key: ManagementKey) -> bool:
    """Tell whether a key can do no more than the one that asks, which may then read and change it."""
    try:
        _require_no_more(principal, key)
    except PermissionDenied:
        return False
    return True


async def list_keys(
    broker: Broker, project_id: str, *, reader: Principal | None = None, most: int | None = None
) -> list[ManagementKey]:
    """Return a project's keys, oldest first; for a `reader`, those that it manages. Their texts are not stored.

    `most` is how many are looked at; None for all.
    """
    query = select(ManagementKey).where(ManagementKey.project_id == project_id)
    query = query.order_by(ManagementKey.created_at, ManagementKey.id).limit(most)
    async with broker.database.read() as session:
        keys = list(await session.scalars(query))
    return [key for key in keys if reader is None or manages(reader, key)]


async def load_key(broker: Broker, principal: Principal, key_id: str) -> ManagementKey:
    """Return a key.

    Raises:
        NotFound: the project has no such key.
        PermissionDenied: it can do more than the one that asks.
    """
    async with broker.database.read() as session:
        key = await _get_key(session, principal.project_id, key_id)
    _require_no_more(principal, key)
    return key


async def _get_key(session: AsyncSession, project_id: str, key_id: str) -> ManagementKey:
    key = await session.get(ManagementKey, (project_id, key_id))
    if key is None:
        raise NotFound(f"Project '{project_id}' has no management key '{key_id}'.")
    return key


@dataclass(frozen=True, kw_only=True)
class KeyChange:
    """What an update replaces. Permissions, apps and expiry of a key cannot be changed."""

    name: str
    description: str
    allowed_cidrs: Sequence[str]
    disabled: bool


async def update_key(broker: Broker, principal: Principal, key_id: str, change: KeyChange) -> ManagementKey:
    """Change a key; effective everywhere within 5 seconds.

    Raises:
        InvalidValue: an argument cannot be used; nothing is changed.
        NotFound: the project has no such key.
        PermissionDenied: the key, as it is or as it would be, can do more than the one that asks.
    """
    if problems := _length_problems(change.description) + network_problems("permittedIps", change.allowed_cidrs):
        raise InvalidValue.of(*problems)
    async with broker.database.write() as session:
        key = await _get_key(session, principal.project_id, key_id)
        _require_no_more(principal, key)
        before = {field: getattr(key, field) for field in ("name", "description", "allowed_cidrs", "disabled")}
        key.name, key.description, key.disabled = change.name, change.description, change.disabled
        key.allowed_cidrs = list(change.allowed_cidrs)
        _require_no_more(principal, key)
        wire = {"allowed_cidrs": "permittedIps", "disabled": "status"}
        changed = [wire.get(field, field) for field, value in before.items() if getattr(key, field) != value]
        if changed == ["status"]:
            await _record_disabled(session, key)
        else:
            await record(session, key.project_id, "key.updated", data={"keyId": key.id, "fields": changed})
    broker.forget_credentials()
    return key


async def set_key_disabled(broker: Broker, project_id: str, key_id: str, *, disabled: bool) -> None:
    """Disable a key or enable it again; effective everywhere within 5 seconds.

    Raises:
        NotFound: the project has no such key.
    """
    async with broker.database.write() as session:
        key = await _get_key(session, project_id, key_id)
        key.disabled = disabled
        await _record_disabled(session, key)
    broker.forget_credentials()


async def _record_disabled(session: AsyncSession, key: ManagementKey) -> None:
    action = "key.disabled" if key.disabled else "key.enabled"
    await record(session, key.project_id, action, data={"keyId": key.id, "name": key.name})


async def delete_key(broker: Broker, project_id: str, key_id: str) -> None:
    """Delete a key; effective everywhere within 5 seconds.

    Raises:
        NotFound: the project has no such key.
    """
    async with broker.database.write() as session:
        key = await _get_key(session, project_id, key_id)
        await session.delete(key)
        await record(session, project_id, "key.deleted", data={"keyId": key.id, "name": key.name})
    broker.forget_credentials()


async def delete_keys(broker: Broker, principal: Principal, key_ids: Sequence[str]) -> int:
    """Delete those of these keys that exist, all of them or none, and return how many there were.

    Raises:
        PermissionDenied: one of them can do more than the key that asks; nothing is deleted.
    """
    query = select(ManagementKey).where(
        ManagementKey.project_id == principal.project_id, ManagementKey.id.in_(set(key_ids))
    )
    async with broker.database.write() as session:
        found = list(await session.scalars(query.order_by(ManagementKey.id)))
        for key in found:
            _require_no_more(principal, key)
        for key in found:
            await session.delete(key)
        await session.flush()
        for key in found:
            await record(session, principal.project_id, "key.deleted", data={"keyId": key.id, "name": key.name})
    broker.forget_credentials()
    return len(found)
