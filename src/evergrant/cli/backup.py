"""The commands `evergrant backup` and `evergrant restore`."""

import asyncio
from pathlib import Path

import click

from evergrant.broker.audit.record import Actor, actor
from evergrant.broker.operations import backup as backups
from evergrant.broker.operations.backup import Restored
from evergrant.cli.running import run, settings_for_commands
from evergrant.errors import InvalidRequest

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=FILE)
def backup(file: Path) -> None:
    """Copy the SQLite database to FILE, which must not be there yet, while evergrant serves.

    The master keys are not in it: without them it is worthless. PostgreSQL has tools of its own.
    """
    asyncio.run(backups.back_up(settings_for_commands(), file))
    click.echo(f"{file} has everything but the master keys. Keep those, and keep them apart from it.")


@click.command()
@click.argument("file", type=FILE, required=False)
@click.option("--mark-only", is_flag=True, help="Other tools have restored the database: only mark what is in doubt.")
@click.option("--shredded", multiple=True, metavar="PROJECT_ID", help="A project deleted since. May be repeated.")
def restore(file: Path | None, mark_only: bool, shredded: tuple[str, ...]) -> None:
    """Put FILE, which `evergrant backup` made, in the place of the SQLite database.

    Every process has to be stopped. The replaced database is kept beside it. Refresh tokens that may be spent since the
    backup are marked, and tried with care; projects that were deleted since are deleted again.
    """
    if (file is None) != mark_only:
        raise InvalidRequest("give the backup's FILE; or --mark-only, where other tools have restored the database")
    if file is None:
        _tell(run(lambda broker: backups.mark_restored_database(broker, shredded=shredded)))
        return
    settings = settings_for_commands()

    async def _restore(backup_file: Path) -> Restored:
        actor.set(Actor("cli"))
        return await backups.restore(settings, backup_file, shredded=shredded)

    done = asyncio.run(_restore(file))
    _tell(done)
    if done.replaced is not None:
        click.echo(f"The replaced database is kept as {done.replaced}; remove it when you need it no longer.")
    if not done.knows_deleted:
        click.echo(
            "There was no database that tells which projects were deleted since: name them with --shredded, with "
            "--mark-only beside it.",
            err=True,
        )
    click.echo("Run 'evergrant doctor', and start the servers again.")


def _tell(done: Restored) -> None:
    taken = f"{done.taken_at:%Y-%m-%d %H:%M:%S} UTC" if done.taken_at else "an unknown time"
    click.echo(f"Restored as of {taken}; {done.in_doubt} connections are in doubt.")
    for project_id in done.shredded:
        click.echo(f"Project {project_id} was deleted since, and its data keys are destroyed again.")
