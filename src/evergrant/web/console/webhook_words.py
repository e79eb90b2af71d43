"""Webhooks in words: what they tell, how they are, and what came of deliveries."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Path

from evergrant import clock
from evergrant.broker.webhooks.outbox import EventType
from evergrant.db import Webhook, WebhookDelivery
from evergrant.web.console.states import State
from evergrant.web.words import span

WebhookId = Annotated[str, Path(max_length=22, pattern=r"^[A-Za-z0-9]+$")]
EVENTS = (
    (EventType.GRANT_CREATED, "Somebody connected"),
    (EventType.GRANT_REAUTHORIZATION_REQUIRED, "A connection ended, and its user must connect again"),
    (EventType.GRANT_EXPIRING, "A connection will end soon"),
    (EventType.GRANT_RECOVERED, "A dead connection was connected again"),
    (EventType.GRANT_REVOKED, "A connection was deleted"),
    (EventType.APP_UNHEALTHY, "A provider refuses an app"),
    (EventType.APP_RECOVERED, "A provider takes an app again"),
    (EventType.APPROVAL_REQUESTED, "An agent's request waits for somebody's yes"),
)
"""What a webhook can be told, in words."""

WHY_DISABLED = {
    "gone": "Its receiver answered 410: it is gone.",
    "failing": "Its receiver accepted nothing for 5 days.",
    "": "Somebody disabled it.",
}


def host_of(webhook: Webhook) -> str:
    """Return where a webhook goes, without what may be as good as a password."""
    return urlsplit(webhook.url).hostname or webhook.url


def state_of_webhook(webhook: Webhook) -> State:
    """Return how a webhook is."""
    if not webhook.enabled:
        return State("bad" if webhook.disabled_reason else "", "circle-x", "Disabled")
    if webhook.failing_since is not None:
        return State(
            "warn", "triangle-alert", f"Failing for {span((clock.now() - webhook.failing_since).total_seconds())}"
        )
    return State("good", "circle-check", "Working")


def state_of_delivery(delivery: WebhookDelivery) -> State:
    """Return what came of a delivery so far."""
    if delivery.status == "delivered":
        return State("good", "circle-check", "Delivered")
    if delivery.status == "failed":
        return State("bad", "circle-x", "Given up")
    return State("warn" if delivery.attempts else "info", "clock", "Trying again" if delivery.attempts else "Waiting")
