"""Where browsers come back to that have signed in at a trusted issuer, to prove whose they are."""

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from evergrant import clock
from evergrant.broker.audit.record import Actor
from evergrant.broker.connect.browser_logins import find_login, finish_login
from evergrant.broker.connect.verification import PROVED, WRONG_USER
from evergrant.broker.projects.trusted_issuers import LOGIN_CALLBACK_PATH
from evergrant.logs import request_id
from evergrant.web.asked import address_of, note_actor
from evergrant.web.browser_cookie import browser_id
from evergrant.web.deps import BrokerDep, counting_failures, refuse_odd_text
from evergrant.web.looking_ahead import not_yet, only_looks_ahead
from evergrant.web.looks import look_of
from evergrant.web.templating import PAGE_HEADERS
from evergrant.web.visitor import note_visit, visitor_page

router = APIRouter(include_in_schema=False, dependencies=[Depends(refuse_odd_text)])


@router.get(LOGIN_CALLBACK_PATH)
async def come_back(request: Request, broker: BrokerDep) -> Response:
    """Take the issuer's answer, and let the browser go on to the page that it signed in for; or say why not."""
    if only_looks_ahead(request):
        return not_yet(PAGE_HEADERS)
    params, browser = dict(request.query_params), browser_id(request, broker)
    async with counting_failures(request):
        login = await find_login(broker, params.get("state", ""), browser=browser)
    # Not the user that the link is for: who this is remains to be seen.
    note_actor(request.scope, Actor("user", address_of(request.scope)), login.project_id)
    end = await finish_login(broker, login, params, browser=browser, now=clock.now())
    if end.outcome == PROVED:
        return RedirectResponse(end.then, 303, PAGE_HEADERS)
    note_visit(request, end.project, await look_of(broker, end.project.id))
    is_wrong = end.outcome == WRONG_USER
    return visitor_page(
        request,
        "login_failed.html",
        status=403 if is_wrong else 400,
        is_wrong_user=is_wrong,
        then=end.then,
        reference=request_id.get(),
    )
