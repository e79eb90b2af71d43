"""Signing in: by a one-time link or a management key; and signing out. `oidc` is the third way."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.audit.record import Actor
from evergrant.broker.operators.one_time_links import ENTER_PATH, look_at_link, use_link
from evergrant.broker.operators.sessions import end_session, sign_in_with_key
from evergrant.broker.projects.projects import list_projects
from evergrant.errors import AuthenticationFailed, NotFound
from evergrant.web.asked import address_of, note_actor
from evergrant.web.console.desk import SIGN_IN_PATH, WhoDep, cookie_name, who_is_asking
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.ways_in import go_to, inside, outside, sign_in_page, with_session
from evergrant.web.deps import BrokerDep, counting_failures
from evergrant.web.forms import read_form

router = APIRouter(route_class=ConsoleRoute)

Code = Annotated[str, Path(max_length=100, pattern=r"^[!-~]+$")]
Then = Annotated[str, Query(max_length=2048)]


@router.get("/console")
async def console(request: Request, broker: BrokerDep) -> Response:
    """Go to the only project, or choose one."""
    who = await who_is_asking(request)
    projects = [project for project in await list_projects(broker) if who.project_id in (None, project.id)]
    if len(projects) == 1:
        return go_to(f"/console/{projects[0].id}")
    return outside("projects.html", projects=projects, who=who)


@router.get(SIGN_IN_PATH)
async def show_sign_in(broker: BrokerDep, then: Then = "") -> Response:
    """Show the ways in."""
    return sign_in_page(broker, then)


@router.post(SIGN_IN_PATH)
async def sign_in(request: Request, broker: BrokerDep) -> Response:
    """Sign in with a management key."""
    form = await read_form(request)
    then = form.text("then")
    if not broker.settings.console_key_sign_in:
        raise NotFound
    address = address_of(request.scope)
    note_actor(request.scope, Actor("operator", address), "")
    try:
        cookie, project_id = await sign_in_with_key(
            broker, form.text("project"), form.text("key"), client_address=address, now=clock.now()
        )
    except AuthenticationFailed:
        wrong = "No project of this installation has such a key, or it is disabled, has expired or may not come here."
        return sign_in_page(broker, then, status=400, project=form.text("project"), wrong=wrong)
    return with_session(go_to(inside(then) or f"/console/{project_id}"), broker, cookie)


@router.get(ENTER_PATH + "/{code}")
async def show_enter(code: Code, request: Request, broker: BrokerDep) -> Response:
    """Show what a one-time link is for. Looking uses nothing up, so a link preview cannot spoil the link."""
    async with counting_failures(request):
        invitation = await look_at_link(broker, code, now=clock.now())
    return outside("enter.html", invitation=invitation)


@router.post(ENTER_PATH + "/{code}")
async def enter(code: Code, request: Request, broker: BrokerDep) -> Response:
    """Use a one-time link up, and sign this browser in."""
    note_actor(request.scope, Actor("operator:one-time link", address_of(request.scope)), "")
    async with counting_failures(request):
        cookie = await use_link(broker, code, now=clock.now())
    return with_session(go_to("/console"), broker, cookie)


@router.post("/console/sign-out")
async def sign_out(who: WhoDep, broker: BrokerDep) -> Response:
    """End this browser's session."""
    await end_session(broker, who, who.session_id)
    response = go_to(SIGN_IN_PATH)
    response.delete_cookie(cookie_name(broker), path="/", secure=not broker.settings.is_loopback_trial, httponly=True)
    return response
