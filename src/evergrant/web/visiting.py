"""The two places where a visit takes place, and what every page of a visit goes through.

On a page of its own (`LINK`) its cookie stays within evergrant, and nobody may put the page into a frame. In a page of
the application (`Frame`) it is a frame, whose cookie is partitioned by that page, and which only the project's own
origins may show. Neither place takes the other's cookie, so a visit on a page of its own is never in a frame.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.routing import APIRoute

from evergrant import clock
from evergrant.broker.audit.record import Actor
from evergrant.broker.portal.sessions import VISIT_PATH, find_visit
from evergrant.broker.portal.visits import Visit, VisitIsOver
from evergrant.broker.projects.projects import list_projects
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Project
from evergrant.errors import EvergrantError, NotFound, PermissionDenied
from evergrant.logs import request_id
from evergrant.web import locale
from evergrant.web.asked import address_of, note_actor
from evergrant.web.deps import get_broker
from evergrant.web.errors import invalid_request, note_limit
from evergrant.web.looks import look_of
from evergrant.web.same_origin import is_from_us
from evergrant.web.templating import PAGE_HEADERS, render
from evergrant.web.visitor import Look

EMBED_PATH = "/embed"
PRINTED = r"^[^\x00-\x1f]*$"
"""What parameters of these pages consist of: no control characters."""
CLOSED_PATH = f"{VISIT_PATH}/closed"
"""Where trips end that have a window of their own."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a visit takes place: its addresses, its cookie and its headers."""

    base: str
    """What its addresses begin with."""
    cookie: str
    in_frame: bool
    headers: Mapping[str, str]
    origins: tuple[str, ...] = ()
    """Whose pages may show it in a frame."""

    def cookie_name(self, broker: Broker) -> str:
        """Return the name of the cookie."""
        # A __Host- cookie needs https, which only loopback trials do without.
        return self.cookie if broker.settings.is_loopback_trial else f"__Host-{self.cookie}"

    def with_cookie(self, response: Response, broker: Broker, value: str) -> Response:
        """Give the browser its cookie, which lasts as long as the browser; the visit's row says how long it counts."""
        # In a frame of another site nothing else is kept, and browsers take it from loopback without https too.
        # Written out, because Python's own cookies have no Partitioned before 3.14.
        kept = "Secure; SameSite=None; Partitioned" if self.in_frame else "SameSite=Lax"
        secure = "" if self.in_frame or broker.settings.is_loopback_trial else "Secure; "
        response.headers.append("set-cookie", f"{self.cookie_name(broker)}={value}; Path=/; HttpOnly; {secure}{kept}")
        return response

    def first_page(self, show: str, *, app: str = "", scopes: str = "") -> str:
        """Return the address of what a frame shows: everything, or the button of one app."""
        if show != "button":
            return f"{self.base}/accounts"
        return f"{self.base}/button?{urlencode({'app': app, 'scopes': scopes})}"

    def page(self, template: str, *, status: int = 200, look: Look | None = None, **values: Any) -> HTMLResponse:
        """Answer with a page of this place: `visitor/NAME.html`."""
        return HTMLResponse(
            render(f"visitor/{template}", place=self, look=look, language=locale.language.get(), **values),
            status,
            dict(self.headers),
        )

    def go(self, path: str) -> Response:
        """Send the browser on."""
        return RedirectResponse(path, 303, dict(self.headers))


LINK = Place(VISIT_PATH, "evergrant-accounts", in_frame=False, headers=PAGE_HEADERS)


def frame_of(project: Project | None) -> Place:
    """Return the place of frames in the pages of a project's embed origins, and of no others."""
    origins = tuple(project.embed_origins) if project is not None else ()
    ancestors = " ".join(origins) or "'none'"
    headers = {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            f"form-action 'self'; base-uri 'none'; frame-ancestors {ancestors}; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        ),
        "Referrer-Policy": "no-referrer",
    }
    base = f"{EMBED_PATH}/{quote(project.id, safe='')}" if project is not None else EMBED_PATH
    return Place(base, "evergrant-accounts-frame", in_frame=True, headers=headers, origins=origins)


def cookie_of(request: Request, place: Place) -> str:
    """Return what the browser says that its visit is; empty where it says nothing."""
    return request.cookies.get(place.cookie_name(get_broker(request)), "")


async def visit_in(request: Request, place: Place, *, project_id: str = "") -> Visit:
    """Return the visit of the browser that asks.

    Raises:
        VisitIsOver: there is none, or it is over, or it is another project's.
        RateLimited: it asks for too much.
    """
    broker, cookie = get_broker(request), cookie_of(request, place)
    visit = await find_visit(broker, cookie, now=clock.now()) if cookie else None
    if visit is not None and project_id and visit.project.id != project_id:
        visit = None
    request.state.place, request.state.portal_visit = place, visit
    if visit is not None:
        look = await look_of(broker, visit.project.id)
        speak(request, visit.locale, look.locale)
    if visit is None or visit.is_over:
        raise VisitIsOver
    broker.limits.users.take((visit.project.id, visit.id))
    note_actor(request.scope, Actor(visit.actor, address_of(request.scope)), visit.project.id)
    return visit


def speak(request: Request, asked: str, usual: str = "") -> None:
    """Answer this request in a language: what was asked for, else what the browser accepts, else the project's."""
    locale.language.set(locale.chosen(asked, request.headers.get("accept-language", ""), usual))


class VisitRoute(APIRoute):
    """A route of a visit: forged forms are refused, and errors become pages of the place."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            broker = get_broker(request)
            request.state.place, request.state.portal_visit = LINK, None
            speak(request, "")
            if (project_id := request.path_params.get("project")) is not None:
                request.state.place = frame_of(await _open_project(broker, project_id))
            try:
                if not is_from_us(request, broker):
                    raise PermissionDenied(locale.gettext("This form can only be sent from this page itself."))
                return await handle(request)
            except RequestValidationError as error:
                return await _error_page(request, invalid_request(error.errors()))
            except EvergrantError as error:
                if error.status >= 500 and error.status not in (502, 503):
                    raise
                return await _error_page(request, error)

        return handled


async def _open_project(broker: Broker, project_id: str) -> Project | None:
    return next((one for one in await list_projects(broker) if one.id == project_id), None)


def _said(error: EvergrantError, visit: Visit | None) -> str:
    """Say why a trip did not begin, to its user."""
    if error.status == 403 and visit is not None:
        return locale.gettext("%(project)s does not let you do this.") % {"project": visit.project.name}
    if error.status == 429:
        return locale.gettext("That was too often. Wait a minute, and go on then.")
    if error.status in (502, 503):
        return locale.gettext("Something does not answer right now. Try again in some minutes.")
    return locale.gettext("What this page was asked for is not possible any more.")


async def _error_page(request: Request, error: EvergrantError) -> Response:
    place: Place = request.state.place
    visit: Visit | None = request.state.portal_visit
    note_limit(request, error)
    if request.headers.get("accept") == "application/json":
        say = _said(error, visit)
        answer: Response = JSONResponse({"say": say}, error.status, dict(place.headers))
    else:
        answer = place.page(
            "accounts_error.html",
            status=error.status,
            look=await look_of(get_broker(request), visit.project.id) if visit is not None else None,
            visit=visit,
            is_over=isinstance(error, NotFound),
            code=error.status,
            reference=request_id.get(),
        )
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer
