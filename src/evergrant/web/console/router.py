"""All sections of the console, as one router."""

from fastapi import APIRouter
from fastapi.responses import Response

from evergrant.errors import NotFound
from evergrant.web.console import (
    activity,
    agents,
    app_editor,
    app_logos,
    approvals,
    apps,
    audit,
    branding,
    call_log,
    connection,
    connection_link,
    connections,
    credentials,
    deliveries,
    health,
    issuers,
    keys,
    library,
    new_app,
    oidc,
    operators,
    overview,
    people,
    policies,
    project_deletion,
    settings,
    sign_in,
    start,
    trial,
    use,
    webhooks,
)
from evergrant.web.console.desk import DeskDep
from evergrant.web.console.route import ConsoleRoute

SECTIONS = (
    sign_in,
    oidc,
    overview,
    apps,
    library,  # before the editor: its address looks like that of an app called "new"
    new_app,
    app_editor,
    use,
    app_logos,
    settings,
    branding,
    operators,
    project_deletion,
    start,
    trial,
    connection_link,  # before what any other id would be
    connections,
    connection,
    credentials,
    people,
    activity,
    health,
    keys,
    agents,
    issuers,
    policies,
    approvals,
    webhooks,
    deliveries,
    audit,
    call_log,
)

router = APIRouter(route_class=ConsoleRoute)
for section in SECTIONS:
    # Not included: FastAPI would put a layer of its own around them, and each of these routes says all by its class.
    router.routes.extend(section.router.routes)


@router.get("/console/{project}/")
async def without_slash(desk: DeskDep) -> Response:
    """Go to the overview, where somebody typed a slash too many."""
    return desk.go(desk.path())


@router.get("/console/{project}/{rest:path}")
async def nothing(desk: DeskDep) -> None:  # noqa: ARG001 - for the frame
    """Say in the console's frame that there is no such page."""
    raise NotFound
