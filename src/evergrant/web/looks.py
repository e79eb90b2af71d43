"""How the pages of one project look to its users: what their templates need beside their words."""

from dataclasses import dataclass

from evergrant.broker.projects.branding import Brand, brand_of
from evergrant.broker.runtime.broker import Broker
from evergrant.web.logos import project_logo
from evergrant.web.theme import theme_href


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a visitor's page shows of its project."""

    logo_src: str
    """Empty: the project's letters."""
    theme_href: str
    """A stylesheet that comes behind `tokens.css`; empty: evergrant's own colours."""
    sentence: str
    privacy_url: str
    help_url: str
    footer: bool
    """Whether the page says that evergrant keeps the connections."""
    mode: str
    """`light`, `dark` or `both`. The theme says it too, so that a page need not."""
    locale: str
    """For visitors whose language evergrant does not speak."""


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
