"""All sections of the console, as one router."""

from fastapi import APIRouter, Depends, Request

from evergrant.errors import NotFound
from evergrant.web.console import overview, sign_in
from evergrant.web.console.desk import DeskDep
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.deps import refuse_odd_text

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute, dependencies=[Depends(refuse_odd_text)])

SECTIONS = (overview,)

router.include_router(sign_in.router)
for section in SECTIONS:
    router.include_router(section.router)


@router.get("/console/{project}/{rest:path}")
async def nothing(desk: DeskDep, request: Request) -> None:  # noqa: ARG001 - for the frame
    """Say in the console's frame that there is no such page."""
    raise NotFound
