"""The command line: one file per verb group. Prints one line and an exit code when something is wrong."""

import sys

import click

from evergrant import __version__
from evergrant.cli import (
    apply,
    apps,
    audit,
    backup,
    calls,
    connections,
    console,
    db,
    demo,
    doctor,
    init,
    keyring,
    management_keys,
    policies,
    projects,
    refresh,
    serve,
    sessions,
    template_probe,
    templates,
    trusted_issuers,
    webhooks,
)
from evergrant.errors import EvergrantError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="evergrant")
def cli() -> None:
    """evergrant: users consent once, your backends and agents always get a working token."""


templates.templates.add_command(template_probe.probe)
for command in (
    init.init,
    serve.serve,
    serve.refresher,
    console.console,
    refresh.refresh,
    projects.projects,
    management_keys.keys,
    sessions.sessions,
    trusted_issuers.issuers,
    apply.apply,
    apps.apps,
    connections.connections,
    templates.templates,
    policies.policies,
    webhooks.webhooks,
    keyring.keyring,
    audit.audit,
    calls.calls,
    backup.backup,
    backup.restore,
    db.db,
    doctor.doctor,
    demo.demo,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; our own errors become one line on standard error and exit code 1."""
    try:
        cli()
    except EvergrantError as error:
        click.echo(f"evergrant: {error.message}", err=True)
        sys.exit(1)
