"""The command `evergrant console`."""

import click

from evergrant import clock
from evergrant.broker.operators.one_time_links import MINUTES, make_link
from evergrant.broker.operators.roles import ADMIN, ROLES
from evergrant.broker.runtime.broker import Broker
from evergrant.cli.running import run


@click.command()
@click.option("--project", "project_id", help="Only this project. Without it, every project of this installation.")
@click.option(
    "--role", type=click.Choice(list(ROLES)), default=ADMIN, show_default=True, help="What may be done there."
)
@click.option(
    "--minutes", type=click.IntRange(1, 1440), default=MINUTES, show_default=True, help="How long the link can wait."
)
def console(project_id: str | None, role: str, minutes: int) -> None:
    """Print a link that signs a browser in to the console, once."""

    async def link(broker: Broker) -> str:
        return await make_link(broker, project_id=project_id, role=role, minutes=minutes, now=clock.now())

    click.echo(run(link))
