"""How the project's pages look to its users."""

from typing import Annotated

from pydantic import Field

from evergrant import clock
from evergrant.broker.projects.branding import (
    MAX_SENTENCE,
    Brand,
    Looks,
    brand_of,
    change_looks,
    set_project_logo,
)
from evergrant.web.api.picture_wire import EXAMPLE_PICTURE, PictureText, picture_of
from evergrant.web.api.wire import Flag, PastedText, StrictWireModel, WireModel, epoch, errors, example
from evergrant.web.deps import AppsReader, AppsWriter, BrokerDep
from evergrant.web.logos import project_logo
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound/branding", tags=["branding"])

Colour = Annotated[PastedText, Field(max_length=7)]
Choice = Annotated[PastedText, Field(max_length=16)]
EXAMPLE = {
    "accentLight": "#0b5cad",
    "accentDark": "",
    "corners": "soft",
    "mode": "both",
    "sentence": "Acme Assistant reads only what you ask it about.",
    "privacyUrl": "https://acme.example/privacy",
    "helpUrl": "",
    "footer": True,
    "locale": "en",
}


class ChangeBranding(StrictWireModel):
    """All of a project's branding but its logo. What is left out becomes evergrant's own."""

    model_config = StrictWireModel.model_config | example(EXAMPLE)

    accent_light: Colour = Field(default="", description="`#rrggbb`; empty: evergrant's own.")
    accent_dark: Colour = Field(default="", description="Empty: the light one, as near as dark pages can show it.")
    corners: Choice = Field(default="soft", description="`square`, `soft` or `round`.")
    mode: Choice = Field(default="both", description="`light`, `dark`, or `both` as the user's system says.")
    sentence: PastedText = Field(
        default="", description=f"Your own, above what the consent page lists: at most {MAX_SENTENCE} characters."
    )
    privacy_url: PastedText = Field(default="", description="https; a link on every page.")
    help_url: PastedText = Field(default="", description="https; a link on every page.")
    footer: Flag = Field(default=True, description="Whether pages say that evergrant keeps the connections.")
    locale: Choice = Field(
        default="en", description="`en`, `de` or `fr`: for users whose language evergrant does not speak."
    )


class BrandingBody(WireModel):
    """How the project's pages look."""

    accent_light: str
    accent_dark: str
    corners: str
    mode: str
    sentence: str
    privacy_url: str
    help_url: str
    footer: bool
    locale: str
    logo_path: str = Field(description="Where the logo is, below evergrant's address; empty: there is none.")
    updated_time: str = Field(description="In epoch seconds; empty: it never changed.")


class BrandingAnswer(WireModel):
    """The branding as it is now."""

    model_config = example({"branding": {**EXAMPLE, "logoPath": "", "updatedTime": "1741103514"}})

    branding: BrandingBody


class ProjectLogo(StrictWireModel):
    """A picture for the head of every page."""

    model_config = StrictWireModel.model_config | example({"logo": EXAMPLE_PICTURE})

    logo: PictureText


@router.get("", summary="Load the branding", responses=errors())
async def load_branding(broker: BrokerDep, principal: AppsReader) -> BrandingAnswer:
    """Return how the project's pages look to its users."""
    return _answer(principal.project_id, await brand_of(broker, principal.project_id))


@router.post("", summary="Replace the branding", responses=errors(400, 413))
async def change_branding(body: ChangeBranding, broker: BrokerDep, principal: AppsWriter) -> BrandingAnswer:
    """Replace everything but the logo. Users see it within 5 seconds.

    An accent that people could not read is refused, with the nearest one that they can read.
    """
    brand = await change_looks(broker, principal, Looks(**body.model_dump()), now=clock.now())
    return _answer(principal.project_id, brand)


@router.post("/logo", summary="Store the project's logo", responses=errors(400, 413))
async def store_project_logo(body: ProjectLogo, broker: BrokerDep, principal: AppsWriter) -> BrandingAnswer:
    """Store a PNG, JPEG or WebP of at most 256 KB; empty removes the logo."""
    content = picture_of(body.logo)
    brand = await set_project_logo(broker, principal, content, now=clock.now())
    return _answer(principal.project_id, brand)


def _answer(project_id: str, brand: Brand) -> BrandingAnswer:
    looks = {name: getattr(brand.looks, name) for name in ChangeBranding.model_fields}
    body = BrandingBody(**looks, logo_path=project_logo(project_id, brand), updated_time=epoch(brand.updated_at))
    return BrandingAnswer(branding=body)
