"""Branding: how the project's pages look to its users, with a preview of what is not saved yet."""

from collections.abc import Mapping
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.projects.accents import COLOUR, USUAL, nearest_readable
from evergrant.broker.projects.branding import (
    CORNERS,
    LOCALES,
    MAX_SENTENCE,
    MODES,
    Looks,
    accent_problem,
    brand_of,
    change_looks,
    set_project_logo,
)
from evergrant.errors import InvalidRequest, MissingArgument
from evergrant.web.console.desk import HEADERS, Desk, DeskDep
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.settings_pages import (
    Saved,
    problems_by_field,
    require_admin,
    require_admin_again,
    settings_page,
)
from evergrant.web.forms import Form, read_form
from evergrant.web.logos import logo_sources, project_logo
from evergrant.web.theme import preview_stylesheet
from evergrant.web.tiles import tile_of

router = APIRouter(route_class=ConsoleRoute)


@router.get("/console/{project}/settings/branding")
async def show(desk: DeskDep, request: Request, saved: Saved = "") -> Response:
    """Show the branding; with fields in the address, how the pages would look with them."""
    require_admin(desk)
    asked = Form(request.query_params.multi_items())
    if asked.has("corners"):
        return await _page(desk, _looks_in(asked), is_draft=True)
    return await _page(desk, (await brand_of(desk.broker, desk.project.id)).looks, saved=bool(saved))


@router.get("/console/{project}/settings/branding/preview.css")
async def preview_theme(desk: DeskDep, request: Request) -> Response:
    """Answer with the theme of the preview, for the fields in the address."""
    require_admin(desk)
    looks = _as_shown(_looks_in(Form(request.query_params.multi_items())))
    return Response(preview_stylesheet(looks), headers=HEADERS, media_type="text/css")


@router.post("/console/{project}/settings/branding")
async def save(desk: DeskDep, request: Request) -> Response:
    """Save the branding, all but the logo."""
    require_admin_again(desk)
    looks = _looks_in(await read_form(request))
    try:
        await change_looks(desk.broker, desk.principal, looks, now=clock.now())
    except InvalidRequest as error:
        return await _page(desk, looks, is_draft=True, wrong=problems_by_field(error))
    return desk.go(desk.path("settings", "branding", saved="1"))


@router.post("/console/{project}/settings/branding/logo")
async def save_logo(desk: DeskDep, request: Request) -> Response:
    """Store the logo that was chosen, or remove the one that there is."""
    require_admin_again(desk)
    form = await read_form(request)
    content = None if form.has("remove") else form.files.get("logo", b"")
    try:
        if content == b"":
            raise MissingArgument.of(("logo", "choose a picture first"))
        await set_project_logo(desk.broker, desk.principal, content, now=clock.now())
    except InvalidRequest as error:
        looks = (await brand_of(desk.broker, desk.project.id)).looks
        return await _page(desk, looks, wrong=problems_by_field(error))
    return desk.go(desk.path("settings", "branding", saved="1"))


def _looks_in(form: Form) -> Looks:
    return Looks(
        accent_light=form.text("accentLight").lower(),
        accent_dark=form.text("accentDark").lower(),
        corners=form.text("corners"),
        mode=form.text("mode"),
        sentence=form.text("sentence"),
        privacy_url=form.text("privacyUrl"),
        help_url=form.text("helpUrl"),
        footer=form.has("footer"),
        locale=form.text("locale"),
    )


def _as_shown(looks: Looks) -> Looks:
    """Return looks as a preview can show them: the nearest of what cannot be used."""

    def shown(accent: str, mode: str) -> str:
        return nearest_readable(accent, mode) if COLOUR.fullmatch(accent) else ""

    usual = Looks()
    return replace(
        looks,
        accent_light=shown(looks.accent_light, "light"),
        accent_dark=shown(looks.accent_dark, "dark"),
        corners=looks.corners if looks.corners in CORNERS else usual.corners,
        mode=looks.mode if looks.mode in MODES else usual.mode,
        sentence=looks.sentence[:MAX_SENTENCE],
    )


def _fields_of(looks: Looks) -> dict[str, str]:
    """Return looks as the form's fields; what is empty is left out of addresses anyway."""
    return {
        "accentLight": looks.accent_light,
        "accentDark": looks.accent_dark,
        "corners": looks.corners,
        "mode": looks.mode,
        "sentence": looks.sentence,
        "privacyUrl": looks.privacy_url,
        "helpUrl": looks.help_url,
        "footer": "on" if looks.footer else "",
        "locale": looks.locale,
    }


async def _page(
    desk: Desk,
    looks: Looks,
    *,
    is_draft: bool = False,
    saved: bool = False,
    wrong: Mapping[str, str] | None = None,
) -> Response:
    project_id, shown, fields = desk.project.id, _as_shown(looks), _fields_of(looks)
    brand = await brand_of(desk.broker, project_id)
    app = next(iter(await list_apps(desk.broker, project_id)), None)
    sources = await logo_sources(desk.broker, project_id, [app]) if app else {}
    offers = []
    for name, accent, mode in (
        ("accentLight", looks.accent_light, "light"),
        ("accentDark", looks.accent_dark, "dark"),
    ):
        if accent_problem(accent, mode) and COLOUR.fullmatch(accent):
            nearest = nearest_readable(accent, mode)
            href = desk.path("settings", "branding", **{**fields, name: nearest})
            offers.append({"mode": mode, "accent": accent, "nearest": nearest, "href": href})
    return settings_page(
        desk,
        "settings_branding.html",
        looks=looks,
        shown=shown,
        wrong=wrong,
        saved=saved,
        is_draft=is_draft,
        offers=offers,
        brand=brand,
        usual=USUAL,
        choices={"corners": CORNERS, "modes": MODES, "locales": LOCALES},
        most=MAX_SENTENCE,
        project_tile=tile_of(project_id, desk.project.name, project_logo(project_id, brand)),
        app_name=app.name if app else "Calendar",
        app_tile=tile_of(app.id, app.name, sources[app.id]) if app else tile_of("calendar", "Calendar"),
        theme=desk.path("settings", "branding", "preview.css", **_fields_of(shown)),
    )
