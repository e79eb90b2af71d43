"""What the commands share: settings, logging for a person, a broker to run one use case with, tables."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click

from evergrant.broker.audit.record import Actor, actor
from evergrant.broker.projects.projects import list_projects, load_project
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.errors import InvalidRequest
from evergrant.logs import configure_logging
from evergrant.pasted import trimmed
from evergrant.settings import Settings, load_settings

T = TypeVar("T")

PASTED = click.types.FuncParamType(trimmed)
"""A text that neither begins nor ends with white space, whatever was pasted: a name, a URL, a client id."""
PASTED.name = "text"

project_option = click.option(
    "--project", "project_id", help="The project's id; may be left out when there is only one."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def settings_for_commands() -> Settings:
    """Read the settings; log as text, warnings only."""
    configure_logging(level="warning", style="text")
    return load_settings()


def run(use_case: Callable[[Broker], Awaitable[T]]) -> T:
    """Open a broker, run one use case and close it again."""
    settings = settings_for_commands()

    async def _run() -> T:
        actor.set(Actor("cli"))
        async with open_broker(settings) as broker:
            return await use_case(broker)

    return asyncio.run(_run())


async def the_project(broker: Broker, project_id: str | None) -> str:
    """Return the chosen project, or the only one.

    Raises:
        NotFound: there is no such project.
        InvalidRequest: there is none at all, or a choice has to be made.
    """
    if project_id:
        async with broker.database.read() as session:
            return (await load_project(session, project_id)).id
    ids = [project.id for project in await list_projects(broker)]
    if not ids:
        raise InvalidRequest("there is no project yet: make one with 'evergrant init'")
    if len(ids) > 1:
        raise InvalidRequest(f"say which project with --project: {', '.join(ids)}")
    return ids[0]


def print_rows(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print rows as JSON, or as a table with the widths they need."""
    if as_json:
        click.echo(json.dumps(list(rows), indent=2))
        return
    if not rows:
        click.echo("none")
        return
    headings = list(rows[0])
    cells = [headings, *([_cell(row[heading]) for heading in headings] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(headings))]
    for line in cells:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value) or "-"
    return "-" if value in (None, "") else str(value)
