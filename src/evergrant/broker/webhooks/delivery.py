"""Delivering events to webhooks: claiming, sending, retrying, and giving up.

Any number of processes deliver, with the help of leases on the rows like those on grants. A delivery that was accepted
can still be repeated, when a process dies before it has written that down: its id stays the same, so that the receiver
can tell. Each webhook has its own few places in a process, so that one that is slow holds up itself alone.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.expression import tuple_

from evergrant import clock
from evergrant.broker.runtime.backoff import CHANCE, jittered
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.worker_pool import WorkerPool
from evergrant.broker.webhooks.registry import delivery_is_free, disable_webhook, is_webhook, signing_secrets
from evergrant.crypto.webhook_signature import signature
from evergrant.db import Webhook, WebhookDelivery
from evergrant.db.types import database_now
from evergrant.errors import EvergrantError, Unavailable, UpstreamError
from evergrant.oauth2.failures import retry_after
from evergrant.tracing import Attributes, span

log = logging.getLogger(__name__)

CALL_SECONDS = 15.0
"""How long a receiver may take to answer."""
LEASE_SECONDS = 45.0
"""How long a claim is ours: longer than a call and the write that follows it."""
PAUSES = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)  # to 2 h, 5, 10, 14, 20 and 24 h
)
"""The pause before each further attempt: about three days in all."""
PAUSE_JITTER = (0.9, 1.2)
MAX_ATTEMPTS = len(PAUSES) + 1
MAX_RETRY_AFTER = 86_400
"""Seconds that a receiver can ask us to wait."""
FAILING = timedelta(days=5)
"""A webhook is disabled when one of its deliveries was given up and none was accepted for so long."""
GONE = 410
CONCURRENCY = 64
"""How many deliveries one process has under way: fewer than the connections that it may open."""
PER_WEBHOOK = 8
"""How many of these one webhook may have; a single one while it fails."""
POLL_SECONDS = 0.7
PAUSE_AFTER_FAILURE_SECONDS = 5.0
STOP_SECONDS = 5.0
"""How long a stop waits for deliveries under way. What is cut off is delivered again."""

Key = tuple[str, str]
"""A webhook, by its project and id."""


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A delivery whose lease we hold, with its webhook."""

    webhook: Webhook
    delivery: WebhookDelivery


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """How a receiver answered one attempt. `error` is empty when it accepted."""

    status_code: int | None
    error: str
    wait_seconds: int | None = None
    """What the receiver asked for (`Retry-After`)."""


async def deliver_until(broker: Broker, stop: asyncio.Event) -> None:
    """Deliver what is due until `stop` is set, beginning within about a second of each commit."""
    pool: WorkerPool[Key] = WorkerPool(most=CONCURRENCY, most_per_key=PER_WEBHOOK)
    while not stop.is_set():
        pause, more = jittered(POLL_SECONDS), False  # replicas must not march in step
        try:
            now = clock.now()
            claims, more = await claim_due_deliveries(broker, busy=pool.by_key, now=now)
            for claim in claims:
                pool.start((claim.webhook.project_id, claim.webhook.id), _deliver(broker, claim, now=now))
        except Unavailable as error:
            broker.database_health.note_away(error)
            pause = PAUSE_AFTER_FAILURE_SECONDS
        except EvergrantError:
            log.exception("deliveries could not be read and will be tried again")
            pause = PAUSE_AFTER_FAILURE_SECONDS
        except Exception:
            log.exception("reading deliveries broke")
            pause = PAUSE_AFTER_FAILURE_SECONDS
        if more:  # than we had places for: the next is taken up as soon as one is free
            await pool.wait_for_slot(stop, seconds=pause)
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
    await pool.drain(grace_seconds=STOP_SECONDS)


