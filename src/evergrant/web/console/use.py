"""The Use it tab of an app: the calls that connect, confirm and fetch, ready to paste."""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response

from evergrant.broker.runtime.principal import Permission
from evergrant.web.console.app_head import app_head
from evergrant.web.console.calls import LANGUAGES, confirming, connecting, fetching, uploading, with_sdk
from evergrant.web.console.desk import Asked, DeskDep
from evergrant.web.console.route import ConsoleRoute

router = APIRouter(route_class=ConsoleRoute)


@router.get("/console/{project}/apps/{app_id}/use")
async def use(desk: DeskDep, app_id: Annotated[str, Path(max_length=64)], lang: Asked = "curl") -> Response:
    """Show the calls in one language."""
    desk.require(Permission.APPS_READ)
    head = await app_head(desk, app_id)
    app, base = head.app, desk.broker.settings.public_url
    language = lang if lang in LANGUAGES else "curl"
    calls = (
        {"upload": uploading(base, app)}
        if app.app_type == "apikey"
        else {"connect": connecting(base, app, desk.project), "confirm": confirming(base, app)}
    )
    calls["fetch"] = fetching(base, app)
    return desk.page(
        "app_use.html",
        head=head,
        language=language,
        languages=LANGUAGES,
        calls={name: call.text(language) for name, call in calls.items()},
        sdk=with_sdk(base, app, language),
    )
