"""What a month of use leaves beside a million connections: counts of activity, records, deliveries, keys."""

import hashlib
import random
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice, product
from typing import Any

from sqlalchemy import insert, select

from evergrant import clock
from evergrant.broker.activity.folding import fold_days
from evergrant.broker.runtime.broker import open_broker
from evergrant.broker.webhooks.outbox import first_message_id
from evergrant.crypto.sealed import Sealed
from evergrant.db import (
    AccessPolicy,
    Activity,
    AuditEvent,
    GrantEvent,
    ManagementKey,
    OutboundApp,
    TrustedIssuer,
    Webhook,
    WebhookDelivery,
)
from evergrant.db.base import Base
from evergrant.settings import Settings

HOURS = 30 * 24
BUSY_APPS = 9
COUNTERS = (
    *(f"fetch:answered:key{n}" for n in range(3)),
    "fetch:refused:key0",
    "connect:started",
    "connect:finished",
    "connect:cancelled",
    "refresh:ok",
    "refresh:retried",
    "call:100",
    "call:250",
    "call:500",
)
"""What a busy app does in each hour."""
RECORDS = 100_000
ACTIONS = ("grant.connected", "connect.started", "grant.deleted", "app.updated", "console.signed_in", "key.created")
DELIVERIES = 30_000
EVENTS = 50
KEYS, WEBHOOKS, ISSUERS, POLICIES = 12, 3, 3, 20
BATCH = 5_000


async def add_month(settings: Settings, project_id: str, *, grant_id: str) -> None:
    """Write it; the connection `grant_id` gets as long a timeline as there is."""
    now = clock.now()
    async with open_broker(settings) as broker, broker.database.write() as session:
        last = select(AuditEvent.sequence).where(AuditEvent.project_id == project_id)
        first = (await session.scalar(last.order_by(AuditEvent.sequence.desc()).limit(1)) or 0) + 1
        tables: tuple[tuple[type[Base], Iterable[dict[str, Any]]], ...] = (
            (ManagementKey, _keys(now)),
            (TrustedIssuer, _issuers(now)),
            (AccessPolicy, _policies(now)),
            (Webhook, _webhooks(now)),
            (WebhookDelivery, _deliveries(now)),
            (Activity, _activity(now)),
            (AuditEvent, _records(now, first)),
            (GrantEvent, _events(now, grant_id)),
        )
        for table, rows in tables:
            left = iter(rows)
            while some := [{"project_id": project_id, **row} for row in islice(left, BATCH)]:
                await session.execute(insert(table), some)
        app = await session.get_one(OutboundApp, (project_id, "app-5"))
        app.unhealthy_since, app.unhealthy_reason = now, "invalid_client"
    async with open_broker(settings) as broker:
        for ago in range(HOURS // 24):  # as a refresher would have done all along
            await fold_days(broker, now=now - timedelta(days=ago))


def _keys(now: datetime) -> Iterator[dict[str, Any]]:
    for n in range(KEYS):
        name = f"key{n}"
        digest = hashlib.sha256(name.encode()).digest()
        yield {"id": name, "name": name, "digest": digest, "permissions": ["tokens:fetch"], "created_at": now}


def _issuers(now: datetime) -> Iterator[dict[str, Any]]:
    for n in range(ISSUERS):
        where = f"https://issuer-{n}.example.com"
        of = {"issuer": where, "jwks_url": f"{where}/keys", "audience": "evergrant"}
        yield {"id": f"issuer{n}", **of, "created_at": now}


def _policies(now: datetime) -> Iterator[dict[str, Any]]:
    for n in range(POLICIES):
        yield {"id": f"policy{n}", "app_id": f"app-{n}", "action": "fetch", "created_at": now}


def _webhooks(now: datetime) -> Iterator[dict[str, Any]]:
    for n in range(WEBHOOKS):
        failing = now if n == 0 else None
        of = {"url": f"https://hooks-{n}.example.com", "secret": Sealed(b"not for opening"), "failing_since": failing}
        yield {"id": f"webhook{n}", **of, "created_at": now}


def _deliveries(now: datetime) -> Iterator[dict[str, Any]]:
    """Yield those of three days: a few were given up, and some wait for the webhook that is down."""
    for n in range(DELIVERIES):
        at = now - timedelta(seconds=n * 8)
        status = "failed" if n % 50 == 0 else "pending" if n < 1_500 and n % WEBHOOKS == 0 else "delivered"
        yield {
            "id": f"{first_message_id(at)}{n:016x}",
            "webhook_id": f"webhook{n % WEBHOOKS}",
            "event_type": "grant.connected",
            "payload": "{}",
            "status": status,
            "next_attempt_at": now if status == "pending" else None,
            "created_at": at,
        }


def _activity(now: datetime) -> Iterator[dict[str, Any]]:
    chance, hour = random.Random(3), now.replace(minute=0, second=0, microsecond=0)
    for ago in range(HOURS):
        at = hour - timedelta(hours=ago)
        yield {"hour": at, "app_id": "", "counter": "refresher", "n": 60, "ms_sum": 0, "ms_max": 3_540_000}
        for app, counter in product(range(BUSY_APPS), COUNTERS):
            n = chance.randrange(5_000)
            of = {"hour": at, "app_id": f"app-{app}", "counter": counter}
            yield {**of, "n": n, "ms_sum": n * 90, "ms_max": 900}


def _records(now: datetime, first: int) -> Iterator[dict[str, Any]]:
    """Yield records whose hashes are none: nobody verifies them here."""
    for n in range(RECORDS):
        yield {
            "sequence": first + n,
            "occurred_at": now - timedelta(seconds=(RECORDS - n) * 26),
            "action": ACTIONS[n % len(ACTIONS)] if n % 5_000 else "project.updated",
            "actor": f"key:key{n % KEYS}",
            "app_id": f"app-{n % BUSY_APPS}",
            "user_id": f"user-{n % 9_973}",
            "previous_hash": bytes(32),
            "hash": bytes(32),
        }


def _events(now: datetime, grant_id: str) -> Iterator[dict[str, Any]]:
    for n in range(EVENTS):
        at = now - timedelta(minutes=50 * n)
        data = {"why": "background", "ms": 140, "rotated": True}
        of = {"grant_id": grant_id, "id": f"{int(at.timestamp() * 1000):012x}{n:016x}"}
        yield {**of, "at": at, "kind": "refreshed", "data": data}
