"""What a visit sees: the accounts of its user, those that the tenant shares, and what can be connected."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, select

from evergrant.app_types import AppType
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.apps.definition import missing_for_connect
from evergrant.broker.apps.quirks import can_revoke
from evergrant.broker.apps.variables import missing_variables, template_of
from evergrant.broker.grants.grants import owner_problems
from evergrant.broker.portal.visits import Visit
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, GrantStatus, GrantUse, OutboundApp

MOST = 200
"""So many accounts are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One connected account."""

    id: str
    app: OutboundApp
    label: str
    """What its owner knows it by; empty where the provider did not say."""
    since: datetime
    used_at: datetime | None
    is_broken: bool
    scopes: Sequence[str]
    external_identifier: str
    is_shared: bool
    """Whether it is the tenant's: then nobody ends it here."""
    granted_by: str
    is_revoked_there: bool
    """Whether the provider is told when it is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """What a visit sees."""

    connected: Sequence[Account]
    """What is broken first, then by app, the oldest first."""
    connectable: Sequence[OutboundApp]
    """Apps that have no account of the user's own yet."""
    can_connect: frozenset[str]
    """Ids of the apps that can be connected at all, from here."""


async def accounts_of(broker: Broker, visit: Visit, *, only: str = "") -> Accounts:
    """Return what a visit sees, of all apps that it is for or of one. Costs two queries."""
    listed = [only] if only else sorted(visit.principal.app_ids)
    if only and visit.principal.app_ids and only not in visit.principal.app_ids:
        return Accounts(connected=(), connectable=(), can_connect=frozenset())
    apps = {app.id: app for app in await list_apps(broker, visit.project.id, only=listed)}
    connected = await _connected(broker, visit, apps)
    own = {account.app.id for account in connected if not account.is_shared}
    possible = [app for app in apps.values() if _can_connect(broker, visit, app)]
    return Accounts(
        connected=connected,
        connectable=sorted((app for app in possible if app.id not in own), key=lambda app: app.name.casefold()),
        can_connect=frozenset(app.id for app in possible),
    )


async def _connected(broker: Broker, visit: Visit, apps: dict[str, OutboundApp]) -> list[Account]:
    owner = visit.owner
    is_its_use = and_(GrantUse.project_id == Grant.project_id, GrantUse.grant_id == Grant.id)
    query = (
        select(
            Grant.id,
            Grant.app_id,
            Grant.user_id,
            Grant.status,
            Grant.scopes,
            Grant.details,
            Grant.token_sub,
            Grant.external_identifier,
            Grant.granted_by,
            Grant.consented_at,
            GrantUse.fetched_at,
        )
        .outerjoin(GrantUse, is_its_use)
        .where(
            Grant.project_id == visit.project.id,
            Grant.app_id.in_(apps),  # with which the owner's index finds them
            Grant.user_id.in_([owner.user_id, ""] if owner.tenant_id else [owner.user_id]),
            Grant.tenant_id == owner.tenant_id,
            Grant.status != GrantStatus.PENDING,
        )
        .order_by(Grant.consented_at, Grant.id)
        .limit(MOST)
    )
    async with broker.database.read() as session:
        rows = (await session.execute(query)).all()
    found = [
        Account(
            id=row.id,
            app=apps[row.app_id],
            label=row.details.get("email") or row.details.get("name") or row.token_sub,
            since=row.consented_at,
            used_at=row.fetched_at,
            is_broken=row.status == GrantStatus.REAUTHORIZATION_REQUIRED,
            scopes=row.scopes,
            external_identifier=row.external_identifier,
            is_shared=not row.user_id,
            granted_by=row.granted_by,
            is_revoked_there=can_revoke(broker, apps[row.app_id]),
        )
        for row in rows
    ]
    return sorted(found, key=lambda one: (not one.is_broken, one.is_shared, one.app.name.casefold()))


def _can_connect(broker: Broker, visit: Visit, app: OutboundApp) -> bool:
    """Tell whether an app can be connected from here, as far as its definition says."""
    if not AppType(app.app_type).is_consented or missing_for_connect(app) or owner_problems(app, visit.owner):
        return False
    if app.require_confirmation and not (visit.return_url or app.default_redirect_url):
        return False  # nobody would confirm it
    return not missing_variables(template_of(broker, app), app.variables)
