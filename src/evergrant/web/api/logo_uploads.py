"""Logos of apps that you upload."""

from pydantic import Field

from evergrant import clock
from evergrant.broker.apps.logos import remove_app_logo, set_app_logo
from evergrant.web.api.picture_wire import EXAMPLE_PICTURE, PictureText, picture_of
from evergrant.web.api.wire import AppId, StrictWireModel, WireModel, errors, example
from evergrant.web.deps import AppsWriter, BrokerDep
from evergrant.web.logos import app_logo
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound/app", tags=["apps"])


class UploadLogo(StrictWireModel):
    """A picture for an app."""

    model_config = StrictWireModel.model_config | example({"id": "google-contacts", "logo": EXAMPLE_PICTURE})

    id: AppId
    logo: PictureText


class LogoAnswer(WireModel):
    """Where the logo is."""

    model_config = example({"logoPath": "/logo/P2nq5Jx8Vb/google-contacts?v=1f3a5c7e9b2d"})

    logo_path: str = Field(description="Below evergrant's address; empty: the app has no uploaded logo.")


@router.post("/logo", summary="Store an app's logo", responses=errors(400, 404, 413))
async def store_app_logo(body: UploadLogo, broker: BrokerDep, principal: AppsWriter) -> LogoAnswer:
    """Store a PNG, JPEG or WebP that the user's pages show; empty removes it.

    Without one, they show the app library's logo of the app's template, or two letters of the app's name.
    """
    principal.require_app(body.id)
    content = picture_of(body.logo)
    if content is None:
        await remove_app_logo(broker, principal.project_id, body.id)
        return LogoAnswer(logo_path="")
    version = await set_app_logo(broker, principal.project_id, body.id, content, now=clock.now())
    return LogoAnswer(logo_path=app_logo(principal.project_id, body.id, version))
