"""How the pages of one project look to its users: what their templates need beside their words."""

from evergrant.broker.projects.branding import Brand, brand_of
from evergrant.broker.runtime.broker import Broker
from evergrant.web.logos import project_logo
from evergrant.web.theme import theme_href
from evergrant.web.visitor import Look


async def look_of(broker: Broker, project_id: str) -> Look:
    """Return how a project's pages look: one read, remembered for a few seconds."""
    return as_look(project_id, await brand_of(broker, project_id))


def as_look(project_id: str, brand: Brand) -> Look:
    """Return what pages need of a project's branding."""
    looks = brand.looks
    return Look(
        logo_src=project_logo(project_id, brand),
        theme_href=theme_href(project_id, brand),
        sentence=looks.sentence,
        privacy_url=looks.privacy_url,
        help_url=looks.help_url,
        footer=looks.footer,
        mode=looks.mode,
        locale=looks.locale,
    )
