"""Webhooks on the wire: what the calls about webhooks and those about their deliveries share."""

from typing import Annotated

from pydantic import Field

from evergrant.web.api.wire import StrictWireModel, Text, example

WEBHOOK_ID = "5Tq8nWx2Yb7Lc4Vd9Rf3Hm"
WebhookId = Annotated[Text, Field(min_length=1, max_length=22, description="The webhook.")]


class WhichWebhook(StrictWireModel):
    """One webhook."""

    model_config = example({"id": WEBHOOK_ID})

    id: WebhookId
