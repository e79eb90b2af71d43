"""The log of deliveries: reading it, repeating what is in it, trying a webhook out, and forgetting what is old."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.expression import tuple_

from evergrant.broker.runtime.broker import Broker
from evergrant.broker.webhooks.delivery import attempt_delivery, write_claimed
from evergrant.broker.webhooks.outbox import EventType, due_delivery, first_message_id
from evergrant.broker.webhooks.registry import IS_DISABLED, delivery_is_free, load_enabled
from evergrant.db import Webhook, WebhookDelivery
from evergrant.errors import NotFound

BATCH = 1_000
MOST_COUNTED = 5_000


@dataclass(frozen=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries to list; an empty field does not limit."""

    webhook_id: str = ""
    status: str = ""


async def list_deliveries(
    broker: Broker, project_id: str, which: DeliveryFilter, *, before: str, limit: int
) -> tuple[list[WebhookDelivery], str]:
    """Return a page of deliveries, newest first, and the `before` of the next page or an empty string."""
    query = select(WebhookDelivery).where(WebhookDelivery.project_id == project_id)
    for column, value in ((WebhookDelivery.webhook_id, which.webhook_id), (WebhookDelivery.status, which.status)):
        if value:
            query = query.where(column == value)
    if before:
        query = query.where(WebhookDelivery.id < before)
    async with broker.database.browse() as session:
        rows = list(await session.scalars(query.order_by(WebhookDelivery.id.desc()).limit(limit + 1)))
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else ""


@dataclass(frozen=True, slots=True)
class DeliveryCount:
    """What came of a webhook's deliveries lately."""

    delivered: int = 0
    failed: int = 0
    pending: int = 0


async def count_deliveries(broker: Broker, project_id: str, *, since: datetime) -> Mapping[str, DeliveryCount]:
    """Return what came of deliveries that happened at `since` or later, by webhook: of the latest 5,000 at most."""
    latest = (
        select(WebhookDelivery.webhook_id, WebhookDelivery.status)
        .where(WebhookDelivery.project_id == project_id, WebhookDelivery.id >= first_message_id(since))
        .order_by(WebhookDelivery.id.desc())
        .limit(MOST_COUNTED)
        .subquery()
    )
    query = select(latest.c.webhook_id, latest.c.status, func.count()).group_by(latest.c.webhook_id, latest.c.status)
    found: dict[str, dict[str, int]] = {}
    async with broker.database.browse() as session:
        for webhook_id, status, n in await session.execute(query):
            found.setdefault(webhook_id, {})[status] = n
    return {webhook_id: DeliveryCount(**counts) for webhook_id, counts in found.items()}


async def try_webhook(broker: Broker, project_id: str, webhook_id: str, *, now: datetime) -> WebhookDelivery:
    """Send a test, wait for the answer, and return the delivery. One that fails is repeated like any other.

    Raises:
        NotFound: the project has no such webhook.
        InvalidValue: it is disabled.
    """
    columns = due_delivery(project_id, webhook_id, EventType.TEST, {"webhookId": webhook_id}, now=now)
    async with broker.database.write() as session:
        claim = await write_claimed(session, await load_enabled(session, project_id, webhook_id), columns)
    await attempt_delivery(broker, claim, now=now)
    async with broker.database.read() as session:
        return await _get_delivery(session, project_id, claim.delivery.id)


async def replay_delivery(broker: Broker, project_id: str, delivery_id: str, *, now: datetime) -> int:
    """Deliver a delivery again, accepted or not, with its id and its payload. Returns 1.

    Raises:
        NotFound: the project has no such delivery.
        InvalidValue: its webhook is disabled.
    """
    async with broker.database.write() as session:
        row = await _get_delivery(session, project_id, delivery_id)
        await load_enabled(session, project_id, row.webhook_id)
        return await _replay(session, project_id, WebhookDelivery.id == delivery_id, now=now)


async def replay_failed(broker: Broker, project_id: str, webhook_id: str, *, since: datetime, now: datetime) -> int:
    """Deliver again everything of a webhook that was given up and happened at `since` or later. Returns how many.

    Raises:
        NotFound: the project has no such webhook.
        InvalidValue: it is disabled.
    """
    async with broker.database.write() as session:
        await load_enabled(session, project_id, webhook_id)
        return await _replay(
            session,
            project_id,
            WebhookDelivery.webhook_id == webhook_id,
            WebhookDelivery.status == "failed",
            WebhookDelivery.created_at >= since,
            now=now,
        )


async def _replay(session: AsyncSession, project_id: str, *which: ColumnElement[bool], now: datetime) -> int:
    statement = (
        update(WebhookDelivery)
        .where(WebhookDelivery.project_id == project_id, *which)
        .values(status="pending", attempts=0, next_attempt_at=now)
        .returning(WebhookDelivery.id)
        .execution_options(synchronize_session=False)
    )
    return len((await session.execute(statement)).all())


async def clear_old_deliveries(broker: Broker, *, now: datetime) -> int:
    """Forget deliveries that are over and older than the operator keeps them, and previous secrets that no longer sign.

    What waits for a webhook that was disabled in the same moment fails. Returns how many deliveries were forgotten.
    """
    disabled = select(Webhook.project_id, Webhook.id).where(Webhook.enabled.is_(False))
    of_a_disabled = tuple_(WebhookDelivery.project_id, WebhookDelivery.webhook_id).in_(disabled)
    kept = timedelta(days=broker.settings.delivery_retention_days)
    over = and_(WebhookDelivery.created_at < now - kept, WebhookDelivery.status != "pending")
    old = select(WebhookDelivery.project_id, WebhookDelivery.id).where(over).limit(BATCH)
    async with broker.database.write() as session:
        await session.execute(
            update(Webhook)
            .where(Webhook.previous_secret_until <= now)
            .values(previous_secret=None, previous_secret_until=None, secret_version=Webhook.secret_version + 1)
            .execution_options(synchronize_session=False)
        )
        await session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.next_attempt_at.is_not(None), delivery_is_free(), of_a_disabled)
            .values(status="failed", next_attempt_at=None, last_error=IS_DISABLED)
            .execution_options(synchronize_session=False)
        )
    forgotten, gone = 0, BATCH
    while gone == BATCH:
        async with broker.database.write() as session:
            rows = await session.execute(
                delete(WebhookDelivery)
                .where(tuple_(WebhookDelivery.project_id, WebhookDelivery.id).in_(old))
                .returning(WebhookDelivery.id)
                .execution_options(synchronize_session=False)
            )
            gone = len(rows.all())
        forgotten += gone
    return forgotten


async def _get_delivery(session: AsyncSession, project_id: str, delivery_id: str) -> WebhookDelivery:
    row = await session.get(WebhookDelivery, (project_id, delivery_id))
    if row is None:
        raise NotFound(f"Project '{project_id}' has no delivery '{delivery_id}'.")
    return row
