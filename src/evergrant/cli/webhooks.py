"""The commands `evergrant webhooks`."""

from datetime import UTC, datetime

import click

from evergrant import clock
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.webhooks import log as webhook_log
from evergrant.broker.webhooks import registry as webhook_registry
from evergrant.broker.webhooks.log import DeliveryFilter
from evergrant.broker.webhooks.outbox import SUBSCRIBABLE
from evergrant.broker.webhooks.registry import MAX_OVERLAP_SECONDS, WebhookDefinition, WebhookWithSecret
from evergrant.cli.running import PASTED, json_option, print_rows, project_option, run, the_project
from evergrant.db import WebhookDelivery


@click.group()
def webhooks() -> None:
    """Webhooks: where a project is told what happens."""


@webhooks.command()
@project_option
@click.argument("url", type=PASTED)
@click.option("--description", default="", help="What it is for.")
@click.option("--event", "event_types", multiple=True, type=click.Choice(SUBSCRIBABLE), help="Only these events.")
def add(project_id: str | None, url: str, description: str, event_types: tuple[str, ...]) -> None:
    """Tell URL what happens from now on, and print the secret that signs, this once."""

    async def _add(broker: Broker) -> WebhookWithSecret:
        definition = WebhookDefinition(url=url, description=description, event_types=event_types)
        project = await the_project(broker, project_id)
        return await webhook_registry.create_webhook(broker, project, definition, now=clock.now())

    made = run(_add)
    click.echo(f"{made.webhook.id}  {made.secret.get_secret_value()}")


@webhooks.command("list")
@project_option
@json_option
def list_(project_id: str | None, as_json: bool) -> None:
    """List a project's webhooks."""

    async def _list(broker: Broker) -> list[dict[str, object]]:
        return [
            {
                "id": row.id,
                "url": row.url,
                "events": row.event_types or ["all"],
                "status": "enabled" if row.enabled else f"disabled {row.disabled_reason}".strip(),
                "failingSince": _time(row.failing_since),
                "description": row.description,
            }
            for row in await webhook_registry.list_webhooks(broker, await the_project(broker, project_id))
        ]

    print_rows(run(_list), as_json=as_json)


@webhooks.command()
@project_option
@click.argument("webhook_id")
def remove(project_id: str | None, webhook_id: str) -> None:
    """Delete a webhook and the log of its deliveries."""

    async def _remove(broker: Broker) -> None:
        await webhook_registry.delete_webhook(broker, await the_project(broker, project_id), webhook_id)

    run(_remove)
    click.echo(f"{webhook_id}  removed")


@webhooks.command("rotate-secret")
@project_option
@click.argument("webhook_id")
@click.option(
    "--overlap-hours",
    default=24,
    show_default=True,
    type=click.IntRange(0, MAX_OVERLAP_SECONDS // 3600),
    help="So long the old secret signs too.",
)
def rotate_secret(project_id: str | None, webhook_id: str, overlap_hours: int) -> None:
    """Replace a webhook's secret and print the new one, this once."""

    async def _rotate(broker: Broker) -> WebhookWithSecret:
        project = await the_project(broker, project_id)
        return await webhook_registry.rotate_secret(
            broker, project, webhook_id, overlap_seconds=overlap_hours * 3600, now=clock.now()
        )

    click.echo(f"{webhook_id}  {run(_rotate).secret.get_secret_value()}")


@webhooks.command()
@project_option
@click.argument("webhook_id")
@click.pass_context
def test(context: click.Context, project_id: str | None, webhook_id: str) -> None:
    """Send a test and say what came of it; exit code 1 when it was not accepted."""

    async def _test(broker: Broker) -> WebhookDelivery:
        project = await the_project(broker, project_id)
        return await webhook_log.try_webhook(broker, project, webhook_id, now=clock.now())

    delivery = run(_test)
    click.echo(f"{delivery.id}  {delivery.last_error or f'accepted with {delivery.last_status_code}'}")
    if delivery.last_error:
        context.exit(1)


@webhooks.command()
@project_option
@click.option("--webhook", "webhook_id", default="", help="Of this webhook.")
@click.option("--status", type=click.Choice(["pending", "delivered", "failed"]), default=None, help="In this state.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1_000), help="How many at most.")
@json_option
def deliveries(project_id: str | None, webhook_id: str, status: str | None, limit: int, as_json: bool) -> None:
    """List deliveries, newest first."""

    async def _list(broker: Broker) -> list[dict[str, object]]:
        project = await the_project(broker, project_id)
        which = DeliveryFilter(webhook_id=webhook_id, status=status or "")
        page, _ = await webhook_log.list_deliveries(broker, project, which, before="", limit=limit)
        return [
            {
                "id": row.id,
                "webhook": row.webhook_id,
                "event": row.event_type,
                "status": row.status,
                "attempts": row.attempts,
                "happened": _time(row.created_at),
                "next": _time(row.next_attempt_at),
                "answer": row.last_status_code,
                "error": row.last_error,
            }
            for row in page
        ]

    print_rows(run(_list), as_json=as_json)


@webhooks.command()
@project_option
@click.argument("delivery_id", required=False)
@click.option("--failed-of", "webhook_id", help="Instead of one delivery: every one of this webhook that failed.")
@click.option("--since", type=click.DateTime(), help="Of these, what happened from then on, in UTC.")
def replay(project_id: str | None, delivery_id: str | None, webhook_id: str | None, since: datetime | None) -> None:
    """Deliver again: DELIVERY_ID, or with --failed-of everything of a webhook that was given up."""
    if bool(delivery_id) == bool(webhook_id) or (since and not webhook_id):
        raise click.UsageError("give DELIVERY_ID, or --failed-of with or without --since")

    async def _replay(broker: Broker) -> int:
        project, now = await the_project(broker, project_id), clock.now()
        if delivery_id:
            return await webhook_log.replay_delivery(broker, project, delivery_id, now=now)
        start = since.replace(tzinfo=UTC) if since else datetime.fromtimestamp(0, UTC)
        return await webhook_log.replay_failed(broker, project, webhook_id or "", since=start, now=now)

    click.echo(f"{run(_replay)} to be delivered again")


def _time(at: datetime | None) -> str | None:
    return at.isoformat(timespec="seconds") if at is not None else None
