"""Deliveries of webhooks: the log of them, a test, and delivering again."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field

from evergrant import clock
from evergrant.broker.webhooks import log as webhook_log
from evergrant.broker.webhooks.log import DeliveryFilter
from evergrant.db import WebhookDelivery
from evergrant.errors import InvalidRequest, InvalidValue
from evergrant.web.api.webhook_wire import WEBHOOK_ID, WhichWebhook
from evergrant.web.api.wire import StrictWireModel, Text, WireModel, epoch, errors, example
from evergrant.web.deps import BrokerDep, WebhooksKeeper
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["webhooks"])

_MESSAGE = "msg_019573f1c2d04f8a9b3c6d7e"
_DELIVERY = {
    "id": _MESSAGE,
    "webhookId": WEBHOOK_ID,
    "eventType": "webhook.test",
    "status": "delivered",
    "attempts": 1,
    "createdTime": "1741103514",
    "lastAttemptTime": "1741103515",
    "nextAttemptTime": "",
    "lastStatusCode": 204,
    "lastError": "",
    "payload": '{"type":"webhook.test","timestamp":"2025-03-04T15:51:54.000Z","data":{"projectId":"P2nq5Jx8Vb"}}',
}
LAST_SECOND = 253_402_300_799
"""The end of the year 9999."""

AnId = Annotated[Text, Query(max_length=32)]


class Replay(StrictWireModel):
    """One delivery, or all of a webhook's that failed."""

    model_config = example({"deliveryId": _MESSAGE})

    delivery_id: Annotated[Text, Field(max_length=32)] = Field(default="", description="This one, whatever came of it.")
    webhook_id: Annotated[Text, Field(max_length=22)] = Field(
        default="", description="Instead: every delivery of this webhook that failed."
    )
    since: int = Field(
        default=0, ge=0, le=LAST_SECOND, strict=True, description="Of these, what happened from then on. Epoch seconds."
    )


class DeliveryBody(WireModel):
    """One event for one webhook."""

    id: str = Field(description="The receiver knows it as `webhook-id`, the same at every attempt.")
    webhook_id: str
    event_type: str
    status: Literal["pending", "delivered", "failed"] = Field(description="`failed`: given up; it can be replayed.")
    attempts: int = Field(description="Begun so far, since it happened or was replayed.")
    created_time: str = Field(description="Epoch seconds as text: when it happened.")
    last_attempt_time: str = Field(description="Epoch seconds as text; empty before the first.")
    next_attempt_time: str = Field(description="Epoch seconds as text; empty when it is over.")
    last_status_code: int = Field(description="What the receiver answered to the last attempt; 0 without an answer.")
    last_error: str = Field(description="What was wrong with the last attempt; empty when nothing was.")
    payload: str = Field(description="The text that is sent.")


class DeliveryAnswer(WireModel):
    """One delivery."""

    model_config = example({"delivery": _DELIVERY})

    delivery: DeliveryBody


class DeliveriesAnswer(WireModel):
    """A page of deliveries."""

    model_config = example({"deliveries": [_DELIVERY], "nextCursor": ""})

    deliveries: list[DeliveryBody]
    next_cursor: str = Field(description="`cursor` of the next page; empty on the last.")


class DeliveryCountBody(WireModel):
    """What came of one webhook's deliveries."""

    webhook_id: str
    delivered: int
    failed: int
    pending: int


class DeliveryCountsAnswer(WireModel):
    """Webhooks with deliveries within the last 24 hours."""

    model_config = example({"counts": [{"webhookId": WEBHOOK_ID, "delivered": 412, "failed": 3, "pending": 1}]})

    counts: list[DeliveryCountBody]


class ReplayAnswer(WireModel):
    """How many deliveries are made again."""

    model_config = example({"replayed": 1})

    replayed: int


def _delivery(row: WebhookDelivery) -> DeliveryBody:
    return DeliveryBody.model_validate(
        {
            "id": row.id,
            "webhook_id": row.webhook_id,
            "event_type": row.event_type,
            "status": row.status,
            "attempts": row.attempts,
            "created_time": epoch(row.created_at),
            "last_attempt_time": epoch(row.last_attempt_at),
            "next_attempt_time": epoch(row.next_attempt_at),
            "last_status_code": row.last_status_code or 0,
            "last_error": row.last_error,
            "payload": row.payload,
        }
    )


@router.post("/webhook/test", summary="Try a webhook out", responses=errors(400, 404, 413))
async def try_webhook(body: WhichWebhook, broker: BrokerDep, principal: WebhooksKeeper) -> DeliveryAnswer:
    """Send a `webhook.test`, wait for the answer (15 s at most), and say what came of it."""
    principal.require_every_app()
    row = await webhook_log.try_webhook(broker, principal.project_id, body.id, now=clock.now())
    return DeliveryAnswer(delivery=_delivery(row))


@router.get("/webhook/deliveries", summary="List deliveries", responses=errors(400))
async def list_deliveries(
    broker: BrokerDep,
    principal: WebhooksKeeper,
    webhook_id: Annotated[AnId, Query(alias="webhookId", description="Of this webhook.", examples=[WEBHOOK_ID])] = "",
    status: Annotated[
        Literal["", "pending", "delivered", "failed"], Query(description="In this state.", examples=["failed"])
    ] = "",
    cursor: Annotated[AnId, Query(description="`nextCursor` of the page before.", examples=[_MESSAGE])] = "",
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.", examples=[50])] = 50,
) -> DeliveriesAnswer:
    """Return the deliveries of the last 30 days, newest first; every filter is optional."""
    principal.require_every_app()
    which = DeliveryFilter(webhook_id=webhook_id, status=status)
    page, following = await webhook_log.list_deliveries(broker, principal.project_id, which, before=cursor, limit=limit)
    return DeliveriesAnswer(deliveries=[_delivery(row) for row in page], next_cursor=following)


@router.get("/webhook/counts", summary="Count deliveries", responses=errors())
async def count_deliveries(broker: BrokerDep, principal: WebhooksKeeper) -> DeliveryCountsAnswer:
    """Return what came of the deliveries of the last 24 hours, by webhook: of the project's latest 5,000 at most."""
    principal.require_every_app()
    since = clock.now() - timedelta(hours=24)
    counts = await webhook_log.count_deliveries(broker, principal.project_id, since=since)
    return DeliveryCountsAnswer(
        counts=[
            DeliveryCountBody(webhook_id=webhook_id, delivered=n.delivered, failed=n.failed, pending=n.pending)
            for webhook_id, n in sorted(counts.items())
        ]
    )


@router.post("/webhook/replay", summary="Deliver again", responses=errors(400, 404, 413))
async def replay_deliveries(body: Replay, broker: BrokerDep, principal: WebhooksKeeper) -> ReplayAnswer:
    """Deliver one event again, or all of a webhook's that failed.

    Ids and payloads are the same, and the attempts begin anew.
    """
    principal.require_every_app()
    project_id, now = principal.project_id, clock.now()
    if bool(body.delivery_id) == bool(body.webhook_id):
        raise InvalidRequest.of(("deliveryId", "give deliveryId, or webhookId"))
    if body.delivery_id:
        if body.since:
            raise InvalidValue.of(("since", "is for webhookId only"))
        return ReplayAnswer(replayed=await webhook_log.replay_delivery(broker, project_id, body.delivery_id, now=now))
    since = datetime.fromtimestamp(body.since, UTC)
    return ReplayAnswer(
        replayed=await webhook_log.replay_failed(broker, project_id, body.webhook_id, since=since, now=now)
    )
