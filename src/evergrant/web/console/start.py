"""Start: the first steps of a project, from an app to a token that an agent has fetched."""

import json
import shlex
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from evergrant import clock
from evergrant.broker.access.management_keys import create_key
from evergrant.broker.apps.provider_client import callback_url
from evergrant.broker.runtime.principal import Permission
from evergrant.broker.trials.first_steps import (
    FirstStep,
    FirstSteps,
    dismiss_first_steps,
    first_steps,
)
from evergrant.broker.trials.practice import PracticeClient, add_practice_app
from evergrant.crypto.opaque import id_for
from evergrant.errors import AlreadyExists, NotFound
from evergrant.web.console.desk import HEADERS, Desk, DeskDep
from evergrant.web.console.fields import checked_once, new_once
from evergrant.web.console.key_words import AGENT
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.forms import read_form
from evergrant.web.templating import render

router = APIRouter(route_class=ConsoleRoute)

FETCH = "/v1/mgmt/outbound/app/user/token/latest"


@router.get("/console/{project}/start")
async def show(desk: DeskDep, request: Request) -> Response:
    """Show how far the project is, and what comes next."""
    return await _page(desk, request)


@router.get("/console/{project}/start/steps")
async def show_list(desk: DeskDep, request: Request) -> Response:
    """Return the list alone, for the page that waits for the first fetch."""
    found = await first_steps(desk.broker, desk.principal)
    values = {"desk": desk, "path": desk.path, **_values(desk, request, found)}
    text = render("console/parts/first_steps.html", **values, is_waiting=True, is_fragment=True)
    is_over = FirstStep.FETCHED in found.done
    return HTMLResponse(text, headers={**HEADERS, **({"X-Live": "over"} if is_over else {})})


@router.post("/console/{project}/start/practice")
async def add_practice(desk: DeskDep, request: Request) -> Response:
    """Make an app for the practice provider that runs beside evergrant."""
    practice = _practice(request)
    if practice is None:
        raise NotFound("There is no practice provider beside this evergrant.")
    await add_practice_app(desk.broker, desk.principal, practice, now=clock.now())
    return desk.go(desk.path("start"))


@router.post("/console/{project}/start/key")
async def make_key(desk: DeskDep, request: Request) -> Response:
    """Make a key for an agent, and show the call that fetches the first token with it."""
    desk.require(Permission.KEYS)
    desk.require_recent()
    found = await first_steps(desk.broker, desk.principal)
    key_id = id_for(checked_once((await read_form(request)).text("once")))
    try:
        async with desk.broker.database.write() as session:
            key = await create_key(
                session,
                desk.project.id,
                name="First agent",
                key_id=key_id,
                permissions=AGENT,
                maker=desk.principal,
                now=clock.now(),
            )
    except AlreadyExists:  # the page was loaded again: the key is shown once
        return desk.go(desk.path("keys", key_id))
    app_id = found.app.id if found.app is not None else "APP_ID"
    body = {"appId": app_id, "userId": found.user_id or "USER_ID"}
    if found.tenant_id:
        body["tenantId"] = found.tenant_id
    call = " \\\n  ".join(
        (
            f"curl {desk.broker.settings.public_url}{FETCH}",
            f"-H 'Authorization: Bearer {desk.project.id}:{key.text}'",
            "-H 'Content-Type: application/json'",
            f"-d {shlex.quote(json.dumps(body))}",
        )
    )
    return await _page(desk, request, call=call)


@router.post("/console/{project}/start/dismiss")
async def dismiss(desk: DeskDep) -> Response:
    """Put the list away."""
    await dismiss_first_steps(desk.broker, desk.principal, now=clock.now())
    return desk.go(desk.path())


def _practice(request: Request) -> PracticeClient | None:
    practice: PracticeClient | None = request.app.state.practice
    return practice


async def _page(desk: Desk, request: Request, *, call: str = "") -> Response:
    found = await first_steps(desk.broker, desk.principal)
    values = _values(desk, request, found)
    return desk.page("start.html", **values, call=call, is_waiting=bool(call), is_fragment=False)


def _values(desk: Desk, request: Request, found: FirstSteps) -> dict[str, Any]:
    callback = callback_url(desk.broker, found.app) if found.app is not None else ""
    has_oidc = bool(desk.broker.settings.console_oidc_issuer)
    return {
        "steps": found,
        "practice": _practice(request),
        "callback": callback,
        "once": new_once(),
        "has_oidc": has_oidc,
    }
