"""What the pages of one app have in common: its heading and its tabs."""

from dataclasses import dataclass

from evergrant.broker.apps.apps import load_app
from evergrant.db import OutboundApp
from evergrant.web.console.desk import Desk
from evergrant.web.console.states import State, state_of_app
from evergrant.web.logos import logo_sources
from evergrant.web.tiles import Tile, tile_of


@dataclass(frozen=True, slots=True)
class AppHead:
    """An app as the heading of its pages shows it. Templates get it as `head`, and extend `console/app_frame.html`."""

    app: OutboundApp
    tile: Tile
    state: State


async def app_head(desk: Desk, app_id: str) -> AppHead:
    """Return an app's heading.

    Raises:
        AppNotFound: there is none with this id.
        PermissionDenied: the session is limited to other apps.
    """
    desk.principal.require_app(app_id)
    app = await load_app(desk.broker, desk.project.id, app_id)
    sources = await logo_sources(desk.broker, desk.project.id, [app])
    return AppHead(app, tile_of(app.id, app.name, sources[app.id]), state_of_app(app))
