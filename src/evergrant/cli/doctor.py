"""The command `evergrant doctor`."""

import asyncio
import json
import sys

import click

from evergrant.broker.operations.doctor import examine_installation
from evergrant.broker.operations.doctor_finding import Finding
from evergrant.cli.running import json_option, settings_for_commands
from evergrant.errors import ConfigurationError
from evergrant.settings import Settings


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check everything that can be told, and say what to do; the exit code is 1 when something is wrong."""
    try:
        findings = asyncio.run(_all(settings_for_commands()))
    except ConfigurationError as error:
        findings = [Finding("settings", False, error.message)]
    if as_json:
        rows = [{"check": f.what, "good": f.good, "advice": f.advice, "text": f.text} for f in findings]
        click.echo(json.dumps(rows, indent=2))
    else:
        for finding in findings:
            word = "WRONG" if not finding.good else "todo" if finding.advice else "ok"
            click.echo(f"{word:<5}  {finding.what:<19}  {finding.text}")
    sys.exit(0 if all(finding.good for finding in findings) else 1)


async def _all(settings: Settings) -> list[Finding]:
    return [finding async for finding in examine_installation(settings)]
