"""The first page: the console where it is on, else what this is."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from evergrant.web.deps import BrokerDep
from evergrant.web.templating import PAGE_HEADERS
from evergrant.web.visitor import visitor_page

router = APIRouter(include_in_schema=False)


@router.get("/")
async def home(request: Request, broker: BrokerDep) -> Response:
    """Lead to the console, which answers those who may reach it; without one, say what this is."""
    if broker.settings.console:
        return RedirectResponse("/console", 303, PAGE_HEADERS)
    return visitor_page(request, "home.html")
