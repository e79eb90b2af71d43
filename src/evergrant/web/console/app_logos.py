"""Logos of apps: storing one that an operator has chosen, and removing it. The app's editor has the form."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.apps.logos import remove_app_logo, set_app_logo
from evergrant.broker.runtime.principal import Permission
from evergrant.errors import MissingArgument
from evergrant.web.console.desk import DeskDep
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.forms import read_form
from evergrant.web.logos import AppPath

router = APIRouter(route_class=ConsoleRoute)


@router.post("/console/{project}/apps/{app}/logo")
async def save(desk: DeskDep, app: AppPath, request: Request) -> Response:
    """Store or remove an app's logo, and go back to its editor."""
    desk.require(Permission.APPS_WRITE)
    desk.principal.require_app(app)
    form = await read_form(request)
    if form.has("remove"):
        await remove_app_logo(desk.broker, desk.project.id, app)
    elif content := form.files.get("logo"):
        await set_app_logo(desk.broker, desk.project.id, app, content, now=clock.now())
    else:
        raise MissingArgument.of(("logo", "choose a picture first"))
    return desk.go(desk.path("apps", app))
