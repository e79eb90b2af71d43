"""The commands `evergrant projects`."""

import click

from evergrant.broker.projects.projects import list_projects, load_project, set_redirect_origins
from evergrant.broker.runtime.broker import Broker
from evergrant.cli.running import PASTED, json_option, print_rows, run


@click.group()
def projects() -> None:
    """Projects and the origins that their connect trips may return to."""


@projects.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the projects of this installation."""
    print_rows(
        [
            {"id": project.id, "name": project.name, "redirectOrigins": project.redirect_origins}
            for project in run(list_projects)
        ],
        as_json=as_json,
    )


async def _origins(broker: Broker, project_id: str, origin: str, *, allowed: bool) -> list[str]:
    async with broker.database.read() as session:
        current = (await load_project(session, project_id)).redirect_origins
    kept = [existing for existing in current if existing != origin.rstrip("/")]
    return await set_redirect_origins(broker, project_id, [*kept, origin] if allowed else kept)


@projects.command("allow-redirect")
@click.argument("project_id")
@click.argument("origin", type=PASTED)
def allow_redirect(project_id: str, origin: str) -> None:
    """Let connect trips return to ORIGIN, e.g. https://app.example.com."""
    click.echo("\n".join(run(lambda broker: _origins(broker, project_id, origin, allowed=True))))


@projects.command("forbid-redirect")
@click.argument("project_id")
@click.argument("origin", type=PASTED)
def forbid_redirect(project_id: str, origin: str) -> None:
    """No longer let connect trips return to ORIGIN."""
    left = run(lambda broker: _origins(broker, project_id, origin, allowed=False))
    click.echo("\n".join(left) or "none")
