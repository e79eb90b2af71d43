"""The commands `evergrant audit`."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

import click

from evergrant.broker.audit import log as audit_log
from evergrant.broker.audit.chain import ChainVerification, verify_chain
from evergrant.broker.audit.log import MAX_RECORDS, AuditQuery
from evergrant.broker.projects.projects import list_projects, load_any_project
from evergrant.broker.runtime.broker import Broker
from evergrant.cli.running import json_option, print_rows, project_option, run, the_project
from evergrant.db import AuditEvent

INSTANT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"])
from_option = click.option("--from", "since", type=INSTANT, help="Not before this time, in UTC: 2026-01-31T12:00:00.")
to_option = click.option("--to", "until", type=INSTANT, help="Not after this time, in UTC.")


@click.group()
def audit() -> None:
    """The audit log: who did what."""


@audit.command()
@project_option
@click.option("--action", "actions", multiple=True, help="Only this action. May be repeated.")
@click.option("--user", "users", multiple=True, help="Only about this user. May be repeated.")
@click.option("--text", default="", help="Only with this text anywhere in the record.")
@from_option
@to_option
@click.option("--limit", type=click.IntRange(1, MAX_RECORDS), default=50, show_default=True, help="Records at most.")
@json_option
def search(
    project_id: str | None,
    actions: tuple[str, ...],
    users: tuple[str, ...],
    text: str,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show records, newest first."""
    wanted = AuditQuery(actions=actions, user_ids=users, text=text, since=_utc(since), until=_utc(until), limit=limit)

    async def _search(broker: Broker) -> list[AuditEvent]:
        return await audit_log.search_records(broker, await _the_log(broker, project_id), wanted)

    print_rows([_row(event, as_json=as_json) for event in run(_search)], as_json=as_json)


@audit.command()
@project_option
@from_option
@to_option
def export(project_id: str | None, since: datetime | None, until: datetime | None) -> None:
    """Print records as JSON, one a line, oldest first, each with its hash."""

    async def _export(broker: Broker) -> None:
        project = await _the_log(broker, project_id)
        async for event in audit_log.export_records(broker, project, since=_utc(since), until=_utc(until)):
            click.echo(audit_log.export_line(event))

    run(_export)


@audit.command()
@project_option
@json_option
def verify(project_id: str | None, as_json: bool) -> None:
    """Check that no record and no call was changed, inserted or removed.

    All projects, deleted ones too, unless one is named.

    Where older records were pruned, it begins after them.

    Keep what it prints, apart from the database: a later head that does not contain it shows that the end was cut off.
    """

    async def _verify(broker: Broker) -> list[tuple[str, ChainVerification]]:
        chosen = [await _the_log(broker, project_id)] if project_id else await _all_projects(broker)
        return [(project, await verify_chain(broker, project)) for project in chosen]

    results = run(_verify)
    rows = [
        {
            "project": project,
            "records": found.records,
            "calls": found.calls,
            "pruned": found.pruned,
            "head": found.head.hex(),
            "problem": found.problem,
        }
        for project, found in results
    ]
    print_rows(rows, as_json=as_json)
    if any(found.problem for _, found in results):
        sys.exit(1)


async def _the_log(broker: Broker, project_id: str | None) -> str:
    """Return the project whose log is wanted: the chosen one, even if it was deleted, or the only one."""
    if not project_id:
        return await the_project(broker, None)
    async with broker.database.read() as session:
        return (await load_any_project(session, project_id)).id


async def _all_projects(broker: Broker) -> list[str]:
    return [project.id for project in await list_projects(broker, closed=True)]


def _utc(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at else None


def _row(event: AuditEvent, *, as_json: bool) -> dict[str, Any]:
    return {
        "sequence": event.sequence,
        "occurred": event.occurred_at.isoformat(timespec="microseconds" if as_json else "seconds"),
        "action": event.action,
        "actor": event.actor,
        "address": event.remote_address,
        "app": event.app_id,
        "user": event.user_id,
        "tenant": event.tenant_id,
        "data": event.data if as_json else json.dumps(event.data) if event.data else "",
    }
