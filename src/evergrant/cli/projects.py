"""The commands `evergrant projects`."""

from datetime import datetime, timedelta
from typing import Any

import click

from evergrant import clock
from evergrant.broker.audit.log import AuditQuery, search_records
from evergrant.broker.projects.projects import list_projects, load_any_project, load_project, update_project
from evergrant.broker.projects.shredding import close_project, count_rows, remove_rows, shred_project
from evergrant.broker.runtime.broker import Broker
from evergrant.cli.running import PASTED, json_option, print_rows, run
from evergrant.errors import InvalidRequest


@click.group()
def projects() -> None:
    """Projects: listing, renaming and deleting them, and the origins of their applications."""


@projects.command("list")
@click.option("--all", "closed", is_flag=True, help="Deleted ones too.")
@json_option
def list_(closed: bool, as_json: bool) -> None:
    """List the projects of this installation."""
    rows: list[dict[str, Any]] = []
    for project in run(lambda broker: list_projects(broker, closed=closed)):
        row = {"id": project.id, "name": project.name, "redirectOrigins": project.redirect_origins}
        rows.append(
            {**row, "closed": _text(project.closed_at), "shredded": _text(project.shredded_at)} if closed else row
        )
    print_rows(rows, as_json=as_json)


@projects.command()
@click.argument("project_id")
@click.option("--yes", is_flag=True, help="Do not ask for the id again.")
@click.option("--revoke-first", is_flag=True, help="Tell the providers, and destroy the data keys after that.")
@click.option(
    "--within",
    "hours",
    type=click.IntRange(1, 24 * 30),
    default=24,
    show_default=True,
    help="With --revoke-first: hours after which the data keys are destroyed, whatever is left to revoke.",
)
def delete(project_id: str, yes: bool, revoke_first: bool, hours: int) -> None:
    """Delete a project for good: destroy its data keys, so that nobody can read its tokens and secrets any more.

    Nobody gets in within 5 seconds, and every process has forgotten the keys within a minute. Its id is never given
    again. Its audit log stays. Providers are not told, unless you say --revoke-first.
    """
    if not yes and click.prompt("Type the id of the project again to delete it") != project_id:
        raise InvalidRequest("that is not the id: nothing is deleted")
    if revoke_first:
        run(lambda broker: _close(broker, project_id, timedelta(hours=hours)))
    else:
        run(lambda broker: _shred(broker, project_id))


async def _close(broker: Broker, project_id: str, within: timedelta) -> None:
    now = clock.now()
    await close_project(broker, project_id, shred_at=now + within, now=now)
    click.echo(
        f"{project_id} is closed. The background refresher revokes its connections at the providers, and destroys its "
        f"data keys when that is done, or at {_text(now + within)}. See 'evergrant projects deletion {project_id}'."
    )


async def _shred(broker: Broker, project_id: str) -> None:
    async with broker.database.read() as session:
        project = await load_any_project(session, project_id)
    if project.shredded_at is None:
        keys = await shred_project(broker, project_id, now=clock.now())
        click.echo(
            f"Destroyed {len(keys)} data keys: nobody can read the secrets of {project_id} any more. "
            "The providers were not told; the connections go on there until their users end them."
        )
    left = sum((await count_rows(broker, project_id)).values())
    with click.progressbar(length=max(1, left), label="Removing rows") as bar:
        async for removed in remove_rows(broker, project_id):
            bar.update(removed)


@projects.command()
@click.argument("project_id")
@json_option
def deletion(project_id: str, as_json: bool) -> None:
    """Show how far the deletion of a project is, and what is left of it: no data key, once it is shredded."""
    print_rows([run(lambda broker: _deletion(broker, project_id))], as_json=as_json)


async def _deletion(broker: Broker, project_id: str) -> dict[str, Any]:
    async with broker.database.read() as session:
        project = await load_any_project(session, project_id)
    left = await count_rows(broker, project_id)
    records = await search_records(broker, project_id, AuditQuery(actions=["project.shredded"]))
    return {
        "id": project.id,
        "closed": _text(project.closed_at),
        "shredAtTheLatest": _text(project.shred_at),
        "shredded": _text(project.shredded_at),
        "dataKeys": left["data_keys"],
        "connections": left["grants"],
        "revocations": left["revocations"],
        "otherRows": sum(left.values()) - left["data_keys"] - left["grants"] - left["revocations"],
        "destroyed": [key["sha256"] for event in records for key in event.data["dataKeys"]],
    }


def _text(at: datetime | None) -> str:
    return at.isoformat(timespec="seconds") if at else ""


@projects.command()
@click.argument("project_id")
@click.argument("name", type=PASTED)
def rename(project_id: str, name: str) -> None:
    """Give a project another NAME, which its users read on every page."""
    click.echo(run(lambda broker: update_project(broker, project_id, name=name)).name)


async def _change_origins(broker: Broker, project_id: str, field: str, origin: str, *, allowed: bool) -> list[str]:
    async with broker.database.read() as session:
        current: list[str] = getattr(await load_project(session, project_id), field)
    kept = [existing for existing in current if existing != origin.rstrip("/")]
    new = [*kept, origin] if allowed else kept
    project = await (
        update_project(broker, project_id, redirect_origins=new)
        if field == "redirect_origins"
        else update_project(broker, project_id, embed_origins=new)
    )
    return list(getattr(project, field))


def _print_origins(project_id: str, field: str, origin: str, *, allowed: bool) -> None:
    left = run(lambda broker: _change_origins(broker, project_id, field, origin, allowed=allowed))
    click.echo("\n".join(left) or "none")


@projects.command("allow-redirect")
@click.argument("project_id")
@click.argument("origin", type=PASTED)
def allow_redirect(project_id: str, origin: str) -> None:
    """Let connect trips return to ORIGIN, e.g. https://app.example.com."""
    _print_origins(project_id, "redirect_origins", origin, allowed=True)


@projects.command("forbid-redirect")
@click.argument("project_id")
@click.argument("origin", type=PASTED)
def forbid_redirect(project_id: str, origin: str) -> None:
    """No longer let connect trips return to ORIGIN."""
    _print_origins(project_id, "redirect_origins", origin, allowed=False)


@projects.command("allow-embed")
@click.argument("project_id")
@click.argument("origin", type=PASTED)
def allow_embed(project_id: str, origin: str) -> None:
    """Let pages of ORIGIN show connected accounts in a frame."""
    _print_origins(project_id, "embed_origins", origin, allowed=True)


@projects.command("forbid-embed")
@click.argument("project_id")
@click.argument("origin", type=PASTED)
def forbid_embed(project_id: str, origin: str) -> None:
    """No longer let pages of ORIGIN show connected accounts."""
    _print_origins(project_id, "embed_origins", origin, allowed=False)
