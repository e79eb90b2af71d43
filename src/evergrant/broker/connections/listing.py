"""Lists of connections without their secrets, and refreshing one on request."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import or_, select

from evergrant.broker.refresh.refresh import refresh_grant
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.db import Grant, GrantStatus
from evergrant.errors import InvalidValue, TokenNotFound


class GrantMetadata(NamedTuple):
    """A connection without its secrets."""

    id: str
    app_id: str
    user_id: str
    tenant_id: str
    external_identifier: str
    status: str
    scopes: list[str]
    requested_scopes: list[str]
    token_sub: str
    token_sub_problem: str
    granted_by: str
    access_token_type: str
    consented_at: datetime
    expires_at: datetime | None
    last_refresh_time: datetime | None
    last_refresh_error: str
    refresh_token_expires_at: datetime | None
    details: dict[str, str]
    has_refresh_token: bool


_COLUMNS = tuple(name for name in GrantMetadata._fields if name != "has_refresh_token")
_SELECTED = [getattr(Grant, name) for name in _COLUMNS]


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
    query = select(*_SELECTED, Grant.refresh_token.is_not(None)).where(Grant.project_id == principal.project_id)
    if principal.is_user:
        principal.require_owner(
            which.user_id or principal.user_id, which.tenant_id or min(principal.tenant_ids, default="")
        )
        tenants = principal.tenant_ids | ({""} if principal.user_id else frozenset())
        query = query.where(Grant.user_id == principal.user_id, Grant.tenant_id.in_(tenants))
    if which.app_id:
        principal.require_app(which.app_id)
    elif principal.app_ids:
        query = query.where(Grant.app_id.in_(principal.app_ids))
    for column, value in (
        (Grant.app_id, which.app_id),
        (Grant.user_id, which.user_id),
        (Grant.tenant_id, which.tenant_id),
        (Grant.status, which.status),
    ):
        if value:
            query = query.where(column == value)
    async with broker.database.read() as session:
        rows = (await session.execute(query.where(Grant.id > after).order_by(Grant.id).limit(limit + 1))).all()
    page = [GrantMetadata._make(row) for row in rows[:limit]]
    return page, page[-1].id if len(rows) > limit else ""


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


async def refresh_now(broker: Broker, principal: Principal, grant_id: str) -> GrantMetadata:
    """Refresh one connection, whether it needs it or not.

    Raises:
        TokenNotFound: there is none with this id, or it has not been confirmed yet.
        InvalidValue: there is no refresh token.
        ReauthorizationRequired, UpstreamRejected, UpstreamUnavailable: as `refresh_grant`.
    """
    query = select(Grant).where(Grant.project_id == principal.project_id, Grant.id == grant_id)
    async with broker.database.read() as session:
        grant = (await session.execute(query)).scalar_one_or_none()
    if grant is None or grant.status == GrantStatus.PENDING:
        raise TokenNotFound("There is no connection with this id.")
    principal.require_app(grant.app_id)
    if grant.refresh_token is None:
        raise InvalidValue.of(("id", "this connection has no refresh token"))
    fresh = await refresh_grant(broker, principal.project_id, grant_id, seen_version=grant.token_version)
    return GrantMetadata._make([*(getattr(fresh, name) for name in _COLUMNS), fresh.refresh_token is not None])