async def claim_due_deliveries(
    broker: Broker, *, busy: Mapping[Key, int], now: datetime
) -> tuple[list[ClaimedDelivery], bool]:
    """Take the leases of due deliveries, as many as there are places for; `busy` says how many each webhook holds.

    Returns:
        The claims, and whether more may be due.
    """
    due = (
        select(WebhookDelivery.id)
        .where(
            WebhookDelivery.project_id == Webhook.project_id,
            WebhookDelivery.webhook_id == Webhook.id,
            WebhookDelivery.next_attempt_at <= now,
            delivery_is_free(),
        )
        .exists()
    )
    async with broker.database.read() as session:
        waiting = list(await session.scalars(select(Webhook).where(Webhook.enabled, due)))
    CHANCE.shuffle(waiting)  # where there are more webhooks than places, each gets its turn
    claims: list[ClaimedDelivery] = []
    left = CONCURRENCY - sum(busy.values())
    more = False
    for webhook in waiting:
        most = 1 if webhook.failing_since is not None else PER_WEBHOOK
        places = min(most - busy.get((webhook.project_id, webhook.id), 0), left)
        taken = await _claim_of_webhook(broker, webhook, limit=places, now=now) if places > 0 else []
        left -= len(taken)
        more = more or len(taken) >= places
        claims += taken
    return claims, more


async def _claim_of_webhook(broker: Broker, webhook: Webhook, *, limit: int, now: datetime) -> list[ClaimedDelivery]:
    due = (
        select(WebhookDelivery.project_id, WebhookDelivery.id)
        .where(
            WebhookDelivery.project_id == webhook.project_id,
            WebhookDelivery.webhook_id == webhook.id,
            WebhookDelivery.next_attempt_at <= now,
            delivery_is_free(),
        )
        .order_by(WebhookDelivery.next_attempt_at)
        .limit(limit)
        # Two processes must not wait for each other's rows. SQLite has one writer anyway and ignores this.
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(WebhookDelivery)
        .where(tuple_(WebhookDelivery.project_id, WebhookDelivery.id).in_(due))
        .values(**_lease(), attempts=WebhookDelivery.attempts + 1)
        .returning(WebhookDelivery)
        .execution_options(synchronize_session=False)
    )
    async with broker.database.write() as session:
        return [ClaimedDelivery(webhook, delivery) for delivery in await session.scalars(statement)]


async def write_claimed(session: AsyncSession, webhook: Webhook, columns: Mapping[str, Any]) -> ClaimedDelivery:
    """Write a delivery whose lease is already ours, so that nobody else takes it up."""
    statement = insert(WebhookDelivery).values(**columns, **_lease(), attempts=1).returning(WebhookDelivery)
    return ClaimedDelivery(webhook, (await session.execute(statement)).scalar_one())


def _lease() -> dict[str, object]:
    return {"lease_owner": secrets.token_hex(16), "lease_until": database_now(LEASE_SECONDS)}


async def _deliver(broker: Broker, claim: ClaimedDelivery, *, now: datetime) -> None:
    """Make one attempt. Errors go to the row or the log, and stop nothing else."""
    about = {"webhook": claim.webhook.id, "delivery": claim.delivery.id, "project": claim.webhook.project_id}
    attributes: Attributes = {
        **{f"evergrant.{name}": value for name, value in about.items()},
        "evergrant.attempt": claim.delivery.attempts,
    }
    try:
        with span("webhook delivery", attributes):
            await attempt_delivery(broker, claim, now=now)
    except EvergrantError as error:
        # Without a word on the row the lease runs out, and the delivery is due again.
        log.warning("a delivery will be repeated", extra={**about, "error": error.message})
    except Exception:
        log.exception("a delivery broke", extra=about)


async def attempt_delivery(broker: Broker, claim: ClaimedDelivery, *, now: datetime) -> None:
    """Send a claimed delivery, and write down whether it was accepted.

    Raises:
        CannotOpenSealed: the webhook's secret cannot be read; nothing was sent.
        Unavailable: our database is away; it is not known whether it was accepted, and it is sent again.
    """
    started = time.perf_counter()
    result = await _send(broker, claim, now=now)
    ended_at = clock.now()
    counter = f"webhook:{claim.webhook.id}:{'failed' if result.error else 'ok'}"
    broker.activity.note(claim.webhook.project_id, "", counter, (time.perf_counter() - started) * 1000)
    broker.metrics.webhook_deliveries.labels("failed" if result.error else "accepted").inc()
    if result.error:
        await _failed(broker, claim, result, ended_at=ended_at)
    else:
        await _accepted(broker, claim, result, ended_at=ended_at)


