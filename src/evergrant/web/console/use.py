"""The Use it tab of an app: the calls that connect, confirm and fetch, ready to paste."""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response

from evergrant.broker.apps.variables import template_of
from evergrant.broker.connections.credential_fields import THE_KEY, fields_asked
from evergrant.broker.runtime.principal import Permission
from evergrant.web.console.app_head import app_head
from evergrant.web.console.calls import LANGUAGES, confirming, connecting, fetching, uploading, with_sdk
from evergrant.web.console.desk import Asked, DeskDep
from evergrant.web.console.kinds import variables_brought
from evergrant.web.console.route import ConsoleRoute

router = APIRouter(route_class=ConsoleRoute)


@router.get("/console/{project}/apps/{app_id}/use")
async def use(desk: DeskDep, app_id: Annotated[str, Path(max_length=64)], lang: Asked = "curl") -> Response:
    """Show the calls in one language."""
    desk.require(Permission.APPS_READ)
    head = await app_head(desk, app_id)
    app, base = head.app, desk.broker.settings.public_url
    language = lang if lang in LANGUAGES else "curl"
    template = template_of(desk.broker, app)
    fields = fields_asked(template, app)
    needed = [name for name, one in variables_brought(app, template).items() if one.is_required]
    calls = (
        {"connect": connecting(base, app, desk.project), "confirm": confirming(base, app)}
        if head.kind.is_consented
        else {"upload": uploading(base, app, fields, needed)}
    )
    has_headers = head.kind.is_key and template is not None and bool(template.fields)
    calls["fetch"] = fetching(base, app, headers=has_headers)
    return desk.page(
        "app_use.html",
        head=head,
        language=language,
        languages=LANGUAGES,
        calls={name: call.text(language) for name, call in calls.items()},
        sdk=with_sdk(base, app, language) if not has_headers else "",
        has_headers=has_headers,
        is_one_key=list(fields) == [THE_KEY],
    )
