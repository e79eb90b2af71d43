"""Steps for webhooks, which are told apart by their addresses. Of an address, only the host is ever shown."""

from datetime import datetime
from urllib.parse import urlsplit

from evergrant.broker.apply.same_secret import is_the_same
from evergrant.broker.apply.step import PlanStep, all_new, change
from evergrant.broker.apply.wanted import WantedThing
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.webhooks.registry import (
    WebhookDefinition,
    check_webhook,
    create_webhook,
    delete_webhook,
    rotate_secret,
    update_webhook,
    webhook_secret_slot,
)
from evergrant.db import Webhook


async def webhook_step(broker: Broker, project_id: str, entry: WantedThing, stored: Webhook | None) -> PlanStep | None:
    """Return what makes a webhook what is wanted; None when it is.

    Raises:
        InvalidValue: a field is wrong.
    """
    given, secret = entry.given, entry.given.get("secret")
    definition = WebhookDefinition(
        url=given["url"],
        description=given.get("description", stored.description if stored is not None else ""),
        event_types=given.get("event_types", stored.event_types if stored is not None else ()),
    )
    check_webhook(broker, definition, secret)
    enabled = given.get("enabled", stored.enabled if stored is not None else True)
    if stored is None:

        async def create(now: datetime) -> str:
            made = await create_webhook(broker, project_id, definition, secret=secret, now=now)
            if not enabled:
                await update_webhook(broker, project_id, made.webhook.id, definition, enabled=False)
            show = f"evergrant webhooks rotate-secret {made.webhook.id} --overlap-hours 0"
            return "" if secret is not None else f"To get a secret for its receiver: {show}"

        name, changes = host_of(given["url"], definition.description), all_new(given, but=["url"])
        return PlanStep(act="create", kind="webhook", name=name, changes=changes, where=entry.where, do=create)
    changes = [
        change(field, after, before)
        for field, after, before in (
            ("description", definition.description, stored.description),
            ("event_types", sorted(definition.event_types), sorted(stored.event_types)),
            ("enabled", enabled, stored.enabled),
        )
        if after != before
    ]
    defined = bool(changes)
    other_secret = secret is not None and not await is_the_same(
        broker, webhook_secret_slot(stored, "secret"), stored.secret, secret
    )
    if other_secret:
        changes.append(change("secret", None))
    if not changes:
        return None

    async def update(now: datetime) -> str:
        if defined:
            await update_webhook(broker, project_id, stored.id, definition, enabled=enabled)
        if other_secret:
            await rotate_secret(broker, project_id, stored.id, chosen=secret, now=now)
        return ""

    note = "the secret before signs beside the new one for a day" if other_secret else ""
    name = host_of(stored.url, stored.description)
    return PlanStep(act="update", kind="webhook", name=name, changes=changes, note=note, where=entry.where, do=update)


def webhook_deletion(broker: Broker, stored: Webhook) -> PlanStep:
    """Return the step that deletes a webhook."""

    async def delete(_now: datetime) -> str:
        await delete_webhook(broker, stored.project_id, stored.id)
        return ""

    name = host_of(stored.url, stored.description)
    return PlanStep(act="delete", kind="webhook", name=name, note="the log of its deliveries goes with it", do=delete)


def host_of(url: str, description: str) -> str:
    """Say which webhook this is; the rest of its address may be as good as a password."""
    host = urlsplit(url).hostname or ""
    return f"{host} ({description})" if description else host
