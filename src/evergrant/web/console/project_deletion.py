"""Deleting the project: a page that says what goes, and takes its id typed in."""

from collections.abc import Mapping
from datetime import timedelta

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from evergrant import clock
from evergrant.broker.projects.shredding import MOST_COUNTED, delete_project, stock_of
from evergrant.errors import InvalidRequest
from evergrant.web.console.desk import HEADERS, Desk, DeskDep
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.settings_pages import problems_by_field, require_admin, require_admin_again, settings_page
from evergrant.web.forms import read_form
from evergrant.web.templating import render

router = APIRouter(route_class=ConsoleRoute)

HOURS = {"24": "24 hours", "72": "3 days", "168": "7 days", "720": "30 days"}
"""How long providers may take to be told, as the form offers it."""


@router.get("/console/{project}/settings/delete")
async def ask(desk: DeskDep) -> Response:
    """Say what would go."""
    require_admin(desk)
    return await _page(desk)


@router.post("/console/{project}/settings/delete")
async def delete(desk: DeskDep, request: Request) -> Response:
    """Delete the project, and say how far that is."""
    require_admin_again(desk)
    form = await read_form(request)
    hours = form.text("hours") if form.text("how") == "revoke" else ""
    within = timedelta(hours=int(hours)) if hours in HOURS else None
    try:
        if form.text("how") not in ("revoke", "now") or (hours and within is None):
            raise InvalidRequest.of(("how", "choose one"))
        deletion = await delete_project(
            desk.broker, desk.principal, form.text("projectId"), revoke_within=within, now=clock.now()
        )
    except InvalidRequest as error:
        how = form.text("how")
        return await _page(desk, how=how, hours=hours, typed=form.text("projectId"), wrong=problems_by_field(error))
    text = render("console/project_deleted.html", desk=desk, deletion=deletion)
    return HTMLResponse(text, headers=HEADERS)


async def _page(
    desk: Desk, *, how: str = "revoke", hours: str = "24", typed: str = "", wrong: Mapping[str, str] | None = None
) -> HTMLResponse:
    return settings_page(
        desk,
        "project_delete.html",
        stock=await stock_of(desk.broker, desk.project.id),
        most=MOST_COUNTED,
        choices=HOURS,
        how=how,
        hours=hours,
        typed=typed,
        wrong=wrong,
    )
