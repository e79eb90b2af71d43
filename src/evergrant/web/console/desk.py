"""A request of an operator who is signed in: who, in which project, and how its answers are made.

A section's handler asks for a `DeskDep`, calls the same use case that the API's handler calls, with `desk.principal`,
and answers with `desk.page` or `desk.go`. It checks no permission by itself that the API's handler leaves to its
dependency: that is what `desk.require` is for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from evergrant import clock
from evergrant.broker.audit.record import Actor
from evergrant.broker.operators.sessions import find_session
from evergrant.broker.operators.signed_in import SignedIn
from evergrant.broker.projects.projects import list_projects
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
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


async def desk(request: Request, project: Annotated[str, Path(max_length=31, pattern=r"^[A-Za-z0-9_-]+$")]) -> Desk:
    """Recognise the operator, and find the project that the address names.

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
    made = Desk(request, broker, who, principal, found, who.project_id is None and len(projects) > 1)
    request.state.desk = made
    return made


GrantId = Annotated[str, Path(max_length=32, pattern=r"^[^\x00]+$")]
AppIdInPath = Annotated[str, Path(max_length=64, pattern=r"^[^\x00]+$")]
OwnerIdInPath = Annotated[str, Path(max_length=255, pattern=r"^[^\x00]+$")]
DeskDep = Annotated[Desk, Depends(desk)]
Asked = Annotated[str, Query(max_length=200)]
"""What an address says behind its question mark; the route has refused what no text can be."""
WhoDep = Annotated[SignedIn, Depends(who_is_asking)]
