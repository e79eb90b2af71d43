"""The commands `evergrant db`."""

import asyncio

import click

from evergrant.broker.operations.setup import upgrade
from evergrant.cli.running import settings_for_commands


@click.group()
def db() -> None:
    """The database's schema."""


@db.command("upgrade")
def upgrade_() -> None:
    """Bring the schema to this version. Safe to run again, and from several places at once."""
    asyncio.run(upgrade(settings_for_commands()))
    click.echo("The schema is current.")
