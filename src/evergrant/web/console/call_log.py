"""The call log: what was called with whose connection, by which agent. With `agent` alone, it is that agent's page."""

from typing import Annotated, get_args

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from evergrant import clock
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.calls.call_list import CallFilter, export_calls
from evergrant.broker.runtime.principal import Permission
from evergrant.broker.runtime.unwritten_calls import CallKind
from evergrant.errors import InvalidRequest
from evergrant.web.console.call_rows import PAGE, CallRows, read_calls
from evergrant.web.console.desk import HEADERS, Desk, DeskDep
from evergrant.web.console.fields import day_end, day_start, problems_of
from evergrant.web.console.route import ConsoleRoute

router = APIRouter(route_class=ConsoleRoute)

Text = Annotated[str, Query(max_length=255)]
From = Annotated[str, Query(max_length=10, alias="from")]
To = Annotated[str, Query(max_length=10, alias="to")]


@router.get("/console/{project}/calls")
async def show_calls(
    desk: DeskDep,
    agent: Text = "",
    user: Text = "",
    tenant: Text = "",
    app: Text = "",
    session: Text = "",
    kind: Text = "",
    since: From = "",
    until: To = "",
    at: Annotated[str, Query(max_length=48)] = "",
) -> Response:
    """Show calls, newest first."""
    desk.require(Permission.AUDIT)
    asked = {"agent": agent, "user": user, "tenant": tenant, "app": app, "session": session, "kind": kind}
    asked = {name: text.strip() for name, text in asked.items()} | {"from": since, "to": until}
    try:
        wanted = CallFilter(
            agent=asked["agent"],
            user_id=asked["user"],
            tenant_id=asked["tenant"],
            app_id=asked["app"],
            session_id=asked["session"],
            kind=asked["kind"],
            since=day_start("from", since),
            until=day_end("to", until),
        )
        listed = await read_calls(desk, wanted, at=at, limit=PAGE)
    except InvalidRequest as error:
        return await _page(desk, asked, None, problems=problems_of(error))
    return await _page(desk, asked, listed, at=at)


@router.get("/console/{project}/calls/export")
async def export(desk: DeskDep, since: From = "", until: To = "") -> Response:
    """Send the calls of a period as JSON, one a line, newest first."""
    desk.require(Permission.AUDIT)
    desk.principal.require_every_app()
    lines = export_calls(desk.broker, desk.project.id, since=day_start("from", since), until=day_end("to", until))
    name = f"calls-{desk.project.id}-{clock.now():%Y-%m-%d}.jsonl"
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, headers=headers, media_type="application/jsonl")


async def _page(
    desk: Desk,
    asked: dict[str, str],
    listed: CallRows | None,
    *,
    at: str = "",
    problems: dict[str, str] | None = None,
) -> Response:
    given = [name for name, text in asked.items() if text]
    return desk.page(
        "calls.html",
        status=400 if problems else 200,
        asked=asked,
        calls=listed,
        at=at,
        kinds=get_args(CallKind),
        apps=await list_apps(desk.broker, desk.project.id),
        agent=asked["agent"] if given == ["agent"] else "",
        is_filtered=bool(given),
        problems=problems or {},
    )
