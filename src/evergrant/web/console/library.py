"""The library: providers that evergrant knows, to make an app of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from fastapi import APIRouter
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.apps.retirements import why_ended
from evergrant.broker.apps.templates import search_templates
from evergrant.broker.runtime.principal import Permission
from evergrant.catalog.loader import dcr_presets
from evergrant.web.console.desk import Asked, Desk, DeskDep
from evergrant.web.console.kinds import KINDS
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.logos import template_logo
from evergrant.web.tiles import Tile, tile_of

router = APIRouter(route_class=ConsoleRoute)

MCP = "mcp"
"""The kind of the servers at which nobody has to register, beside those of `AppType`."""
KIND_NAMES = {**{kind.type.value: kind.name for kind in KINDS.values()}, MCP: "MCP server"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A provider in the library."""

    name: str
    category: str
    """In words."""
    kind: str
    tile: Tile
    address: str
    """As the page that lists it writes it: there are hundreds, so each letter counts."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Providers under one heading; without a name, all that were found."""

    name: str
    entries: Sequence[Entry]


@router.get("/console/{project}/apps/new")
async def library(desk: DeskDep, q: Asked = "", category: Asked = "", kind: Asked = "") -> Response:
    """Show the providers that have all words of `q` in their id, name or category, of one category, of one kind."""
    desk.require(Permission.APPS_WRITE)
    desk.principal.require_every_app()
    every = [*_templates(desk, q), *_presets(q)]
    found = [one for one in every if kind in ("", one.kind) and (not category or named(category) == one.category)]
    found.sort(key=lambda entry: entry.name.lower())
    slugs = {named(one.category): one.category for one in dcr_presets().values()}
    slugs |= {named(one.category): one.category for one in desk.broker.catalogue.values()}
    is_whole = not (q or category or kind)
    return desk.page(
        "library.html",
        shelves=_shelves(found) if is_whole else [Shelf("", found)] if found else [],
        count=len(found),
        q=q,
        category=named(category),
        kind=kind,
        categories=sorted(slugs.items(), key=lambda pair: pair[0].lower()),
        kinds=KIND_NAMES,
    )


def _shelves(found: Sequence[Entry]) -> list[Shelf]:
    ordered = sorted(found, key=lambda one: one.category.lower())  # keeps the order by name within each
    return [Shelf(name, list(entries)) for name, entries in groupby(ordered, lambda one: one.category)]


def _templates(desk: Desk, q: str) -> Iterator[Entry]:
    today = clock.now().date()
    for one in search_templates(desk.broker.catalogue, q):
        if not why_ended(one, today=today):
            tile = tile_of(one.id, one.name, template_logo(one.id))
            yield Entry(one.name, named(one.category), one.app_type.value, tile, f"new/{one.id}")


def _presets(q: str) -> Iterator[Entry]:
    """Yield the servers at which nobody has to register, as far as they are wanted."""
    words = q.lower().split()
    for one in dcr_presets().values():
        if all(word in f"{one.id} {one.name} {one.category} mcp".lower() for word in words):
            tile = tile_of(one.id, one.name, template_logo(one.id))
            yield Entry(one.name, named(one.category), MCP, tile, f"new/mcp?preset={one.id}")


def named(category: str) -> str:
    """Return a category in words."""
    short = {"ai": "AI", "ats": "Applicant tracking", "cms": "CMS", "crm": "CRM", "erp": "ERP", "hr": "HR"}
    others = {"iam": "Identity", "dev-tools": "Developer tools", "knowledge": "Knowledge base"}
    return {**short, **others, "e-commerce": "E-commerce"}.get(category) or category.replace("-", " ").capitalize()
