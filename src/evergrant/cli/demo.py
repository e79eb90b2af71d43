"""The command `evergrant demo`."""

import asyncio
from pathlib import Path

import click

from evergrant.practice.demo import run_demo


@click.command()
@click.option("--port", default=8420, show_default=True, help="evergrant's port.")
@click.option("--practice-port", default=8421, show_default=True, help="The practice provider's and guide's port.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data here; a temporary folder that is deleted at the end when left out.",
)
def demo(port: int, practice_port: int, data_dir: Path | None) -> None:
    """Try evergrant on this machine, with a practice provider and a guide. Not for production."""
    asyncio.run(run_demo(host="127.0.0.1", port=port, practice_port=practice_port, data_dir=data_dir))
