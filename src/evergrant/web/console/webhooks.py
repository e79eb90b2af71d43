"""Webhooks: made, changed, tried; their secrets, shown once; and whether they work."""

from datetime import timedelta
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.runtime.principal import Permission
from evergrant.broker.webhooks import log as webhook_log
from evergrant.broker.webhooks import registry
from evergrant.broker.webhooks.log import DeliveryCount
from evergrant.broker.webhooks.outbox import SUBSCRIBABLE
from evergrant.broker.webhooks.registry import WebhookDefinition
from evergrant.crypto.opaque import id_for
from evergrant.db import Webhook
from evergrant.errors import AlreadyExists, InvalidRequest, InvalidValue
from evergrant.web.console.desk import Desk, DeskDep
from evergrant.web.console.fields import checked_once, new_once, problems_of
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.webhook_words import EVENTS, WebhookId, host_of, state_of_webhook
from evergrant.web.forms import Form, read_form

router = APIRouter(route_class=ConsoleRoute)

OVERLAPS = (("0", "at once: it has leaked"), ("3600", "in an hour"), ("86400", "in a day"), ("604800", "in a week"))


@router.get("/console/{project}/webhooks")
async def show_webhooks(desk: DeskDep) -> Response:
    """List the webhooks, and how they have worked for a day."""
    _require(desk)
    since = clock.now() - timedelta(hours=24)
    counts = await webhook_log.count_deliveries(desk.broker, desk.project.id, since=since)
    found = await registry.list_webhooks(desk.broker, desk.project.id)
    rows = [(one, state_of_webhook(one), counts.get(one.id, DeliveryCount()), host_of(one)) for one in found]
    return desk.page("webhooks.html", rows=rows)


@router.get("/console/{project}/webhooks/new")
async def show_new_webhook(desk: DeskDep) -> Response:
    """Show the form for a new webhook."""
    _require(desk)
    return _new_page(desk, Form([]))


@router.post("/console/{project}/webhooks/new")
async def make_webhook(desk: DeskDep) -> Response:
    """Make a webhook, and show its secret, this once."""
    _require(desk)
    registry.require_may_change_webhooks(desk.principal)
    form = await read_form(desk.request)
    webhook_id = id_for(checked_once(form.text("once")), 22)
    try:
        made = await registry.create_webhook(
            desk.broker, desk.project.id, _definition(form), webhook_id=webhook_id, now=clock.now()
        )
    except AlreadyExists:
        return desk.go(desk.path("webhooks", webhook_id))
    except InvalidRequest as error:
        return _new_page(desk, form, problems=problems_of(error))
    return _secret_page(desk, made.webhook, made.secret.get_secret_value())


@router.get("/console/{project}/webhooks/{webhook_id}/settings")
async def show_settings(desk: DeskDep, webhook_id: WebhookId) -> Response:
    """Show what can be changed about a webhook."""
    _require(desk)
    return _settings_page(desk, await _load(desk, webhook_id))


@router.post("/console/{project}/webhooks/{webhook_id}/settings")
async def change_webhook(desk: DeskDep, webhook_id: WebhookId) -> Response:
    """Change a webhook's address, description and events."""
    _require(desk)
    registry.require_may_change_webhooks(desk.principal)
    form, webhook = await read_form(desk.request), await _load(desk, webhook_id)
    try:
        await registry.update_webhook(
            desk.broker, desk.project.id, webhook_id, _definition(form), enabled=webhook.enabled
        )
    except InvalidRequest as error:
        return _settings_page(desk, webhook, form=form, problems=problems_of(error))
    return desk.go(desk.path("webhooks", webhook_id, "settings"))


@router.get("/console/{project}/webhooks/{webhook_id}/rotate")
async def ask_rotate(desk: DeskDep, webhook_id: WebhookId) -> Response:
    """Ask before a webhook gets a new secret."""
    return await _ask(desk, webhook_id, "rotate", overlaps=OVERLAPS)


@router.post("/console/{project}/webhooks/{webhook_id}/rotate")
async def rotate_secret(desk: DeskDep, webhook_id: WebhookId) -> Response:
    """Give a webhook a new secret, and show it, this once."""
    _require(desk)
    registry.require_may_change_webhooks(desk.principal)
    form = await read_form(desk.request)
    overlap, version = form.text("overlap"), form.text("version")
    if not (overlap.isascii() and overlap.isdigit() and version.isascii() and version.isdigit() and len(version) < 9):
        raise InvalidValue("Open this form again: it was not sent whole.")
    try:
        made = await registry.rotate_secret(
            desk.broker,
            desk.project.id,
            webhook_id,
            overlap_seconds=int(overlap[:9]),
            version=int(version),
            now=clock.now(),
        )
    except AlreadyExists:
        return desk.go(desk.path("webhooks", webhook_id))
    return _secret_page(desk, made.webhook, made.secret.get_secret_value())


