"""The log of a webhook's deliveries: read, tried out, and sent again."""

import json
from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.runtime.principal import Permission
from evergrant.broker.webhooks import log as webhook_log
from evergrant.broker.webhooks import registry
from evergrant.broker.webhooks.log import DeliveryCount, DeliveryFilter
from evergrant.errors import InvalidValue
from evergrant.web.console.desk import Desk, DeskDep
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.webhook_words import (
    WHY_DISABLED,
    WebhookId,
    host_of,
    state_of_delivery,
    state_of_webhook,
)
from evergrant.web.forms import read_form

router = APIRouter(route_class=ConsoleRoute)

PAGE = 25
MOST_FAILED = 200
PERIODS = {"1": "the last day", "7": "the last 7 days", "30": "the last 30 days"}
Cursor = Annotated[str, Query(max_length=32, pattern=r"^[a-z0-9_]*$")]
Status = Annotated[Literal["", "pending", "delivered", "failed"], Query()]


@router.get("/console/{project}/webhooks/{webhook_id}")
async def show_log(
    desk: DeskDep, webhook_id: WebhookId, status: Status = "", at: Cursor = "", open: Cursor = ""
) -> Response:
    """Show what was delivered, newest first. `open` is a delivery that is shown whole."""
    _require(desk)
    webhook = await registry.load_webhook(desk.broker, desk.project.id, webhook_id)
    which = DeliveryFilter(webhook_id=webhook_id, status=status)
    rows, older = await webhook_log.list_deliveries(desk.broker, desk.project.id, which, before=at, limit=PAGE)
    since = clock.now() - timedelta(hours=24)
    counts = await webhook_log.count_deliveries(desk.broker, desk.project.id, since=since)
    return desk.page(
        "webhook.html",
        webhook=webhook,
        host=host_of(webhook),
        state=state_of_webhook(webhook),
        why_disabled=WHY_DISABLED.get(webhook.disabled_reason, webhook.disabled_reason),
        rows=[(row, state_of_delivery(row), indented(row.payload)) for row in rows],
        count=counts.get(webhook_id, DeliveryCount()),
        which=status,
        at=at,
        older=older,
        opened=open,
    )


@router.post("/console/{project}/webhooks/{webhook_id}/test")
async def test_webhook(desk: DeskDep, webhook_id: WebhookId) -> Response:
    """Send a test, wait for the answer, and show what came of it."""
    _require(desk)
    row = await webhook_log.try_webhook(desk.broker, desk.project.id, webhook_id, now=clock.now())
    return _opened(desk, webhook_id, row.id)


@router.post("/console/{project}/webhooks/{webhook_id}/replay-one")
async def replay_one(desk: DeskDep, webhook_id: WebhookId) -> Response:
    """Send one delivery again."""
    _require(desk)
    delivery_id = (await read_form(desk.request)).text("delivery")
    await webhook_log.replay_delivery(desk.broker, desk.project.id, delivery_id, now=clock.now())
    return _opened(desk, webhook_id, delivery_id)


@router.get("/console/{project}/webhooks/{webhook_id}/replay")
async def ask_replay(desk: DeskDep, webhook_id: WebhookId) -> Response:
    """Ask before everything that was given up is sent again."""
    _require(desk)
    webhook = await registry.load_webhook(desk.broker, desk.project.id, webhook_id)
    which = DeliveryFilter(webhook_id=webhook_id, status="failed")
    failed, _ = await webhook_log.list_deliveries(desk.broker, desk.project.id, which, before="", limit=MOST_FAILED)
    return desk.page(
        "webhook_ask.html",
        webhook=webhook,
        host=host_of(webhook),
        action="replay",
        periods=PERIODS,
        failed=failed,
        most=MOST_FAILED,
    )


@router.post("/console/{project}/webhooks/{webhook_id}/replay")
async def replay_failed(desk: DeskDep, webhook_id: WebhookId) -> Response:
    """Send everything again that was given up within a period."""
    _require(desk)
    since = _since((await read_form(desk.request)).text("days"), now=clock.now())
    await webhook_log.replay_failed(desk.broker, desk.project.id, webhook_id, since=since, now=clock.now())
    return desk.go(desk.path("webhooks", webhook_id, status="pending"))


def indented(payload: str) -> str:
    """Return a payload as people read it. What is sent has no white space."""
    return json.dumps(json.loads(payload), indent=2, ensure_ascii=False)


def _since(days: str, *, now: datetime) -> datetime:
    if days not in PERIODS:
        raise InvalidValue.of(("days", "choose one of the periods"))
    return now - timedelta(days=int(days))


def _opened(desk: Desk, webhook_id: str, delivery_id: str) -> Response:
    return desk.go(desk.path("webhooks", webhook_id, open=delivery_id) + f"#{delivery_id}")


def _require(desk: Desk) -> None:
    desk.require(Permission.WEBHOOKS)
    desk.principal.require_every_app()
