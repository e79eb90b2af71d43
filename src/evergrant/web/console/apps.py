"""The apps of a project as tiles, and deleting one."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.apps.logos import list_apps_with_logos
from evergrant.broker.connections.deletion import count_connections, delete_app
from evergrant.broker.grants.counts import app_counts
from evergrant.broker.runtime.principal import Permission
from evergrant.web.console.app_head import AppHead, app_head
from evergrant.web.console.desk import Asked, Desk, DeskDep
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.states import state_of_app
from evergrant.web.forms import read_form
from evergrant.web.logos import logo_source
from evergrant.web.tiles import tile_of

router = APIRouter(route_class=ConsoleRoute)

AppIdPath = Annotated[str, Path(max_length=64)]


@router.get("/console/{project}/apps")
async def apps(desk: DeskDep, q: Asked = "") -> Response:
    """Show the project's apps; with `q` those that have these words in their name or id."""
    desk.require(Permission.APPS_READ)
    every, logos = await list_apps_with_logos(desk.broker, desk.project.id, only=sorted(desk.principal.app_ids))
    wanted = q.lower().split()
    found = [app for app in every if all(word in f"{app.name} {app.id}".lower() for word in wanted)]
    cards = [
        AppHead(app, tile_of(app.id, app.name, logo_source(app, logos.get(app.id, ""))), state_of_app(app))
        for app in found
    ]
    counts = None
    if desk.may(Permission.CONNECTIONS_READ):
        counts = {app_id: n for app_id, (n, _) in (await app_counts(desk.broker, desk.project.id)).items()}
    may_create = desk.may(Permission.APPS_WRITE) and not desk.principal.app_ids
    return desk.page("apps.html", cards=cards, total=len(every), q=q, may_create=may_create, counts=counts)


@router.get("/console/{project}/apps/{app_id}/delete")
async def ask_to_delete(desk: DeskDep, app_id: AppIdPath) -> Response:
    """Say what goes with an app, and ask."""
    desk.require(Permission.APPS_WRITE)
    return await _asking(desk, app_id)


@router.post("/console/{project}/apps/{app_id}/delete")
async def delete(desk: DeskDep, app_id: AppIdPath, request: Request) -> Response:
    """Delete an app and everything that was connected through it."""
    desk.require(Permission.APPS_WRITE)
    desk.principal.require_app(app_id)
    desk.require_recent()
    form = await read_form(request)
    count, _ = await count_connections(desk.broker, desk.project.id, app_id)
    if count and form.text("typed") != app_id:
        return await _asking(desk, app_id, typed=form.text("typed"), wrong=f"type {app_id} to delete it", status=400)
    await delete_app(desk.broker, desk.project.id, app_id, by=desk.principal, now=clock.now())
    return desk.go(desk.path("apps"))


async def _asking(desk: Desk, app_id: str, *, typed: str = "", wrong: str = "", status: int = 200) -> Response:
    head = await app_head(desk, app_id)
    count, is_all = await count_connections(desk.broker, desk.project.id, app_id)
    return desk.page("app_delete.html", status=status, head=head, count=count, is_all=is_all, typed=typed, wrong=wrong)
