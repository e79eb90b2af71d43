"""What the pages of one app have in common: its heading and its tabs."""

from dataclasses import dataclass

from evergrant.broker.apps.logos import list_apps_with_logos
from evergrant.db import OutboundApp
from evergrant.errors import AppNotFound
from evergrant.web.console.desk import Desk
from evergrant.web.console.kinds import Kind, kind_of
from evergrant.web.console.states import State, state_of_app
from evergrant.web.logos import logo_source
from evergrant.web.tiles import Tile, tile_of


@dataclass(frozen=True, slots=True)
class AppHead:
    """An app as the heading of its pages shows it. Templates get it as `head`, and extend `console/app_frame.html`."""

    app: OutboundApp
    tile: Tile
    state: State

    @property
    def kind(self) -> Kind:
        """How pages speak of it."""
        return kind_of(self.app)


async def app_head(desk: Desk, app_id: str) -> AppHead:
    """Return an app's heading.

    Raises:
        AppNotFound: there is none with this id.
        PermissionDenied: the session is limited to other apps.
    """
    desk.principal.require_app(app_id)
    apps, logos = await list_apps_with_logos(desk.broker, desk.project.id, only=[app_id])
    if not apps:
        raise AppNotFound
    app = apps[0]
    return AppHead(app, tile_of(app.id, app.name, logo_source(app, logos.get(app.id, ""))), state_of_app(app))
