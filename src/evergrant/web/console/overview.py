"""Overview: whether everything works, and who has to do something."""

from fastapi import APIRouter
from fastapi.responses import Response

from evergrant.broker.apps.apps import list_apps
from evergrant.broker.runtime.principal import Permission
from evergrant.web.console.desk import DeskDep
from evergrant.web.console.route import ConsoleRoute

router = APIRouter(route_class=ConsoleRoute)


@router.get("/console/{project}")
async def show(desk: DeskDep) -> Response:
    """Show the overview."""
    desk.require(Permission.CONNECTIONS_READ)
    if desk.may(Permission.APPS_WRITE) and not await list_apps(desk.broker, desk.project.id):
        return desk.go(desk.path("start"))
    return desk.page("overview.html")
