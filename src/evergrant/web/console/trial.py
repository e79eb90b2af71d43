"""Test connection: an app tried with the operator's own account, step by step, with a remedy for what fails."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse, Response

from evergrant import clock
from evergrant.broker.apps.check import check_app
from evergrant.broker.apps.check_result import CheckResult
from evergrant.broker.apps.provider_client import callback_url, public_origin
from evergrant.broker.apps.variables import template_of
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.principal import Permission
from evergrant.broker.trials.api import check_api
from evergrant.broker.trials.trial import begin_trial, read_trial
from evergrant.web.console.app_head import AppHead, app_head
from evergrant.web.console.desk import HEADERS, Desk, DeskDep
from evergrant.web.console.fields import new_once
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.forms import read_form
from evergrant.web.templating import render

router = APIRouter(route_class=ConsoleRoute)

AppPath = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
TrialPath = Annotated[str, Path(max_length=22, pattern=r"^[A-Za-z0-9]+$")]
POLICY = "Content-Security-Policy"


@router.get("/console/{project}/apps/{app_id}/test")
async def show(desk: DeskDep, app_id: AppPath) -> Response:
    """Show the last test of an app, and the button for another."""
    return await _page(desk, app_id, "")


@router.get("/console/{project}/apps/{app_id}/test/{trial_id}")
async def show_one(desk: DeskDep, app_id: AppPath, trial_id: TrialPath) -> Response:
    """Show one test, while it is the last; here its trip ends."""
    return await _page(desk, app_id, trial_id)


@router.get("/console/{project}/apps/{app_id}/test/{trial_id}/steps")
async def show_steps(desk: DeskDep, app_id: AppPath, trial_id: TrialPath) -> Response:
    """Return the steps alone, for the page that shows them as they come."""
    _require(desk)
    trial = await read_trial(desk.broker, desk.principal, app_id, trial_id, now=clock.now())
    text = render("console/parts/test_steps.html", desk=desk, path=desk.path, trial=trial, is_fragment=True)
    return HTMLResponse(text, headers={**HEADERS, **({"X-Live": "over"} if trial is None or trial.is_over else {})})


@router.post("/console/{project}/apps/{app_id}/test")
async def begin(desk: DeskDep, app_id: AppPath, request: Request) -> Response:
    """Check the app, and send the browser on its trip; where something is in the way, say what.

    An app at which nobody consents is checked and that is all, so that the answer is the page.
    """
    head = await app_head(desk, app_id)
    if not head.kind.is_consented:
        desk.require(Permission.APPS_WRITE)
        checks = await check_app(desk.broker, desk.project.id, app_id)
        asked = await check_api(desk.broker, desk.project.id, app_id, owner=ResourceOwner("", ""), now=clock.now())
        return _checked(desk, head, [*checks, asked] if asked is not None else checks)
    _require(desk)
    form = await read_form(request)
    origin = desk.broker.settings.public_url
    begun = await begin_trial(
        desk.broker,
        desk.principal,
        app_id,
        page_of=lambda trial_id: origin + desk.path("apps", app_id, "test", trial_id),
        keep=bool(form.text("keep")),
        anyway=bool(form.text("anyway")),
        now=clock.now(),
    )
    return desk.go(begun.url or desk.path("apps", app_id, "test", begun.trial_id))


def _require(desk: Desk) -> None:
    desk.require(Permission.APPS_WRITE)
    desk.require(Permission.CONNECT)


def _checked(desk: Desk, head: AppHead, checks: Sequence[CheckResult] | None) -> Response:
    template = template_of(desk.broker, head.app)
    return desk.page("test_check.html", head=head, checks=checks, hint=template.setup_hint if template else "")


async def _page(desk: Desk, app_id: str, trial_id: str) -> Response:
    desk.require(Permission.APPS_WRITE)
    head = await app_head(desk, app_id)
    if not head.kind.is_consented:
        return _checked(desk, head, None)
    _require(desk)
    trial = await read_trial(desk.broker, desk.principal, app_id, trial_id, now=clock.now())
    # The button leads to where users of this app connect, which may be a domain of its own.
    origin = public_origin(desk.broker.settings.public_url, head.app)
    headers = {POLICY: HEADERS[POLICY].replace("form-action 'self'", f"form-action 'self' {origin}")}
    template = template_of(desk.broker, head.app)
    return desk.page(
        "test.html",
        headers=headers,
        head=head,
        trial=trial,
        callback=callback_url(desk.broker, head.app),
        hint=template.setup_hint if template is not None else "",
        once=new_once(),
        is_fragment=False,
    )
