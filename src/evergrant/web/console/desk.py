"""A request of an operator who is signed in: who, in which project, and how its answers are made.

A section's handler asks for a `DeskDep`, calls the same use case that the API's handler calls, with `desk.principal`,
and answers with `desk.page` or `desk.go`. It checks no permission by itself that the API's handler leaves to its
dependency: that is what `desk.require` is for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from evergrant import clock
from evergrant.broker.activity.attention import count_to_do
from evergrant.broker.audit.record import Actor
from evergrant.broker.operators.sessions import find_session
from evergrant.broker.operators.signed_in import SignedIn
from evergrant.broker.projects.projects import list_projects
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.crypto.opaque import digest
from evergrant.db import Project
from evergrant.errors import EvergrantError, NotFound
from evergrant.web.asked import address_of, note_actor
from evergrant.web.console.navigation import groups_for
from evergrant.web.deps import get_broker
from evergrant.web.templating import render

SIGN_IN_PATH = "/console/sign-in"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types evergrant"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
"""Headers of every page of the console."""


class SignInFirst(EvergrantError):
    """Sign in first."""

    status = 401


@dataclass(frozen=True, slots=True)
class Desk:
    """One request of a signed-in operator about one project."""

    request: Request
    broker: Broker
    who: SignedIn
    principal: Principal
    project: Project
    has_other_projects: bool
    to_do: Mapping[str, int] = field(default_factory=dict)
    """How much waits for somebody to act, by part: the navigation's red numbers."""

    def may(self, *permissions: Permission) -> bool:
        """Tell whether the operator has one of these permissions."""
        return not self.principal.permissions.isdisjoint(permissions)

    def require(self, *permissions: Permission) -> None:
        """Check a permission; of several, one is enough.

        Raises:
            PermissionDenied: the message names it.
        """
        self.principal.require(*permissions)

    def require_recent(self) -> None:
        """Check that somebody signed in within the last 15 minutes.

        Raises:
            SignInTooOld: the page that answers offers to sign in again.
        """
        self.who.require_recent(clock.now())

    @property
    def principal_for_now(self) -> Principal:
        """The principal for what can send tokens elsewhere: with what it may give to others only after a late sign-in.

        An open browser that somebody has left must not be a way to what the keys' pages ask a sign-in for.
        """
        return self.principal if self.who.is_recent(clock.now()) else replace(self.principal, withheld=frozenset())

    def with_to_do(self, to_do: Mapping[str, int]) -> "Desk":
        """Return the same desk with the navigation's red numbers."""
        return replace(self, to_do=to_do)

    def path(self, *parts: str, **query: str) -> str:
        """Return the address of a page of this project: `desk.path("apps", app.id, q="x")`."""
        path = "/".join(["/console", quote(self.project.id, safe=""), *(quote(part, safe="") for part in parts)])
        kept = {name: value for name, value in query.items() if value}
        return f"{path}?{urlencode(kept)}" if kept else path

    def page(
        self, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
    ) -> HTMLResponse:
        """Answer with a page in the console's frame: `console/NAME.html`, which says `here` and `title` by itself."""
        nav = groups_for(self.principal.permissions, is_admin=self.who.is_admin)
        text = render(f"console/{template}", desk=self, nav=nav, path=self.path, **values)
        return HTMLResponse(text, status, {**HEADERS, **(headers or {})})

    def go(self, path: str) -> Response:
        """Send the browser on after a form: reloading the page then sends nothing twice."""
        return RedirectResponse(path, 303, HEADERS)


def cookie_name(broker: Broker) -> str:
    """Return the name of the session's cookie."""
    # A __Host- cookie needs Secure, which plain http cannot have; only loopback trials run on that.
    return "evergrant-console" if broker.settings.is_loopback_trial else "__Host-evergrant-console"


async def who_is_asking(request: Request) -> SignedIn:
    """Return the operator whose session the request's cookie is.

    Raises:
        SignInFirst: there is none.
    """
    broker = get_broker(request)
    cookie = request.cookies.get(cookie_name(broker), "")
    address = address_of(request.scope)
    found = await find_session(broker, cookie, client_address=address, now=clock.now()) if cookie else None
    if found is None:
        raise SignInFirst
    return found


async def glancing_desk(
    request: Request, project: Annotated[str, Path(max_length=31, pattern=r"^[A-Za-z0-9_-]+$")]
) -> Desk:
    """Recognise the operator, and find the project that the address names.

    This is for pages that find out by themselves what waits for somebody.

    Raises:
        SignInFirst: nobody is signed in.
        NotFound: there is no such project, or it is not theirs.
    """
    who, broker = await who_is_asking(request), get_broker(request)
    request.state.who = who  # for the error page, which has the same frame
    principal = who.principal(project)
    projects = await list_projects(broker)
    found = next((one for one in projects if one.id == project), None)
    if found is None:
        raise NotFound(f"There is no project '{project}'.")
    note_actor(request.scope, Actor(principal.name, address_of(request.scope)), project)
    others = who.project_id is None and len(projects) > 1
    made = Desk(request, broker, who, principal, found, others)
    request.state.desk = made
    broker.desks.put(_seat(request, project), (who, found, others))
    return made


async def desk(made: Annotated[Desk, Depends(glancing_desk)]) -> Desk:
    """Do the same, and count what waits for somebody, some seconds ago. A form's answer does not show it."""
    if made.request.method != "GET":
        return made
    counted = made.with_to_do(await count_to_do(made.broker, made.principal))
    made.request.state.desk = counted
    return counted


def desk_before_outage(request: Request) -> Desk | None:
    """Return the desk at which this browser sat within the last minutes, to say in its frame that the database is away.

    Nothing is done with it but drawing the frame: whether the session still stands, only the database can tell.
    """
    broker, project_id = get_broker(request), request.path_params.get("project", "")
    seat = broker.desks.get(_seat(request, project_id))
    if seat is None:
        return None
    who, project, others = seat
    return Desk(request, broker, who, who.principal(project_id), project, others)


def _seat(request: Request, project: str) -> tuple[bytes, str]:
    return digest(request.cookies.get(cookie_name(get_broker(request)), "")), project


GlancingDesk = Annotated[Desk, Depends(glancing_desk)]
GrantId = Annotated[str, Path(max_length=32, pattern=r"^[^\x00]+$")]
AppIdInPath = Annotated[str, Path(max_length=64, pattern=r"^[^\x00]+$")]
OwnerIdInPath = Annotated[str, Path(max_length=255, pattern=r"^[^\x00]+$")]
DeskDep = Annotated[Desk, Depends(desk)]
Asked = Annotated[str, Query(max_length=200)]
"""What an address says behind its question mark; the route has refused what no text can be."""
WhoDep = Annotated[SignedIn, Depends(who_is_asking)]
