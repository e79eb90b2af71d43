"""The page of a user's connected accounts, on a page of its own. `embed` has it in frames."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.portal.acts import connect_from, disconnect_from
from evergrant.broker.portal.sessions import VISIT_PATH, is_opened_by, open_visit, project_of_link
from evergrant.errors import LinkIsOver
from evergrant.web.accounts_view import show_accounts
from evergrant.web.deps import BrokerDep, counting_failures, refuse_odd_text
from evergrant.web.forms import read_form
from evergrant.web.looking_ahead import not_yet, only_looks_ahead
from evergrant.web.visiting import CLOSED_PATH, LINK, PRINTED, VisitRoute, cookie_of, frame_of, visit_in

router = APIRouter(include_in_schema=False, route_class=VisitRoute, dependencies=[Depends(refuse_odd_text)])

Code = Annotated[str, Path(max_length=100, pattern=r"^[!-~]+$")]
Short = Annotated[str, Query(max_length=64, pattern=PRINTED)]


@router.get(VISIT_PATH)
async def accounts(
    request: Request, broker: BrokerDep, trip: Short = "", ended: Short = "", of: Short = "", told: Short = ""
) -> Response:
    """Show what is connected, and what came of what was just done."""
    visit = await visit_in(request, LINK)
    return await show_accounts(broker, visit, LINK, trip=trip, ended=ended, of=of, told=told)


@router.post(f"{VISIT_PATH}/connect")
async def connect(request: Request, broker: BrokerDep) -> Response:
    """Begin a trip that comes back here."""
    visit, form = await visit_in(request, LINK), await read_form(request)
    begun = await connect_from(
        broker,
        visit,
        form.text("app"),
        again=form.text("again"),
        another=form.has("another"),
        back_to=f"{broker.settings.public_url}{VISIT_PATH}?trip={{trip}}",
        now=clock.now(),
    )
    return LINK.go(begun.url)


@router.post(f"{VISIT_PATH}/disconnect")
async def disconnect(request: Request, broker: BrokerDep) -> Response:
    """End a connection."""
    visit, form = await visit_in(request, LINK), await read_form(request)
    grant_id = form.text("account")
    app_id, outcome = await disconnect_from(broker, visit, grant_id, now=clock.now())
    return LINK.go(f"{VISIT_PATH}?ended={grant_id}&of={app_id}&told={outcome.value}")


@router.get(CLOSED_PATH)
async def closed(request: Request) -> Response:  # noqa: ARG001 - for the route
    """End a window in which somebody has connected an account for a page with a frame."""
    return frame_of(None).page("accounts_closed.html")


@router.get(f"{VISIT_PATH}/{{code}}")
async def enter(
    code: Code,
    request: Request,
    broker: BrokerDep,
    again: Short = "",
    frame: Annotated[str, Query(max_length=8, pattern="^(accounts|button)?$")] = "",
    app: Short = "",
    scopes: Annotated[str, Query(max_length=2000, pattern=PRINTED)] = "",
) -> Response:
    """Open a link: by the browser that brings back a cookie, which link previews and robots do not.

    In a frame, nothing is used up yet: whether the frame may be shown at all, and keep a cookie, is only known when its
    form comes back.
    """
    if only_looks_ahead(request):
        return not_yet(LINK.headers)
    async with counting_failures(request):
        project = await project_of_link(broker, code)
        if project is None:
            raise LinkIsOver
    if frame:
        place = frame_of(project)
        known = cookie_of(request, place)
        if known and await is_opened_by(broker, code, known):
            return place.go(place.first_page(frame, app=app, scopes=scopes))
        page = place.page("accounts_enter.html", code=code, show=frame, app=app, scopes=scopes)
        return place.with_cookie(page, broker, secrets.token_urlsafe(32))
    cookie = cookie_of(request, LINK)
    if cookie and await is_opened_by(broker, code, cookie):
        return LINK.go(VISIT_PATH)
    if not again:
        answer = LINK.go(f"{VISIT_PATH}/{code}?again=1")
        return LINK.with_cookie(answer, broker, secrets.token_urlsafe(32))
    if not cookie:
        return LINK.page("accounts_no_cookie.html", status=400, again=f"{VISIT_PATH}/{code}")
    await open_visit(broker, code, cookie, now=clock.now())
    return LINK.go(VISIT_PATH)
