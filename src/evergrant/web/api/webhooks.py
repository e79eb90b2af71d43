"""Webhooks: where the project is told what happens."""

from typing import Annotated, Literal

from fastapi import Path
from pydantic import Field

from evergrant import clock
from evergrant.broker.webhooks import registry as webhook_registry
from evergrant.broker.webhooks.registry import MAX_OVERLAP_SECONDS, OVERLAP_SECONDS, WebhookDefinition
from evergrant.db import Webhook
from evergrant.web.api.webhook_wire import WEBHOOK_ID, WebhookId, WhichWebhook
from evergrant.web.api.wire import Flag, Nothing, ShortText, StrictWireModel, Text, WireModel, epoch, errors, example
from evergrant.web.deps import BrokerDep, WebhooksKeeper
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["webhooks"])

_DEFINED = {
    "url": "https://api.example.com/hooks/evergrant",
    "description": "Tells users to connect again",
    "eventTypes": ["grant.reauthorization_required", "grant.recovered"],
}
_STORED = {
    "id": WEBHOOK_ID,
    **_DEFINED,
    "enabled": True,
    "disabledReason": "",
    "failingSince": "",
    "previousSecretUntil": "",
    "createdTime": "1741103514",
}
_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw1VbOS5nRzRk="
EventName = Literal[
    "grant.created",
    "grant.reauthorization_required",
    "grant.expiring",
    "grant.recovered",
    "grant.revoked",
    "app.unhealthy",
    "app.recovered",
    "approval.requested",
]


class WebhookFields(StrictWireModel):
    """What somebody says about a webhook."""

    url: ShortText = Field(min_length=1, description="Where events are posted to. https; only the host is ever logged.")
    description: ShortText = ""
    event_types: list[EventName] = Field(
        default_factory=list,
        max_length=20,
        description="Only these; left out or empty, all that there are and will be.",
    )

    def definition(self) -> WebhookDefinition:
        """Translate for the use cases."""
        return WebhookDefinition(url=self.url, description=self.description, event_types=self.event_types)


class CreateWebhook(WebhookFields):
    """A webhook."""

    model_config = example(_DEFINED)


class UpdateWebhook(WebhookFields):
    """All of what can be changed about a webhook: `description` and `eventTypes` are emptied when they are left out."""

    model_config = example({"id": WEBHOOK_ID, **_DEFINED, "enabled": True})

    id: WebhookId
    enabled: Flag = Field(description="While it is not, nothing is written down for it. Required.")


class RotateSecret(StrictWireModel):
    """Whose secret, and how long the old one goes on signing."""

    model_config = example({"id": WEBHOOK_ID, "overlapSeconds": OVERLAP_SECONDS})

    id: WebhookId
    overlap_seconds: int = Field(
        default=OVERLAP_SECONDS,
        ge=0,
        le=MAX_OVERLAP_SECONDS,
        strict=True,
        description="So long both sign. 0 ends the old one at once, when it has leaked.",
    )


class WebhookBody(WireModel):
    """A webhook as it is stored. Its secret is shown when it is made, and never again."""

    id: str
    url: str
    description: str
    event_types: list[str]
    enabled: bool
    disabled_reason: str = Field(
        description="Why evergrant disabled it by itself: `gone` (the receiver answered 410), `failing` (for 5 days)."
    )
    failing_since: str = Field(description="Epoch seconds as text: nothing was accepted since; empty without trouble.")
    previous_secret_until: str = Field(description="Epoch seconds as text: until then two secrets sign; else empty.")
    created_time: str = Field(description="Epoch seconds as text.")


class WebhookAnswer(WireModel):
    """One webhook."""

    model_config = example({"webhook": _STORED})

    webhook: WebhookBody


class SecretAnswer(WireModel):
    """A webhook and its new secret, this once."""

    model_config = example({"webhook": _STORED, "secret": _SECRET})

    webhook: WebhookBody
    secret: str = Field(description="Give it to the receiver, which checks signatures with it.")


