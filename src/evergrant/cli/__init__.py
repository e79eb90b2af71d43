"""The command line: one file per verb group. Prints one line and an exit code when something is wrong."""

import gc
import importlib
import sys

import click

from evergrant import __version__
from evergrant.errors import EvergrantError

COMMANDS = {
    "apply": "apply",
    "init": "init",
    "serve": "serve",
    "refresher": "serve",
    "console": "console",
    "refresh": "refresh",
    "projects": "projects",
    "keys": "management_keys",
    "sessions": "sessions",
    "issuers": "trusted_issuers",
    "apps": "apps",
    "connections": "connections",
    "templates": "templates",
    "policies": "policies",
    "webhooks": "webhooks",
    "keyring": "keyring",
    "audit": "audit",
    "calls": "calls",
    "backup": "backup",
    "restore": "backup",
    "db": "db",
    "doctor": "doctor",
    "demo": "demo",
}
"""Each command, and the file that has it under its own name."""


class Commands(click.Group):
    """All commands. Only the one that is asked for is imported: a refresher needs no pages, and a key no server."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - what click gives
        """Return their names, for the help."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Import one. From here on the collector runs, but never looks at what imports made."""
        if cmd_name not in COMMANDS:
            return None
        found = getattr(importlib.import_module(f"evergrant.cli.{COMMANDS[cmd_name]}"), cmd_name)
        assert isinstance(found, click.Command)  # noqa: S101 - for the type checker
        gc.freeze()
        gc.enable()
        return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="evergrant")
def cli() -> None:
    """evergrant: users consent once, your backends and agents always get a working token."""


def main() -> None:
    """Run the command line; our own errors become one line on standard error and exit code 1."""
    try:
        cli()
    except EvergrantError as error:
        click.echo(f"evergrant: {error.message}", err=True)
        sys.exit(1)
