"""Connected accounts in a page of the application: `/embed/1.js` makes the frames, the rest is what is in them.

Every page in a frame says in its headers which origins may show it, and runs one small script, which tells the page
around it how large it is and what has happened. A trip to a provider takes a window of its own: no provider lets itself
be framed, and the consent page neither.
"""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from evergrant import clock
from evergrant.broker.portal.accounts import accounts_of
from evergrant.broker.portal.acts import askable, connect_from, disconnect_from, trip_from
from evergrant.broker.portal.sessions import VISIT_PATH, open_visit
from evergrant.broker.portal.visits import CONNECT, Visit
from evergrant.oauth2.scopes import stands_for
from evergrant.web.accounts_view import show_accounts
from evergrant.web.deps import BrokerDep, counting_failures, refuse_odd_text
from evergrant.web.forms import read_form
from evergrant.web.logos import logo_sources
from evergrant.web.looks import look_of
from evergrant.web.static_files import static_answer
from evergrant.web.tiles import tile_of
from evergrant.web.visiting import CLOSED_PATH, EMBED_PATH, PRINTED, Place, VisitRoute, cookie_of, visit_in

router = APIRouter(include_in_schema=False, route_class=VisitRoute, dependencies=[Depends(refuse_odd_text)])

MODULE_PATH = f"{EMBED_PATH}/1.js"
"""Its number changes when pages that use it would have to change."""
IN = f"{EMBED_PATH}/{{project}}"
Short = Annotated[str, Query(max_length=64, pattern=PRINTED)]
Scopes = Annotated[str, Query(max_length=2000, pattern=PRINTED)]


def place_of(request: Request) -> Place:
    """Return the place of the project that the address names."""
    place: Place = request.state.place
    return place


async def visit_of_frame(request: Request, project: Annotated[str, Path(max_length=31)]) -> Visit:
    """Return the visit of the frame that asks.

    Raises:
        VisitIsOver, RateLimited: as `visit_in`.
    """
    return await visit_in(request, place_of(request), project_id=project)


PlaceDep = Annotated[Place, Depends(place_of)]
VisitDep = Annotated[Visit, Depends(visit_of_frame)]


@router.get(MODULE_PATH)
async def module(request: Request) -> Response:
    """Answer with the module that defines the elements, for pages of any origin."""
    return static_answer("embed.js", request)


@router.post(f"{IN}/enter")
async def enter_frame(place: PlaceDep, request: Request, broker: BrokerDep) -> Response:
    """Open a link in a frame, which is there and has kept its cookie."""
    form, cookie = await read_form(request), cookie_of(request, place)
    code = form.text("code")
    if not cookie:
        return place.page("accounts_no_cookie.html", status=400, again=f"{VISIT_PATH}/{code}")
    async with counting_failures(request):
        await open_visit(broker, code, cookie, now=clock.now())
    return place.go(place.first_page(form.text("show"), app=form.text("app"), scopes=form.text("scopes")))


@router.get(f"{IN}/accounts")
async def framed_accounts(
    visit: VisitDep,
    place: PlaceDep,
    broker: BrokerDep,
    trip: Short = "",
    ended: Short = "",
    of: Short = "",
    told: Short = "",
) -> Response:
    """Show what is connected."""
    return await show_accounts(broker, visit, place, trip=trip, ended=ended, of=of, told=told)


@router.get(f"{IN}/button")
async def button(visit: VisitDep, place: PlaceDep, broker: BrokerDep, app: Short = "", scopes: Scopes = "") -> Response:
    """Show the button that connects one app, or that it is connected with these scopes."""
    seen = await accounts_of(broker, visit, only=app)
    own = [account for account in seen.connected if not account.is_shared]
    wanted = scopes.split()
    found = next((one.app for one in own), next(iter(seen.connectable), None))
    logos = await logo_sources(broker, visit.project.id, [found] if found is not None else [])
    return place.page(
        "connect_button.html",
        look=await look_of(broker, visit.project.id),
        visit=visit,
        app=found,
        tile=tile_of(found.id, found.name, logos[found.id]) if found is not None else None,
        scopes=scopes,
        may_connect=found is not None
        and visit.may(CONNECT)
        and app in seen.can_connect
        and askable(visit, found).issuperset(wanted),
        broken=[one for one in own if one.is_broken],
        good=[one for one in own if not one.is_broken],
        has_all=any(_has_all(one.scopes, wanted) for one in own if not one.is_broken),
        event=("", ""),
    )


def _has_all(scopes: Sequence[str], wanted: Sequence[str]) -> bool:
    return all(any(stands_for(one, scope) for scope in scopes) for one in wanted)


@router.post(f"{IN}/connect")
async def connect_in_window(visit: VisitDep, place: PlaceDep, request: Request, broker: BrokerDep) -> Response:
    """Begin a trip for a window of its own; the frame's script opens it, and asks how it ends."""
    form = await read_form(request)
    begun = await connect_from(
        broker,
        visit,
        form.text("app"),
        again=form.text("again"),
        another=form.has("another"),
        scopes=form.text("scopes").split(),
        back_to=f"{broker.settings.public_url}{CLOSED_PATH}",
        now=clock.now(),
    )
    return JSONResponse({"url": begun.url, "trip": begun.trip_id}, headers=dict(place.headers))


@router.get(f"{IN}/trips/{{trip}}")
async def trip_state(
    visit: VisitDep, place: PlaceDep, trip: Annotated[str, Path(max_length=64, pattern=PRINTED)], broker: BrokerDep
) -> Response:
    """Tell a frame's script how a trip stands."""
    app_id, state = await trip_from(broker, visit, trip, now=clock.now())
    return JSONResponse({"app": app_id, "state": state}, headers=dict(place.headers))


@router.post(f"{IN}/disconnect")
async def disconnect_in_frame(visit: VisitDep, place: PlaceDep, request: Request, broker: BrokerDep) -> Response:
    """End a connection."""
    form = await read_form(request)
    grant_id = form.text("account")
    app_id, outcome = await disconnect_from(broker, visit, grant_id, now=clock.now())
    return place.go(f"{place.base}/accounts?ended={grant_id}&of={app_id}&told={outcome.value}")