@router.get("/console/{project}/webhooks/{webhook_id}/disable")
async def ask_disable(desk: DeskDep, webhook_id: WebhookId) -> Response:
    """Ask before a webhook is disabled."""
    return await _ask(desk, webhook_id, "disable")


@router.post("/console/{project}/webhooks/{webhook_id}/disable")
async def disable_webhook(desk: DeskDep, webhook_id: WebhookId) -> Response:
    """Disable a webhook: what waits for it fails."""
    return await _set_enabled(desk, webhook_id, enabled=False)


@router.post("/console/{project}/webhooks/{webhook_id}/enable")
async def enable_webhook(desk: DeskDep, webhook_id: WebhookId) -> Response:
    """Let a webhook be told again, from now on."""
    return await _set_enabled(desk, webhook_id, enabled=True)


@router.get("/console/{project}/webhooks/{webhook_id}/delete")
async def ask_delete(desk: DeskDep, webhook_id: WebhookId) -> Response:
    """Ask before a webhook is deleted."""
    return await _ask(desk, webhook_id, "delete")


@router.post("/console/{project}/webhooks/{webhook_id}/delete")
async def delete_webhook(desk: DeskDep, webhook_id: WebhookId) -> Response:
    """Delete a webhook with its log."""
    _require(desk)
    registry.require_may_change_webhooks(desk.principal)
    desk.require_recent()
    await registry.delete_webhook(desk.broker, desk.project.id, webhook_id)
    return desk.go(desk.path("webhooks"))


async def _set_enabled(desk: Desk, webhook_id: str, *, enabled: bool) -> Response:
    _require(desk)
    registry.require_may_change_webhooks(desk.principal)
    webhook = await _load(desk, webhook_id)
    definition = WebhookDefinition(url=webhook.url, description=webhook.description, event_types=webhook.event_types)
    await registry.update_webhook(desk.broker, desk.project.id, webhook_id, definition, enabled=enabled)
    return desk.go(desk.path("webhooks", webhook_id))


def _require(desk: Desk) -> None:
    desk.require(Permission.WEBHOOKS)
    desk.principal.require_every_app()


async def _load(desk: Desk, webhook_id: str) -> Webhook:
    return await registry.load_webhook(desk.broker, desk.project.id, webhook_id)


def _definition(form: Form) -> WebhookDefinition:
    chosen = form.all("events")
    everything = len(chosen) == len(SUBSCRIBABLE)
    problems = [("eventTypes", "choose at least one")] if not chosen else []
    problems += [("description", "use at most 2,000 characters")] if len(form.text("description")) > 2000 else []
    problems += [("url", "use at most 2,000 characters")] if len(form.text("url")) > 2000 else []
    if problems:
        raise InvalidValue.of(*problems)
    return WebhookDefinition(
        url=form.text("url"), description=form.text("description"), event_types=() if everything else chosen
    )


def _new_page(desk: Desk, form: Form, *, problems: dict[str, str] | None = None) -> Response:
    chosen = form.all("events") if problems else SUBSCRIBABLE
    return desk.page(
        "webhook_new.html",
        status=400 if problems else 200,
        form=form,
        chosen=chosen,
        events=EVENTS,
        once=new_once(),
        problems=problems or {},
    )


def _settings_page(
    desk: Desk, webhook: Webhook, *, form: Form | None = None, problems: dict[str, str] | None = None
) -> Response:
    return desk.page(
        "webhook_settings.html",
        status=400 if problems else 200,
        webhook=webhook,
        state=state_of_webhook(webhook),
        host=host_of(webhook),
        form=form,
        chosen=form.all("events") if form else webhook.event_types or SUBSCRIBABLE,
        events=EVENTS,
        problems=problems or {},
    )


def _secret_page(desk: Desk, webhook: Webhook, secret: str) -> Response:
    return desk.page("webhook_secret.html", webhook=webhook, host=host_of(webhook), secret=secret)


async def _ask(desk: Desk, webhook_id: str, action: str, **values: Any) -> Response:
    _require(desk)
    webhook = await _load(desk, webhook_id)
    return desk.page("webhook_ask.html", webhook=webhook, host=host_of(webhook), action=action, **values)
