"""Links with which a person connects an app: made here, shown once."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.connect.start import ConnectRequest, begin_connect
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.principal import Permission
from evergrant.errors import InvalidRequest
from evergrant.web.console.connection_actions import link_page
from evergrant.web.console.desk import Desk, DeskDep, GrantId
from evergrant.web.console.kinds import kind_of
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.forms import Form, read_form
from evergrant.web.locale import LANGUAGES

router = APIRouter(route_class=ConsoleRoute)

FIELDS = ("app", "user", "tenant", "whole", "label", "tenantLabel", "locale", "external")
NAMES = {
    "appId": "app",
    "userId": "user",
    "tenantId": "tenant",
    "options.externalIdentifier": "external",
}
"""Fields of the form, by the names that errors give them."""
MOST_LETTERS = {"user": 255, "tenant": 255, "external": 255, "label": 120, "tenantLabel": 120}


@router.get("/console/{project}/connections/new")
async def ask(desk: DeskDep, request: Request) -> Response:
    """Ask who shall connect what."""
    desk.require(Permission.CONNECT)
    asked = request.query_params
    return await _form(desk, {name: asked.get(name, "") for name in FIELDS}, {})


@router.post("/console/{project}/connections/new")
async def make(desk: DeskDep, request: Request) -> Response:
    """Make a link and show it, this once."""
    desk.require(Permission.CONNECT)
    form = await read_form(request)
    values = {name: form.text(name) for name in FIELDS}
    if wrong := _wrong(form):
        return await _form(desk, values, wrong, status=400)
    user, is_whole = values["user"], bool(values["whole"])
    wanted = ConnectRequest(
        app_id=values["app"],
        owner=ResourceOwner("" if is_whole else user, values["tenant"]),
        granted_by=user if is_whole else "",
        external_identifier=values["external"],
        user_label=values["label"],
        tenant_label=values["tenantLabel"],
        locale=values["locale"],
    )
    try:
        url = await begin_connect(desk.broker, desk.principal, wanted, now=clock.now())
    except InvalidRequest as error:
        problems = error.details.get("fields", ())
        wrong = {NAMES.get(one["field"], "app"): one["problem"] for one in problems}
        return await _form(desk, values, wrong, status=400)
    who = f"everyone in {wanted.owner.tenant_id}" if is_whole else user
    return desk.page("connection_link.html", url=url, who=who, person=user, app_id=wanted.app_id, back="")


@router.post("/console/{project}/connections/{grant_id}/link")
async def make_again(desk: DeskDep, grant_id: GrantId) -> Response:
    """Make a link with which a connection's person connects it again, for the same scopes."""
    return await link_page(desk, grant_id)


def _wrong(form: Form) -> dict[str, str]:
    wrong = {}
    if not form.text("app"):
        wrong["app"] = "choose one"
    if not form.text("user"):
        wrong["user"] = "say who will connect, by your own id for them"
    if form.text("whole") and not form.text("tenant"):
        wrong["tenant"] = "say which tenant it is for"
    for name, most in MOST_LETTERS.items():
        if len(form.text(name)) > most:
            wrong[name] = f"use at most {most} characters"
    if form.text("locale") not in ("", *LANGUAGES):
        wrong["locale"] = "choose one of these"
    return wrong


async def _form(desk: Desk, values: dict[str, str], wrong: dict[str, str], *, status: int = 200) -> Response:
    apps = await list_apps(desk.broker, desk.project.id, only=sorted(desk.principal.app_ids))
    offered = [app for app in apps if kind_of(app).is_consented]
    return desk.page(
        "connection_new.html", status=status, apps=offered, values=values, wrong=wrong, languages=LANGUAGES
    )
