"""The command `evergrant doctor`."""

import asyncio
import json
import sys

import click

from evergrant.broker.operations.doctor import Finding, examine_installation
from evergrant.cli.running import json_option, settings_for_commands
from evergrant.errors import ConfigurationError
from evergrant.settings import Settings


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check settings, database, migrations, keys, public URL and clock; the exit code is 1 when something is wrong."""
    try:
        findings = asyncio.run(_all(settings_for_commands()))
    except ConfigurationError as error:
        findings = [Finding("settings", False, error.message)]
    if as_json:
        click.echo(json.dumps([{"check": f.what, "good": f.good, "text": f.text} for f in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{'ok   ' if finding.good else 'WRONG'}  {finding.what:<12}  {finding.text}")
    sys.exit(0 if all(finding.good for finding in findings) else 1)


async def _all(settings: Settings) -> list[Finding]:
    return [finding async for finding in examine_installation(settings)]