class WebhooksAnswer(WireModel):
    """The project's webhooks."""

    model_config = example({"webhooks": [_STORED]})

    webhooks: list[WebhookBody]


def _body(row: Webhook) -> WebhookBody:
    return WebhookBody(
        id=row.id,
        url=row.url,
        description=row.description,
        event_types=row.event_types,
        enabled=row.enabled,
        disabled_reason=row.disabled_reason,
        failing_since=epoch(row.failing_since),
        previous_secret_until=epoch(row.previous_secret_until),
        created_time=epoch(row.created_at),
    )


@router.post("/webhook/create", summary="Make a webhook", responses=errors(400, 413))
async def create_webhook(body: CreateWebhook, broker: BrokerDep, principal: WebhooksKeeper) -> SecretAnswer:
    """Make a webhook, which is told what happens from now on. The answer has the secret that signs, this once."""
    webhook_registry.require_may_change_webhooks(principal)
    made = await webhook_registry.create_webhook(broker, principal.project_id, body.definition(), now=clock.now())
    return SecretAnswer(webhook=_body(made.webhook), secret=made.secret.get_secret_value())


@router.post("/webhook/update", summary="Change, disable or enable a webhook", responses=errors(400, 404, 413))
async def update_webhook(body: UpdateWebhook, broker: BrokerDep, principal: WebhooksKeeper) -> WebhookAnswer:
    """Replace everything of a webhook but its secret.

    Disabling lets what is waiting fail; enabling does not send it: replay it.
    """
    webhook_registry.require_may_change_webhooks(principal)
    row = await webhook_registry.update_webhook(
        broker, principal.project_id, body.id, body.definition(), enabled=body.enabled
    )
    return WebhookAnswer(webhook=_body(row))


@router.post("/webhook/delete", summary="Delete a webhook", responses=errors(400, 404, 413))
async def delete_webhook(body: WhichWebhook, broker: BrokerDep, principal: WebhooksKeeper) -> Nothing:
    """Delete a webhook with the log of its deliveries. What was waiting is not delivered."""
    webhook_registry.require_may_change_webhooks(principal)
    await webhook_registry.delete_webhook(broker, principal.project_id, body.id)
    return Nothing()


@router.get("/webhooks", summary="List the webhooks", responses=errors())
async def load_webhooks(broker: BrokerDep, principal: WebhooksKeeper) -> WebhooksAnswer:
    """Return the project's webhooks, oldest first."""
    principal.require_every_app()
    rows = await webhook_registry.list_webhooks(broker, principal.project_id)
    return WebhooksAnswer(webhooks=[_body(row) for row in rows])


@router.post("/webhook/rotate-secret", summary="Replace a webhook's secret", responses=errors(400, 404, 413))
async def rotate_webhook_secret(body: RotateSecret, broker: BrokerDep, principal: WebhooksKeeper) -> SecretAnswer:
    """Make a new secret, which the answer has, this once. The old one signs beside it for the overlap."""
    webhook_registry.require_may_change_webhooks(principal)
    made = await webhook_registry.rotate_secret(
        broker, principal.project_id, body.id, overlap_seconds=body.overlap_seconds, now=clock.now()
    )
    return SecretAnswer(webhook=_body(made.webhook), secret=made.secret.get_secret_value())


@router.get("/webhook/{id}", summary="Load a webhook", responses=errors(400, 404))
async def load_webhook(
    broker: BrokerDep,
    principal: WebhooksKeeper,
    id: Annotated[Text, Path(min_length=1, max_length=22, examples=[WEBHOOK_ID], description="The webhook.")],
) -> WebhookAnswer:
    """Return a webhook: among the rest, whether it is disabled or failing."""
    principal.require_every_app()
    return WebhookAnswer(webhook=_body(await webhook_registry.load_webhook(broker, principal.project_id, id)))
