"""The commands `evergrant apps`."""

import json
from typing import Any

import click
from pydantic import SecretStr

from evergrant import clock
from evergrant.broker import apps as use_cases
from evergrant.broker.app_definition import AppDefinition
from evergrant.broker.apps import callback_url
from evergrant.broker.deletion import delete_app
from evergrant.broker.runtime import Broker
from evergrant.cli.running import json_option, print_rows, project_option, run, the_project
from evergrant.db import OutboundApp


@click.group()
def apps() -> None:
    """Outbound apps: the OAuth clients you registered with providers."""


def _summary(broker: Broker, app: OutboundApp) -> dict[str, Any]:
    return {
        "id": app.id,
        "name": app.name,
        "clientId": app.client_id,
        "health": app.unhealthy_reason or "ok",
        "callbackUrl": callback_url(broker, app),
    }


@apps.command("list")
@project_option
@json_option
def list_(project_id: str | None, as_json: bool) -> None:
    """List a project's apps, with the redirect URI to register at each provider."""

    async def _list(broker: Broker) -> list[dict[str, Any]]:
        found = await use_cases.list_apps(broker, await the_project(broker, project_id))
        return [_summary(broker, app) for app in found]

    print_rows(run(_list), as_json=as_json)


@apps.command()
@project_option
@click.argument("app_id")
@click.option("--name", required=True, help="Shown to users.")
@click.option("--client-id", required=True, help="From the provider.")
@click.option(
    "--client-secret",
    envvar="CLIENT_SECRET",
    prompt=True,
    hide_input=True,
    help="From the provider. Better asked for, or given as CLIENT_SECRET, than typed into the shell's history.",
)
@click.option("--discovery-url", default="", help="The provider's issuer or metadata URL; fills the endpoints.")
@click.option("--authorization-url", default="", help="The provider's authorization endpoint.")
@click.option("--token-url", default="", help="The provider's token endpoint.")
@click.option("--scope", "scopes", multiple=True, help="A default scope. May be repeated.")
@click.option("--redirect-url", default="", help="Where the browser goes after connecting.")
@json_option
def create(
    project_id: str | None,
    app_id: str,
    name: str,
    client_id: str,
    client_secret: str,
    discovery_url: str,
    authorization_url: str,
    token_url: str,
    scopes: tuple[str, ...],
    redirect_url: str,
    as_json: bool,
) -> None:
    """Create an app. Everything else about it is set through the API."""
    definition = AppDefinition(
        id=app_id,
        name=name,
        client_id=client_id,
        client_secret=SecretStr(client_secret),
        discovery_url=discovery_url,
        authorization_url=authorization_url,
        token_url=token_url,
        default_scopes=scopes,
        default_redirect_url=redirect_url,
    )

    async def _create(broker: Broker) -> dict[str, Any]:
        project = await the_project(broker, project_id)
        return _summary(broker, await use_cases.create_app(broker, project, definition, now=clock.utcnow()))

    summary = run(_create)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        click.echo(f"Created {summary['id']}. Register this redirect URI with the provider:\n{summary['callbackUrl']}")


@apps.command()
@project_option
@click.argument("app_id")
@click.confirmation_option(prompt="Delete the app and everything that was connected through it?")
def delete(project_id: str | None, app_id: str) -> None:
    """Delete an app and everything that was connected through it."""

    async def _delete(broker: Broker) -> None:
        await delete_app(broker, await the_project(broker, project_id), app_id, now=clock.utcnow())

    run(_delete)
    click.echo(f"{app_id}  deleted")
