"""The commands `evergrant keyring`."""

import asyncio

import click

from evergrant import clock
from evergrant.broker.operations.key_rotation import RotationProgress, reseal, rewrap_data_keys, start_new_data_keys
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.vault import RESERVATION_SECONDS
from evergrant.cli.running import run
from evergrant.crypto.kms.local import new_master_key


@click.group()
def keyring() -> None:
    """Master keys, which everything secret is sealed under."""


@keyring.command("new")
def new() -> None:
    """Print a new master key for EVERGRANT_MASTER_KEYS. Nothing is stored: keep it, apart from the database.

    A key in AWS KMS, OpenBao or HashiCorp Vault is made there.
    """
    click.echo(new_master_key())


@keyring.command()
@click.option("--rewrap-only", is_flag=True, help="Only let old master keys go; leave the data keys as they are.")
@click.option("--resume", is_flag=True, help="Go on with a rotation that was interrupted, without new data keys.")
def rotate(rewrap_only: bool, resume: bool) -> None:
    """Put everything under the first master key and under new data keys, while evergrant serves.

    Put the new key first in EVERGRANT_MASTER_KEYS, keep the old one behind it, restart every process, then run this.
    After it the old master key is no longer needed.
    """
    progress = run(lambda broker: _rotate(broker, rewrap_only=rewrap_only, resume=resume))
    if progress is not None:
        click.echo(f"Sealed {progress.resealed} values again, under new data keys.")
        if progress.unopened:
            click.echo(
                f"{progress.unopened} values do not open and stayed as they are: somebody changed or moved them. "
                "The warnings above name them.",
                err=True,
            )


async def _rotate(broker: Broker, *, rewrap_only: bool, resume: bool) -> RotationProgress | None:
    click.echo(f"Wrapped {await rewrap_data_keys(broker)} data keys again, under the first master key.")
    if rewrap_only:
        return None
    if not resume:
        await start_new_data_keys(broker, now=clock.now())
        click.echo(f"Waiting {RESERVATION_SECONDS:.0f} s, until every server seals with the new data keys.")
        await asyncio.sleep(RESERVATION_SECONDS)
    last = RotationProgress(0, 0, 0)
    with click.progressbar(length=1, label="Sealing again") as bar:
        async for last in reseal(broker):
            bar.length = max(1, last.total)
            bar.update(last.done - bar.pos)
    return last
