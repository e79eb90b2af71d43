"""The library: providers that evergrant knows, to make an app of."""

from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.apps.retirements import why_ended
from evergrant.broker.apps.templates import search_templates
from evergrant.broker.runtime.principal import Permission
from evergrant.catalog.loader import dcr_presets
from evergrant.web.console.desk import Asked, Desk, DeskDep
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.logos import template_logo
from evergrant.web.tiles import Tile, tile_of

router = APIRouter(route_class=ConsoleRoute)


@dataclass(frozen=True, slots=True)
class Entry:
    """A provider in the library."""

    name: str
    said: str
    tile: Tile
    path: str


@router.get("/console/{project}/apps/new")
async def library(desk: DeskDep, q: Asked = "", category: Asked = "") -> Response:
    """Show the providers that have all words of `q` in their id, name or category, of one category or of all."""
    desk.require(Permission.APPS_WRITE)
    desk.principal.require_every_app()
    catalogue, today = desk.broker.catalogue, clock.now().date()
    found = [
        Entry(
            one.name,
            "API key" if one.app_type == "apikey" else named(one.category),
            tile_of(one.id, one.name, template_logo(one.id)),
            desk.path("apps", "new", one.id),
        )
        for one in search_templates(catalogue, q)
        if not why_ended(one, today=today) and category in ("", one.category)
    ]
    found += _presets(desk, q, category)
    names = {one.category for one in catalogue.values()}
    return desk.page(
        "library.html",
        entries=sorted(found, key=lambda entry: entry.name.lower()),
        q=q,
        category=category,
        categories=sorted((name, named(name)) for name in names),
    )


def _presets(desk: Desk, q: str, category: str) -> list[Entry]:
    """Return the servers at which nobody has to register, as far as they are wanted."""
    words = q.lower().split()
    return [
        Entry(
            one.name,
            "MCP server",
            tile_of(one.id, one.name, template_logo(one.id)),
            desk.path("apps", "new", "mcp", preset=one.id),
        )
        for one in dcr_presets().values()
        if category in ("", one.category) and all(word in f"{one.id} {one.name} mcp".lower() for word in words)
    ]


def named(category: str) -> str:
    """Return a category in words."""
    short = {"ai": "AI", "ats": "Applicant tracking", "cms": "CMS", "crm": "CRM", "erp": "ERP", "hr": "HR"}
    others = {"iam": "Identity", "dev-tools": "Developer tools", "e-commerce": "E-commerce"}
    return {**short, **others}.get(category) or category.replace("-", " ").capitalize()
