"""The commands `evergrant calls`."""

from datetime import UTC, datetime
from typing import Any, get_args

import click

from evergrant.broker.calls.call_list import MOST_CALLS, CallFilter, call_columns, export_calls, list_all_calls
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.unwritten_calls import CallKind
from evergrant.cli.audit import from_option, to_option
from evergrant.cli.running import json_option, print_rows, project_option, run, the_project
from evergrant.db import CallRecord


@click.group()
def calls() -> None:
    """The call log: who called what, with whose connection."""


@calls.command("list")
@project_option
@click.option("--user", "user_id", default="", help="Only with this user's connections.")
@click.option("--tenant", "tenant_id", default="", help="Only with this tenant's connections.")
@click.option("--agent", default="", help="Only by this agent.")
@click.option("--app", "app_id", default="", help="Only of this app.")
@click.option("--session", "session_id", default="", help="Only in this agent session.")
@click.option("--kind", default="", type=click.Choice(["", *get_args(CallKind)]), help="Only of this kind.")
@from_option
@to_option
@click.option("--limit", type=click.IntRange(1, MOST_CALLS), default=50, show_default=True, help="Calls at most.")
@json_option
def list_calls_(
    project_id: str | None,
    user_id: str,
    tenant_id: str,
    agent: str,
    app_id: str,
    session_id: str,
    kind: str,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show calls, newest first."""
    wanted = CallFilter(
        user_id=user_id,
        tenant_id=tenant_id,
        agent=agent,
        app_id=app_id,
        session_id=session_id,
        kind=kind,
        since=_utc(since),
        until=_utc(until),
    )

    async def _list(broker: Broker) -> list[CallRecord]:
        return list((await list_all_calls(broker, await the_project(broker, project_id), wanted, limit=limit)).calls)

    print_rows([call_columns(call) if as_json else _row(call) for call in run(_list)], as_json=as_json)


@calls.command()
@project_option
@from_option
@to_option
def export(project_id: str | None, since: datetime | None, until: datetime | None) -> None:
    """Print calls as JSON, one a line, newest first, with all that their seals are made of."""

    async def _export(broker: Broker) -> None:
        project = await the_project(broker, project_id)
        async for line in export_calls(broker, project, since=_utc(since), until=_utc(until)):
            click.echo(line, nl=False)

    run(_export)


def _utc(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at else None


def _row(call: CallRecord) -> dict[str, Any]:
    return {
        "at": call.at.isoformat(timespec="seconds"),
        "kind": call.kind,
        "app": call.app_id,
        "owner": call.user_id or call.tenant_id,
        "by": call.agent or call.actor,
        "request": f"{call.method} {call.path}".strip(),
        "status": call.status or "",
        "source": call.source,
        "code": call.code,
        "ms": call.ms,
    }
