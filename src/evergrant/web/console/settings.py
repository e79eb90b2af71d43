"""Settings: the project's name, and the origins of its applications."""

from collections.abc import Mapping, Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response

from evergrant.broker.projects.projects import update_project
from evergrant.errors import InvalidRequest
from evergrant.web.console.desk import Desk, DeskDep
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.settings_pages import (
    Saved,
    problems_by_field,
    require_admin,
    require_admin_again,
    settings_page,
)
from evergrant.web.forms import read_form

router = APIRouter(route_class=ConsoleRoute)


@router.get("/console/{project}/settings")
async def show(desk: DeskDep, saved: Saved = "") -> Response:
    """Show the project's settings."""
    require_admin(desk)
    project = desk.project
    return _page(desk, project.name, project.redirect_origins, project.embed_origins, saved=bool(saved))


@router.post("/console/{project}/settings")
async def save(desk: DeskDep, request: Request) -> Response:
    """Save them."""
    require_admin_again(desk)
    form = await read_form(request)
    name, redirects, embeds = form.text("name"), form.lines("redirectOrigins"), form.lines("embedOrigins")
    try:
        await update_project(desk.broker, desk.project.id, name=name, redirect_origins=redirects, embed_origins=embeds)
    except InvalidRequest as error:
        return _page(desk, name, redirects, embeds, wrong=problems_by_field(error))
    return desk.go(desk.path("settings", saved="1"))


def _page(
    desk: Desk,
    name: str,
    redirects: Sequence[str],
    embeds: Sequence[str],
    *,
    wrong: Mapping[str, str] | None = None,
    saved: bool = False,
) -> Response:
    return settings_page(
        desk,
        "settings.html",
        project_name=name,
        redirects=redirects,
        embeds=embeds,
        wrong=wrong,
        saved=saved,
    )
