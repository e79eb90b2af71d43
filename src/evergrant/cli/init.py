"""The command `evergrant init`."""

import asyncio
import json

import click

from evergrant.broker.audit.record import Actor, actor
from evergrant.broker.operations.setup import InitResult, initialise
from evergrant.cli.running import PASTED, settings_for_commands


@click.command()
@click.option(
    "--name", default="default", show_default=True, help="The project's name; users see it when they connect."
)
@click.option(
    "--redirect-origin",
    "origins",
    multiple=True,
    type=PASTED,
    help="Where connect trips may return to, e.g. https://app.example.com. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def init(name: str, origins: tuple[str, ...], as_json: bool) -> None:
    """Make a project and a management key that may do everything.

    The key is printed here and never again.
    """
    settings = settings_for_commands()

    async def _initialise() -> InitResult:
        actor.set(Actor("cli"))
        return await initialise(settings, project_name=name, redirect_origins=origins)

    result = asyncio.run(_initialise())
    if as_json:
        click.echo(
            json.dumps(
                {
                    "projectId": result.project_id,
                    "managementKey": result.management_key,
                    "publicUrl": result.public_url,
                }
            )
        )
        return
    click.echo(f"project id      {result.project_id}")
    click.echo(f"management key  {result.management_key}")
    click.echo(f"public URL      {result.public_url}")
    click.echo("Keep the key: it is not shown again. Start the server with 'evergrant serve'.")
