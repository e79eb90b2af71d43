"""Token management: the connections of all apps, or of one, and what is done with several of them."""

import asyncio
from collections import Counter
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from evergrant import clock
from evergrant.broker.connections import deletion, listing
from evergrant.broker.connections.browsing import ConnectionState, Wanted
from evergrant.broker.connections.export import export_connections
from evergrant.broker.runtime.principal import Permission
from evergrant.errors import InvalidValue
from evergrant.web.console.app_head import app_head
from evergrant.web.console.connection_actions import link_page, refreshed
from evergrant.web.console.connection_list import MOST_LETTERS, read_list, wanted_in
from evergrant.web.console.desk import HEADERS, AppIdInPath, Desk, DeskDep
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.forms import Form, read_form

router = APIRouter(route_class=ConsoleRoute)

MOST_TICKED = 50
OUTCOMES = ("refreshed", "failed", "under_way", "revoked", "pending", "unsupported")
CSV_HEADERS = {"Content-Disposition": 'attachment; filename="connections.csv"', "Cache-Control": "no-store"}


@router.get("/console/{project}/connections")
async def show_all(desk: DeskDep, request: Request) -> Response:
    """Show connections of all apps."""
    desk.require(Permission.CONNECTIONS_READ)
    listed = await read_list(desk, request, wanted_in(request))
    return desk.page("connections.html", listed=listed, **done_in(request))


@router.get("/console/{project}/apps/{app_id}/connections")
async def show_of_app(desk: DeskDep, request: Request, app_id: AppIdInPath) -> Response:
    """Show the connections of one app."""
    desk.require(Permission.CONNECTIONS_READ)
    head = await app_head(desk, app_id)
    listed = await read_list(desk, request, wanted_in(request, app_id=app_id), head=head)
    return desk.page("app_connections.html", head=head, listed=listed, **done_in(request))


@router.post("/console/{project}/connections/selected")
async def do_with_selected(desk: DeskDep, request: Request) -> Response:
    """Refresh the connections whose boxes are ticked, or ask whether to revoke them; or what a row's menu says."""
    form = await read_form(request)
    do, _, one = form.text("do").partition(" ")
    if do == "link" and one:
        return await link_page(desk, one)
    desk.require(Permission.TOKENS_WRITE)
    if one:
        there = desk.path("connections", one)
        return desk.go(f"{there}/revoke" if do == "revoke" else _with(there, done=await refreshed(desk, one)))
    ids, back = _ticked(form), _back(desk, form)
    if not ids:
        return desk.go(_with(back, done="none"))
    if do == "refresh":
        outcomes = Counter(await asyncio.gather(*(refreshed(desk, one) for one in ids)))
        counts = {name: str(n) for name, n in outcomes.items()}
        return desk.go(_with(back, done="refreshed-some", **counts))
    only = await listing.load_connection(desk.broker, desk.principal, ids[0]) if len(ids) == 1 else None
    return desk.page("connections_revoke.html", ids=ids, back=back, only=only)


@router.post("/console/{project}/connections/revoke")
async def revoke_selected(desk: DeskDep, request: Request) -> Response:
    """Revoke and delete connections; that was asked before."""
    desk.require(Permission.TOKENS_WRITE)
    form = await read_form(request)
    outcomes = await deletion.delete_tokens(desk.broker, desk.principal, _ticked(form), now=clock.now())
    counts = {str(name.value): str(n) for name, n in Counter(outcomes.values()).items()}
    return desk.go(_with(_back(desk, form), done="revoked-some", **counts))


@router.post("/console/{project}/connections/export")
async def export(desk: DeskDep, request: Request) -> Response:
    """Give out what the filter finds, as a file."""
    desk.require(Permission.CONNECTIONS_READ)
    form = await read_form(request)
    state = form.text("state")
    wanted = Wanted(
        state=ConnectionState(state) if state in list(ConnectionState) else None,
        app_id=form.text("app")[:64],
        tenant_id=form.text("tenant")[:MOST_LETTERS],
        search=form.text("q")[:MOST_LETTERS],
        oldest_first=form.text("order") == "oldest",
    )
    if wanted.app_id:
        desk.principal.require_app(wanted.app_id)
    lines = export_connections(desk.broker, desk.principal, wanted)
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers={**HEADERS, **CSV_HEADERS})


def _ticked(form: Form) -> list[str]:
    """Return the ids of the boxes that are ticked.

    Raises:
        InvalidValue: these are too many for one request.
    """
    ids = list(dict.fromkeys(one[:32] for one in form.all("id")))
    if len(ids) > MOST_TICKED:
        raise InvalidValue.of(("id", f"tick at most {MOST_TICKED} connections"))
    return ids


def _back(desk: Desk, form: Form) -> str:
    """Return the list that a form came from; nothing outside this project is one."""
    back = form.text("back")
    home = desk.path()
    return back if back.startswith(f"{home}/") and "//" not in back and "\\" not in back else desk.path("connections")


def _with(address: str, **said: str) -> str:
    pairs = "&".join(f"{name}={value}" for name, value in said.items())
    return f"{address}{'&' if '?' in address else '?'}{pairs}"


def done_in(request: Request) -> dict[str, Any]:
    """Return what an action has come to, as its redirect tells the page."""

    def number(name: str) -> int:
        text = request.query_params.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0

    return {"done": request.query_params.get("done", ""), "counts": {name: number(name) for name in OUTCOMES}}
