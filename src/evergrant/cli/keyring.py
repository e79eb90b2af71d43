"""The commands `evergrant keyring`."""

import click

from evergrant.crypto.keyring import new_master_key


@click.group()
def keyring() -> None:
    """Master keys, which everything secret is sealed under."""


@keyring.command("new")
def new() -> None:
    """Print a new master key for EVERGRANT_MASTER_KEYS. Nothing is stored: keep it, apart from the database."""
    click.echo(new_master_key())
