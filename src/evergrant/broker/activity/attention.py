"""What somebody has to do something about, the worst first, and how each app is."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, Select, cast, func, literal, null, or_, select
from sqlalchemy import String as Text

from evergrant.broker.activity.writing import REFRESHER
from evergrant.broker.grants.counts import unhealthy_query
from evergrant.broker.refresh.backlog import count_due
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.db import (
    Activity,
    AppLogo,
    Grant,
    GrantCount,
    GrantStatus,
    ManagementKey,
    OutboundApp,
    Webhook,
    WebhookDelivery,
)
from evergrant.db.grant import ATTENTION
from evergrant.db.types import UtcDateTime

MOST_UNHEALTHY = 100_000
"""Counting what is to be connected again, beside the navigation, stops here."""
MOST_WAITING = 1_000
"""So does counting what waits for a webhook."""
MOST_APPS = 1_000
MOST_OF_A_KIND = 20
EXPIRES_SOON = timedelta(days=14)
REFRESHER_MISSING = timedelta(minutes=5)
"""A refresher shows itself each minute. This long without one means that there is none."""


class Trouble(StrEnum):
    """What can need somebody, the worst first."""

    NO_REFRESHER = "no_refresher"
    APP_REFUSED = "app_refused"
    RECONNECT = "reconnect"
    WEBHOOK = "webhook"
    RESTORED = "restored"
    KEY_EXPIRES = "key_expires"


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """One thing that somebody has to do something about."""

    what: Trouble
    app: OutboundApp | None = None
    """The app that it is about; with `RECONNECT`, the one with the most."""
    about: str = ""
    """The id of the webhook or key."""
    name: str = ""
    """The webhook's host or the key's name."""
    since: datetime | None = None
    """Since when; with `KEY_EXPIRES`, when."""
    count: int = 0
    """Connections to be made again, or deliveries that wait."""
    of_app: int = 0
    """With `RECONNECT`: how many of these are the app's."""
    reason: str = ""
    """With `WEBHOOK`: why evergrant has disabled it; empty while it is tried again."""
    next_at: datetime | None = None
    """With `WEBHOOK`: when the next delivery is tried."""


@dataclass(frozen=True, slots=True)
class AppAtAGlance:
    """How one app is."""

    app: OutboundApp
    connections: int | None
    """About how many; None before they were counted."""
    counted_at: datetime | None
    due: int
    due_since: datetime | None
    reconnect: int
    retrying: int
    pending: int
    logo_version: str
    """Of its uploaded logo; empty where it has none."""

    @property
    def unhealthy(self) -> int:
        """Connections that do not work, or may soon not."""
        return self.reconnect + self.retrying


@dataclass(frozen=True, slots=True)
class Glance:
    """How everything is."""

    apps: Sequence[AppAtAGlance]
    concerns: Sequence[Concern]
    refresher_at: datetime | None
    """When a refresher last showed itself, within a day; accurate to a minute or two."""

    @property
    def is_without_refresher(self) -> bool:
        """Whether nothing refreshes in the background."""
        return any(one.what is Trouble.NO_REFRESHER for one in self.concerns)

    @property
    def to_do(self) -> dict[str, int]:
        """What the navigation shows in red."""
        reconnect = sum(app.reconnect for app in self.apps)
        return {"connections": reconnect, "webhooks": sum(one.what is Trouble.WEBHOOK for one in self.concerns)}


async def take_a_glance(broker: Broker, principal: Principal, *, now: datetime) -> Glance:
    """Return how everything is that a principal may see. Three statements, each with an index.

    Raises:
        Unavailable: the database is away.
    """
    async with broker.database.browse() as session:
        apps = (await session.execute(_apps(principal, now))).all()
        unhealthy: dict[str, dict[str, int]] = defaultdict(dict)
        for app_id, status, n in await session.execute(unhealthy_query(principal.project_id, principal.app_ids)):
            unhealthy[app_id][status] = n
        others = (await session.execute(_rest(principal, now))).all()
    glances = [
        AppAtAGlance(
            app,
            connections,
            counted_at,
            due,
            since,
            reconnect=unhealthy[app.id].get(GrantStatus.REAUTHORIZATION_REQUIRED, 0),
            retrying=unhealthy[app.id].get(GrantStatus.ACTIVE, 0),
            pending=unhealthy[app.id].get(GrantStatus.PENDING, 0),
            logo_version=version or "",
        )
        for app, connections, counted_at, due, since, version in apps
    ]
    noted, last_here = _about_the_rest(others)
    concerns = [*_about_apps(glances), *noted]
    # What a process has noted is written after a while: one that has just begun, or come back, cannot tell yet.
    can_tell = broker.database_health.seconds > REFRESHER_MISSING.total_seconds()
    if apps and can_tell and (last_here is None or now - last_here > REFRESHER_MISSING):
        concerns.append(Concern(what=Trouble.NO_REFRESHER, since=last_here))
    order = list(Trouble)
    concerns.sort(key=lambda one: order.index(one.what))
    return Glance(glances, concerns, last_here)


async def count_to_do(broker: Broker, principal: Principal) -> Mapping[str, int]:
    """Return how much waits for somebody to act, by part of the console; some seconds old, for it costs a query."""
    key = (principal.project_id, principal.app_ids)
    return await broker.to_do.get_or_read(key, lambda: _count_to_do(broker, principal))


