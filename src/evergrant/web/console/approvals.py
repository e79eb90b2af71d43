"""Requests of agents that want a yes: what waits, what was said, and a decision in the owner's place."""

import contextlib
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.calls.approval_decisions import (
    MAX_REASON,
    ApprovalFilter,
    decide_for_owner,
    list_approvals,
    load_approval,
)
from evergrant.broker.calls.approvals import APPROVED, EXPIRED, PENDING, REFUSED, USED, status_of
from evergrant.broker.runtime.list_places import Place
from evergrant.broker.runtime.principal import Permission
from evergrant.db import Approval
from evergrant.errors import ChangedMeanwhile, InvalidValue
from evergrant.web.console.desk import Desk, DeskDep
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.states import State
from evergrant.web.forms import read_form

router = APIRouter(route_class=ConsoleRoute)

ApprovalId = Annotated[str, Path(max_length=22, pattern=r"^[A-Za-z0-9]+$")]
PAGE = 50
STATES = {
    PENDING: State("warn", "clock", "Waiting"),
    APPROVED: State("good", "circle-check", "Approved"),
    REFUSED: State("bad", "circle-x", "Refused"),
    USED: State("good", "circle-check", "Approved and made"),
    EXPIRED: State("", "circle-minus", "Over"),
}


@router.get("/console/{project}/approvals")
async def show_approvals(
    desk: DeskDep,
    status: Annotated[str, Query(max_length=10, pattern="^(|pending|approved|refused|used|expired)$")] = "",
    user: Annotated[str, Query(max_length=255)] = "",
    at: Annotated[str, Query(max_length=60, pattern=r"^[A-Za-z0-9.]*$")] = "",
) -> Response:
    """List what waits, and then everything, newest first."""
    _require(desk)
    now, names = clock.now(), await _names(desk)
    which = ApprovalFilter(status=status, user_id=user)
    after = Place.parse(at, field="at")
    found, following = await list_approvals(desk.broker, desk.principal, which, after=after, limit=PAGE, now=now)
    waiting: Sequence[Approval] = ()
    if not (status or user or at):
        open_ones = ApprovalFilter(status=PENDING)
        waiting, _ = await list_approvals(desk.broker, desk.principal, open_ones, limit=PAGE, now=now)
    known = {one.id for one in waiting}
    rows = [
        (one, names.get(one.app_id, one.app_id), STATES[status_of(one, now=now)])
        for one in (*waiting, *(one for one in found if one.id not in known))
    ]
    return desk.page(
        "approvals.html", rows=rows, which=status, user=user, at=at, older=str(following or ""), named=_named
    )


@router.get("/console/{project}/approvals/{approval_id}")
async def show_approval(desk: DeskDep, approval_id: ApprovalId) -> Response:
    """Show one request, and ask what to say to it if nobody has yet."""
    return await _page(desk, approval_id)


@router.post("/console/{project}/approvals/{approval_id}")
async def decide_request(desk: DeskDep, approval_id: ApprovalId) -> Response:
    """Approve or refuse a request in the owner's place."""
    _require(desk)
    form = await read_form(desk.request)
    decision, reason = form.text("decision"), form.text("reason")
    if decision not in ("approve", "refuse"):
        raise InvalidValue("Open this form again: it was not sent whole.")
    if len(reason) > MAX_REASON:
        return await _page(desk, approval_id, wrong=f"use at most {MAX_REASON} characters")
    with contextlib.suppress(ChangedMeanwhile):  # its page tells what became of it
        await decide_for_owner(
            desk.broker, desk.principal, approval_id, approve=decision == "approve", reason=reason, now=clock.now()
        )
    return desk.go(desk.path("approvals", approval_id))


async def _page(desk: Desk, approval_id: str, *, wrong: str = "") -> Response:
    _require(desk)
    found = await load_approval(desk.broker, desk.principal, approval_id, now=clock.now())
    names = await _names(desk)
    return desk.page(
        "approval.html",
        status=400 if wrong else 200,
        found=found,
        row=found.row,
        app_name=names.get(found.row.app_id, found.row.app_id),
        state=STATES[found.status],
        is_open=found.status == PENDING,
        most=MAX_REASON,
        named=_named,
        wrong=wrong,
    )


async def _names(desk: Desk) -> dict[str, str]:
    apps = await list_apps(desk.broker, desk.project.id, only=sorted(desk.principal.app_ids))
    return {app.id: app.name for app in apps}


def _named(actor: str) -> str:
    """Return who that is, as the audit log writes it, without saying of what kind."""
    return actor.partition(":")[2] or actor


def _require(desk: Desk) -> None:
    desk.require(Permission.SESSIONS)
