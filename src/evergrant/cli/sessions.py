"""`evergrant sessions ...`: agent sessions."""

import json
from datetime import timedelta

import click

from evergrant import clock
from evergrant.broker.access.session_list import (
    SessionFilter,
    list_agent_sessions,
    revoke_agent_sessions,
    status_of_session,
)
from evergrant.broker.access.session_minting import MOST_SECONDS, MintedSession, SessionRequest, mint_session
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.agent_limits import SessionApp
from evergrant.broker.runtime.broker import Broker
from evergrant.cli.running import json_option, print_rows, project_option, run, the_project
from evergrant.errors import InvalidRequest

MOST_LISTED = 200


@click.group()
def sessions() -> None:
    """Agent sessions: keys with which one agent uses some apps of one owner, for minutes."""


@sessions.command()
@project_option
@click.option("--user", "user_id", default="", help="Whose connections.")
@click.option("--tenant", "tenant_id", default="", help="The user's within this tenant; alone, the tenant's own.")
@click.option("--app", "app_ids", multiple=True, required=True, help="An app that it is for. May be repeated.")
@click.option("--agent", "agent_id", required=True, help="The agent, by your own id for it.")
@click.option("--write", is_flag=True, help="It may make calls that change something, too.")
@click.option("--connect", is_flag=True, help="The agent may begin connect trips.")
@click.option("--minutes", type=click.IntRange(min=1, max=MOST_SECONDS // 60), default=15, show_default=True)
@click.option("--calls", "max_calls", type=click.IntRange(min=1), help="How many calls; any number when left out.")
@click.option("--from", "cidrs", multiple=True, help="Network it works from, e.g. 203.0.113.0/24. May be repeated.")
@json_option
def create(
    project_id: str | None,
    user_id: str,
    tenant_id: str,
    app_ids: tuple[str, ...],
    agent_id: str,
    write: bool,
    connect: bool,
    minutes: int,
    max_calls: int | None,
    cidrs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Mint a session and print its key, this once."""

    async def _create(broker: Broker) -> MintedSession:
        wanted = SessionRequest(
            owner=ResourceOwner(user_id, tenant_id),
            apps=[SessionApp(app_id=app_id, access="write" if write else "read") for app_id in app_ids],
            agent_id=agent_id,
            connect=connect,
            lives=timedelta(minutes=minutes),
            max_calls=max_calls,
            allowed_cidrs=cidrs,
        )
        return await mint_session(broker, await the_project(broker, project_id), wanted, maker=None, now=clock.now())

    made = run(_create)
    click.echo(json.dumps({"id": made.row.id, "key": made.key}) if as_json else f"{made.row.id}  {made.key}")


@sessions.command("list")
@project_option
@click.option("--user", "user_id", default="", help="Only this user's.")
@click.option("--agent", "agent_id", default="", help="Only this agent's.")
@click.option("--status", type=click.Choice(["active", "expired", "revoked"]), help="Only those in this state.")
@json_option
def list_(project_id: str | None, user_id: str, agent_id: str, status: str | None, as_json: bool) -> None:
    """List the latest sessions. Their keys are not stored."""
    now = clock.now()

    async def _list(broker: Broker) -> list[dict[str, object]]:
        which = SessionFilter(user_id=user_id, agent_id=agent_id, status=status or "")  # type: ignore[arg-type]  # a Choice
        project = await the_project(broker, project_id)
        rows, _ = await list_agent_sessions(broker, project, which, reader=None, limit=MOST_LISTED, now=now)
        return [
            {
                "id": row.id,
                "status": status_of_session(row, now=now),
                "agent": row.agent_id,
                "user": row.user_id,
                "tenant": row.tenant_id,
                "apps": [app["appId"] for app in row.apps],
                "expires": row.expires_at.isoformat(timespec="seconds"),
                "by": row.made_by,
            }
            for row in rows
        ]

    print_rows(run(_list), as_json=as_json)


@sessions.command()
@project_option
@click.option("--id", "session_id", default="", help="This session.")
@click.option("--user", "user_id", default="", help="All of this user.")
@click.option("--agent", "agent_id", default="", help="All of this agent.")
@click.option("--app", "app_id", default="", help="All with this app.")
def revoke(project_id: str | None, session_id: str, user_id: str, agent_id: str, app_id: str) -> None:
    """End sessions, within 2 seconds everywhere."""
    if sum(map(bool, (session_id, user_id, agent_id, app_id))) != 1:
        raise InvalidRequest("say which, by one of --id, --user, --agent, --app")

    async def _revoke(broker: Broker) -> int:
        which = SessionFilter(session_id=session_id, user_id=user_id, agent_id=agent_id, app_id=app_id)
        project = await the_project(broker, project_id)
        return await revoke_agent_sessions(broker, project, which, principal=None, now=clock.now())

    click.echo(f"revoked: {run(_revoke)}")
