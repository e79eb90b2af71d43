"""The page on which somebody approves or refuses one request that an agent wants to make in their name."""

import contextlib
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import RedirectResponse, Response

from evergrant import clock
from evergrant.broker.apps.apps import load_app
from evergrant.broker.audit.record import Actor
from evergrant.broker.calls.approval_decisions import (
    MAX_REASON,
    decide,
    find_approval,
    open_approval,
    proof_of_approval,
)
from evergrant.broker.calls.approvals import APPROVAL_PATH, PENDING, status_of
from evergrant.broker.connect.verification import has_proved
from evergrant.broker.projects.projects import load_project
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.opaque import digest
from evergrant.db import Approval, OutboundApp, Project
from evergrant.errors import ChangedMeanwhile, ConnectFailed, NotFound
from evergrant.web.asked import address_of, note_actor, note_left
from evergrant.web.browser_cookie import browser_id, with_cookie
from evergrant.web.consent import tile_for
from evergrant.web.deps import BrokerDep, counting_failures, refuse_odd_text
from evergrant.web.forms import read_form
from evergrant.web.locale import LANGUAGES
from evergrant.web.looks import look_of
from evergrant.web.same_origin import is_from_us
from evergrant.web.sign_in_first import leave_to_sign_in, page_again, sign_in_first
from evergrant.web.templating import PAGE_HEADERS
from evergrant.web.visitor import note_visit, visitor_page

router = APIRouter(include_in_schema=False, dependencies=[Depends(refuse_odd_text)])

Ticket = Annotated[str, Path(max_length=100, pattern=r"^[!-~]+$")]


@router.get(APPROVAL_PATH + "/{ticket}")
async def show(ticket: Ticket, request: Request, broker: BrokerDep) -> Response:
    """Show what is asked for, to the owner's browser; any other is told who asks, and to sign in."""
    row, project, app = await _find(broker, ticket, request)
    wanted = proof_of_approval(broker, row)
    if wanted is None:
        return await _page(request, row, project, app, "approval_elsewhere.html")
    browser = browser_id(request, broker) or secrets.token_urlsafe(32)
    if not await has_proved(broker, wanted, browser=digest(browser)):
        agent = row.agent_name or row.agent_id
        page = await sign_in_first(request, wanted, project=project, app=app, agent=agent)
        return with_cookie(page, broker, browser)
    opened = await open_approval(broker, row, now=clock.now())
    return await _page(request, row, project, app, "approval.html", opened=opened, most=MAX_REASON)


@router.post(APPROVAL_PATH + "/{ticket}")
async def decide_here(ticket: Ticket, request: Request, broker: BrokerDep) -> Response:
    """Approve or refuse, as the owner that this browser has proved to be; or let it sign in."""
    row, project, app = await _find(broker, ticket, request)
    if not is_from_us(request, broker):
        raise ConnectFailed("cross_site", "This form can only be sent from evergrant's own page.")
    browser, wanted = browser_id(request, broker), proof_of_approval(broker, row)
    if wanted is None:
        return await _page(request, row, project, app, "approval_elsewhere.html", status=403)
    if not browser:
        raise ConnectFailed("no_cookie", "Your browser did not send evergrant's cookie. Allow cookies and start again.")
    if not await has_proved(broker, wanted, browser=digest(browser)):
        return await leave_to_sign_in(request, wanted, browser=browser)
    form = await read_form(request)
    if (decision := form.text("decision")) in ("approve", "refuse"):
        who = f"user:{row.user_id}"
        note_actor(request.scope, Actor(who, address_of(request.scope)), row.project_id)
        with contextlib.suppress(ChangedMeanwhile):  # the page tells what became of it
            await decide(
                broker, row, approve=decision == "approve", reason=form.text("reason"), by=who, now=clock.now()
            )
    return RedirectResponse(page_again(request), 303, PAGE_HEADERS)


async def _find(broker: Broker, ticket: str, request: Request) -> tuple[Approval, Project, OutboundApp]:
    async with counting_failures(request):
        try:
            row = await find_approval(broker, ticket)
            app = await load_app(broker, row.project_id, row.app_id)
        except NotFound:
            raise ConnectFailed("invalid_ticket", "This link is not valid. Ask the agent for another.") from None
    async with broker.database.read() as session:
        project = await load_project(session, row.project_id)
    asked = request.query_params.get("lang", "")
    look = await look_of(broker, row.project_id)
    note_visit(request, project, look, locale=asked if asked in LANGUAGES else "")
    # Not the user that it is for: who this is remains to be seen.
    note_actor(request.scope, Actor("user", address_of(request.scope)), row.project_id)
    page, limit = (row.project_id, row.id), broker.limits.trips
    limit.take(page)
    note_left(request.scope, limit, page)
    return row, project, app


async def _page(
    request: Request,
    row: Approval,
    project: Project,
    app: OutboundApp,
    name: str,
    *,
    status: int = 200,
    **values: Any,
) -> Response:
    now = clock.now()
    return visitor_page(
        request,
        name,
        status=status,
        row=row,
        state=status_of(row, now=now),
        is_open=status_of(row, now=now) == PENDING,
        agent=row.agent_name or row.agent_id,
        project=project,
        app=app,
        tile=await tile_for(request.app.state.broker, app),
        languages=LANGUAGES,
        **values,
    )