async def _send(broker: Broker, claim: ClaimedDelivery, *, now: datetime) -> DeliveryResult:
    keys = await signing_secrets(broker, claim.webhook, now=now)
    body, timestamp = claim.delivery.payload.encode(), int(now.timestamp())
    headers = {
        "content-type": "application/json",
        "webhook-id": claim.delivery.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(keys, message_id=claim.delivery.id, timestamp=timestamp, body=body),
    }
    try:
        async with asyncio.timeout(CALL_SECONDS):
            answer = await broker.webhook_http.post_bytes(claim.webhook.url, body, headers)
    except TimeoutError:
        return DeliveryResult(None, f"The receiver did not answer within {CALL_SECONDS:.0f} s.")
    except UpstreamError as error:
        return DeliveryResult(None, error.message)
    if 200 <= answer.status < 300:
        return DeliveryResult(answer.status, "")
    what = "a redirect, which is not followed" if 300 <= answer.status < 400 else f"{answer.status}"
    return DeliveryResult(answer.status, f"The receiver answered {what}.", retry_after(answer, most=MAX_RETRY_AFTER))


async def _accepted(broker: Broker, claim: ClaimedDelivery, result: DeliveryResult, *, ended_at: datetime) -> None:
    delivery = claim.delivery
    async with broker.database.write() as session:
        # The webhook first, here and everywhere: who deletes one goes the same way.
        await session.execute(
            update(Webhook)
            .where(is_webhook(delivery.project_id, delivery.webhook_id), Webhook.failing_since.is_not(None))
            .values(failing_since=None)
            .execution_options(synchronize_session=False)
        )
        await session.execute(
            update(WebhookDelivery)
            .where(_is_ours(delivery))
            .values(status="delivered", next_attempt_at=None, **_noted(result, ended_at=ended_at))
            .execution_options(synchronize_session=False)
        )


async def _failed(broker: Broker, claim: ClaimedDelivery, result: DeliveryResult, *, ended_at: datetime) -> None:
    delivery = claim.delivery
    failing = (
        update(Webhook)
        .where(is_webhook(delivery.project_id, delivery.webhook_id))
        .values(failing_since=func.coalesce(Webhook.failing_since, ended_at))
        .returning(Webhook)
        .execution_options(synchronize_session=False)
    )
    async with broker.database.write() as session:
        webhook = (await session.execute(failing)).scalar_one_or_none()
        if webhook is None or webhook.failing_since is None:
            return  # deleted, and the delivery with it
        gone = result.status_code == GONE
        over = gone or delivery.attempts >= MAX_ATTEMPTS or not webhook.enabled
        due = None if over else ended_at + _pause_before_next(delivery.attempts, result)
        written = await session.execute(
            update(WebhookDelivery)
            .where(_is_ours(delivery))
            .values(status="failed" if over else "pending", next_attempt_at=due, **_noted(result, ended_at=ended_at))
            .returning(WebhookDelivery.id)
            .execution_options(synchronize_session=False)
        )
        hopeless = over and ended_at - webhook.failing_since >= FAILING
        if written.all() and webhook.enabled and (gone or hopeless):
            reason = "gone" if gone else "failing"
            about = {"webhook": webhook.id, "project": webhook.project_id, "reason": reason}
            log.error("a webhook is disabled", extra=about)
            await disable_webhook(session, webhook, reason=reason, data={"error": result.error})


def _noted(result: DeliveryResult, *, ended_at: datetime) -> dict[str, object]:
    return {
        "last_attempt_at": ended_at,
        "last_status_code": result.status_code,
        "last_error": result.error,
        "lease_owner": None,
        "lease_until": None,
    }


def _pause_before_next(attempts: int, result: DeliveryResult) -> timedelta:
    """Return the pause after this many attempts, with jitter, and no shorter than the receiver asked for."""
    return max(jittered(PAUSES[attempts - 1], PAUSE_JITTER), timedelta(seconds=result.wait_seconds or 0))


def _is_ours(delivery: WebhookDelivery) -> ColumnElement[bool]:
    return and_(
        WebhookDelivery.project_id == delivery.project_id,
        WebhookDelivery.id == delivery.id,
        WebhookDelivery.lease_owner == delivery.lease_owner,
    )
