"""Overview: whether everything works, and who has to do something."""

from fastapi import APIRouter
from fastapi.responses import Response

from evergrant.broker.runtime.principal import Permission
from evergrant.web.console.desk import DeskDep
from evergrant.web.console.route import ConsoleRoute

router = APIRouter(route_class=ConsoleRoute)


@router.get("/console/{project}")
async def show(desk: DeskDep) -> Response:
    """Show the overview."""
    desk.require(Permission.CONNECTIONS_READ)
    return desk.page("overview.html")
