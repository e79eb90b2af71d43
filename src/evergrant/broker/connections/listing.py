"""Lists of connections without their secrets, one of them, and refreshing it on request."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_, select, union_all
from sqlalchemy.orm import InstrumentedAttribute

from evergrant.broker.connections.metadata import SELECTED, GrantMetadata
from evergrant.broker.grants.events import events_of
from evergrant.broker.refresh.refresh import refresh_grant
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.db import Grant, GrantDirectory, GrantEvent, GrantStatus
from evergrant.db.grant import ATTENTION
from evergrant.errors import InvalidValue, PermissionDenied, TokenNotFound

MOST_QUEUES = 20
"""Of so many apps each is looked up by itself."""
NO_SUCH = "There is no connection with this id."
_IS_ENTRY = and_(GrantDirectory.project_id == Grant.project_id, GrantDirectory.grant_id == Grant.id)


@dataclass(frozen=True, kw_only=True)
class GrantFilter:
    """Which connections; an empty field does not limit."""

    app_id: str = ""
    user_id: str = ""
    tenant_id: str = ""
    status: str = ""


async def list_grants(
    broker: Broker, principal: Principal, which: GrantFilter, *, after: str, limit: int
) -> tuple[list[GrantMetadata], str]:
    """Return a page of connections in the order of their ids, and the `after` of the next page or an empty string.

    A key that is limited to some apps sees those; a user sees its own connections, a tenant's machine its tenants'.

    Raises:
        PermissionDenied: the key is limited to other apps than the one asked about, or a user asks about others.
    """
    if which.app_id:
        principal.require_app(which.app_id)
    owners = _whose(principal, which)
    apps = [which.app_id] if which.app_id else sorted(principal.app_ids)
    query = select(*SELECTED).where(Grant.project_id == principal.project_id)
    if which.status:
        query = query.where(Grant.status == which.status)
    is_of_few = which.status not in ("", GrantStatus.ACTIVE)
    if is_of_few:
        query = query.where(ATTENTION)  # implied, and what the index of such rows wants to hear
    if owners:
        # Whose ids are put in order here: a database that may follow their index instead reads everybody's.
        grant_id = GrantDirectory.grant_id.concat("")
        query = query.join(GrantDirectory, _IS_ENTRY).where(
            GrantDirectory.project_id == principal.project_id, *owners, *_one_of(GrantDirectory.app_id, apps)
        )
        query = query.where(grant_id > after).order_by(grant_id)
    elif apps and not is_of_few and len(apps) <= MOST_QUEUES:
        # Each app's by itself, in the order of their ids: among all, those of a small app are far between.
        parts = [_first_of_app(query, principal, app, after).limit(limit + 1).subquery() for app in apps]
        found = union_all(*(select(part) for part in parts)).subquery()
        query = select(found).order_by(found.c.id)
    else:
        query = query.where(Grant.id > after, *_one_of(Grant.app_id, apps)).order_by(Grant.id)
    async with broker.database.browse() as session:
        rows = (await session.execute(query.limit(limit + 1))).all()
    page = [GrantMetadata.read(row) for row in rows[:limit]]
    seen = [grant for grant in page if principal.sees(grant.app_id, grant.external_identifier)]
    return seen, page[-1].id if len(rows) > limit else ""


def _whose(principal: Principal, which: GrantFilter) -> list[ColumnElement[bool]]:
    """Return the conditions for whose they are: what is asked for, and all that a user may see."""
    pairs = ((GrantDirectory.user_id, which.user_id), (GrantDirectory.tenant_id, which.tenant_id))
    owners: list[ColumnElement[bool]] = [column == value for column, value in pairs if value]
    if principal.is_user:
        principal.require_owner(
            which.user_id or principal.user_id, which.tenant_id or min(principal.tenant_ids, default="")
        )
        owners += [
            GrantDirectory.user_id == principal.user_id,
            GrantDirectory.tenant_id.in_(principal.own_tenants),
        ]
    return owners


def _one_of(column: InstrumentedAttribute[str], apps: Sequence[str]) -> list[ColumnElement[bool]]:
    return [column.in_(apps)] if apps else []


def _first_of_app(query: Select[Any], principal: Principal, app_id: str, after: str) -> Select[Any]:
    entry = (GrantDirectory.project_id == principal.project_id, GrantDirectory.app_id == app_id)
    joined = query.join(GrantDirectory, _IS_ENTRY).where(*entry, GrantDirectory.grant_id > after)
    return joined.order_by(GrantDirectory.grant_id)


async def load_connection(broker: Broker, principal: Principal, grant_id: str) -> GrantMetadata:
    """Return one connection.

    Raises:
        TokenNotFound: there is none with this id, or none of the user who asks.
        PermissionDenied: the key is limited to other apps.
    """
    query = select(*SELECTED).where(Grant.project_id == principal.project_id, Grant.id == grant_id)
    async with broker.database.read() as session:
        row = (await session.execute(query)).one_or_none()
    if row is None:
        raise TokenNotFound(NO_SUCH)
    grant = GrantMetadata.read(row)
    if principal.is_user:
        try:
            principal.require_owner(grant.user_id, grant.tenant_id)
        except PermissionDenied:
            raise TokenNotFound(NO_SUCH) from None
        if not principal.sees(grant.app_id, grant.external_identifier):
            raise TokenNotFound(NO_SUCH)
    principal.require_app(grant.app_id)
    return grant


async def load_with_timeline(
    broker: Broker, principal: Principal, grant_id: str
) -> tuple[GrantMetadata | None, list[GrantEvent]]:
    """Return one connection and what happened to it, the latest first.

    Who may see every app's connections also gets the timeline of one that is gone, for a month: then there is None
    beside it.

    Raises:
        TokenNotFound, PermissionDenied: as `load_connection`.
    """
    grant = None
    try:
        grant = await load_connection(broker, principal, grant_id)
    except TokenNotFound:
        if principal.is_user or principal.app_ids:
            raise
    events = await events_of(broker, principal.project_id, grant_id)
    if grant is None and not events:
        raise TokenNotFound(NO_SUCH)
    return grant, events


async def apps_with_token(
    broker: Broker, principal: Principal, *, user_id: str, tenant_id: str, now: datetime
) -> list[str]:
    """Return the ids of the apps for which a user, within a tenant if one is given, has a connection that works."""
    query = (
        select(Grant.app_id)
        .distinct()
        .where(
            Grant.project_id == principal.project_id,
            Grant.user_id == user_id,
            Grant.tenant_id == tenant_id,
            Grant.status == GrantStatus.ACTIVE,
            or_(Grant.expires_at.is_(None), Grant.expires_at > now, Grant.refresh_token.is_not(None)),
        )
        .order_by(Grant.app_id)
    )
    if principal.app_ids:
        query = query.where(Grant.app_id.in_(principal.app_ids))
    async with broker.database.read() as session:
        return list(await session.scalars(query))


async def refresh_now(
    broker: Broker, principal: Principal, grant_id: str, *, wait_seconds: float | None = None
) -> GrantMetadata:
    """Refresh one connection, whether it needs it or not. It goes on also where nobody waits for it any more.

    Raises:
        TimeoutError: it takes longer than `wait_seconds`.
        TokenNotFound: there is none with this id, or it has not been confirmed yet.
        InvalidValue: there is no refresh token.
        ReauthorizationRequired, UpstreamRejected, UpstreamUnavailable: as `refresh_grant`.
    """
    query = select(Grant).where(Grant.project_id == principal.project_id, Grant.id == grant_id)
    async with broker.database.read() as session:
        grant = (await session.execute(query)).scalar_one_or_none()
    if grant is None or grant.status == GrantStatus.PENDING:
        raise TokenNotFound(NO_SUCH)
    principal.require_app(grant.app_id)
    if grant.refresh_token is None:
        raise InvalidValue.of(("id", "this connection has no refresh token"))
    async with asyncio.timeout(wait_seconds):
        fresh = await refresh_grant(
            broker, principal.project_id, grant_id, seen_version=grant.token_version, forced=True
        )
    return GrantMetadata.of(fresh)
