"""One person: all that they have connected, whatever the app."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.calls.call_list import CallFilter
from evergrant.broker.connections.deletion import delete_user_tokens
from evergrant.broker.portal.sessions import VisitRequest, make_visit
from evergrant.broker.runtime.principal import Permission
from evergrant.web.console.call_rows import read_calls
from evergrant.web.console.connection_list import read_list, wanted_in
from evergrant.web.console.desk import DeskDep, OwnerIdInPath
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.forms import read_form

router = APIRouter(route_class=ConsoleRoute)


# A user's id may hold slashes, so nothing can follow it in the address.
@router.get("/console/{project}/people/{user:path}")
async def show(desk: DeskDep, request: Request, user: OwnerIdInPath) -> Response:
    """Show a person's connections, or ask whether all of them shall end."""
    desk.require(Permission.CONNECTIONS_READ)
    asks = request.query_params.get("ask") == "end"
    if asks:
        desk.require(Permission.TOKENS_WRITE)
    listed = await read_list(desk, request, wanted_in(request, user_id=user))
    if asks:
        return desk.page("person_end.html", user=user, listed=listed)
    done = request.query_params.get("done", "")
    calls = await read_calls(desk, CallFilter(user_id=user))
    return desk.page("person.html", user=user, listed=listed, calls=calls, done=done, counts={})


@router.post("/console/{project}/people/{user:path}")
async def act(desk: DeskDep, request: Request, user: OwnerIdInPath) -> Response:
    """Revoke and delete all connections of a person, or make a link to their connected accounts, shown this once."""
    form = await read_form(request)
    if form.text("do") == "accounts":
        desk.require(Permission.CONNECT)
        url, _ = await make_visit(desk.broker, desk.principal, VisitRequest(user_id=user), now=clock.now())
        return desk.page("person_accounts.html", user=user, url=url)
    desk.require(Permission.TOKENS_WRITE)
    if form.text("do") == "end":
        await delete_user_tokens(desk.broker, desk.principal, app_id="", user_id=user, now=clock.now())
    return desk.go(desk.path("people", user, done="ended"))