async def _count_to_do(broker: Broker, principal: Principal) -> Mapping[str, int]:
    dead = select(Grant.id).where(
        Grant.project_id == principal.project_id, Grant.status == GrantStatus.REAUTHORIZATION_REQUIRED, ATTENTION
    )
    if principal.app_ids:
        dead = dead.where(Grant.app_id.in_(principal.app_ids))
    reconnect = select(func.count()).select_from(dead.limit(MOST_UNHEALTHY).subquery()).scalar_subquery()
    failing = select(func.count()).select_from(Webhook).where(*_failing(principal)).scalar_subquery()
    async with broker.database.browse() as session:
        connections, webhooks = (await session.execute(select(reconnect, failing).limit(1))).one()
    return {"connections": connections, "webhooks": webhooks}


def _failing(principal: Principal) -> list[ColumnElement[bool]]:
    is_failing = or_(Webhook.enabled & Webhook.failing_since.is_not(None), Webhook.disabled_reason != "")
    return [Webhook.project_id == principal.project_id, is_failing]


def _apps(principal: Principal, now: datetime) -> Select[OutboundApp, int, datetime, int, datetime | None, str]:
    first = (
        select(func.min(Grant.next_refresh_at))
        .where(Grant.project_id == OutboundApp.project_id, Grant.app_id == OutboundApp.id, Grant.next_refresh_at <= now)
        .scalar_subquery()
    )
    has_logo = (AppLogo.project_id == OutboundApp.project_id) & (AppLogo.app_id == OutboundApp.id)
    counted = (GrantCount.project_id == OutboundApp.project_id) & (GrantCount.app_id == OutboundApp.id)
    query = (
        select(OutboundApp, GrantCount.n, GrantCount.counted_at, count_due(until=now), first, AppLogo.version)
        .outerjoin(GrantCount, counted)
        .outerjoin(AppLogo, has_logo)
        .where(OutboundApp.project_id == principal.project_id)
        .order_by(OutboundApp.name, OutboundApp.id)
        .limit(MOST_APPS)
    )
    return query.where(OutboundApp.id.in_(principal.app_ids)) if principal.app_ids else query


def _rest(principal: Principal, now: datetime) -> Select[Any]:
    """Return the statement for what belongs to no app: webhooks, keys, and when a refresher was last here."""
    waits = (
        WebhookDelivery.project_id == Webhook.project_id,
        WebhookDelivery.webhook_id == Webhook.id,
        WebhookDelivery.next_attempt_at.is_not(None),
    )
    some = select(WebhookDelivery.id).where(*waits).correlate(Webhook).limit(MOST_WAITING + 1).subquery()
    waiting = select(func.count()).select_from(some).scalar_subquery()
    due = select(func.min(WebhookDelivery.next_attempt_at)).where(*waits).scalar_subquery()
    no_time = cast(null(), UtcDateTime)
    webhooks = select(
        literal(Trouble.WEBHOOK.value, Text),
        Webhook.id,
        Webhook.url,
        Webhook.failing_since,
        Webhook.disabled_reason,
        waiting,
        due,
    ).where(*_failing(principal))
    soon = ManagementKey.expires_at.between(now, now + EXPIRES_SOON)
    keys = select(
        literal(Trouble.KEY_EXPIRES.value, Text),
        ManagementKey.id,
        ManagementKey.name,
        ManagementKey.expires_at,
        literal("", Text),
        literal(0),
        no_time,
    ).where(ManagementKey.project_id == principal.project_id, ~ManagementKey.disabled, soon)
    refresher = select(
        literal(Trouble.NO_REFRESHER.value, Text),
        literal("", Text),
        literal("", Text),
        Activity.hour,
        literal("", Text),
        Activity.ms_max,
        no_time,
    ).where(
        Activity.project_id == principal.project_id,
        Activity.hour > now - timedelta(days=1),
        Activity.app_id == "",
        Activity.counter == REFRESHER,
    )
    parts = [select(refresher.order_by(Activity.hour.desc()).limit(1).subquery())]
    # Who may see some apps only is not told what concerns all.
    sees = frozenset[str]() if principal.app_ids else principal.permissions
    if Permission.WEBHOOKS in sees:
        parts.append(select(webhooks.order_by(Webhook.failing_since).limit(MOST_OF_A_KIND).subquery()))
    if Permission.KEYS in sees:
        parts.append(select(keys.order_by(ManagementKey.expires_at).limit(MOST_OF_A_KIND).subquery()))
    first, *rest = parts
    return select(first.union_all(*rest).subquery()) if rest else first


def _about_apps(glances: Sequence[AppAtAGlance]) -> list[Concern]:
    concerns = []
    for one in sorted(glances, key=lambda one: -(one.connections or 0)):
        if (since := one.app.unhealthy_since) is not None:
            count = one.connections if one.connections is not None else one.retrying
            concerns.append(Concern(what=Trouble.APP_REFUSED, app=one.app, since=since, count=count))
        elif one.app.restored_pace == 0:
            concerns.append(Concern(what=Trouble.RESTORED, app=one.app))
    if total := sum(one.reconnect for one in glances):
        most = max(glances, key=lambda one: one.reconnect)
        concerns.append(Concern(what=Trouble.RECONNECT, app=most.app, count=total, of_app=most.reconnect))
    return concerns


def _about_the_rest(rows: Sequence[Any]) -> tuple[list[Concern], datetime | None]:
    concerns, refresher_at = [], None
    for what, about, name, at, reason, n, next_at in rows:
        if what == Trouble.NO_REFRESHER:
            refresher_at = at + timedelta(milliseconds=n)
        elif what == Trouble.WEBHOOK:
            host = urlsplit(name).hostname or ""
            of_webhook = {"about": about, "name": host, "since": at, "reason": reason, "count": n, "next_at": next_at}
            concerns.append(Concern(what=Trouble.WEBHOOK, **of_webhook))
        else:
            concerns.append(Concern(what=Trouble.KEY_EXPIRES, about=about, name=name, since=at))
    return concerns, refresher_at
