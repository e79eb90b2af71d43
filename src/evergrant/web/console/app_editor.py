"""The Settings tab of an app: everything about it in one form with one Save."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import SecretStr

from evergrant import clock
from evergrant.broker.apps.apps import update_app
from evergrant.broker.apps.definition import ACCESS_TYPES, AUTH_METHODS, PROMPTS
from evergrant.broker.apps.provider_client import callback_url, own_callback_path, public_origin
from evergrant.broker.apps.templates import definition_of
from evergrant.broker.apps.variables import declared_variables, template_of
from evergrant.broker.apps.warnings import warnings_about
from evergrant.broker.grants.schedule import POLICIES
from evergrant.broker.projects.redirects import origin_of
from evergrant.broker.runtime.principal import Permission
from evergrant.broker.trials.trial import read_trial
from evergrant.errors import AlreadyExists, ChangedMeanwhile, InvalidRequest, InvalidValue, PermissionDenied
from evergrant.pasted import trimmed
from evergrant.web.console.app_form import (
    LABELS,
    NAMES_IN_ERRORS,
    Values,
    changed,
    check,
    definition_of_form,
    in_words,
    marks_of,
    read,
    standard_of,
    touched,
    values_of,
    without_empty_rows,
)
from evergrant.web.console.app_head import AppHead, app_head
from evergrant.web.console.calls import LANGUAGES, fetching
from evergrant.web.console.desk import Asked, Desk, DeskDep
from evergrant.web.console.kinds import kind_of, registration_of
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.rows import after
from evergrant.web.forms import Form, read_form

router = APIRouter(route_class=ConsoleRoute)

AppIdPath = Annotated[str, Path(max_length=64)]
SECRET, SIGNING_KEY = "clientSecret", "signingKey"
SECRETS = (SECRET, SIGNING_KEY)
MOST_SECRET_LETTERS = 20_000


@dataclass(frozen=True, slots=True)
class Editing:
    """What the form shows, and why it is shown."""

    values: Values
    status: int = 200
    wrong: Mapping[str, str] = field(default_factory=dict)
    """The problem with each field that is wrong."""
    problems: Sequence[str] = ()
    """Problems that belong to no field."""
    focus: str = ""
    theirs: Sequence[tuple[str, str, str]] = ()
    """What somebody else saved meanwhile: the field, what it has now, and what this form has."""
    is_conflict: bool = False
    lost: Collection[str] = ()
    """Secrets that somebody typed, which the page does not repeat."""


@router.get("/console/{project}/apps/{app_id}")
async def settings(desk: DeskDep, app_id: AppIdPath, saved: Asked = "") -> Response:
    """Show an app's settings."""
    desk.require(Permission.APPS_READ)
    head = await app_head(desk, app_id)
    return await _page(desk, head, Editing(values_of(head.app)), is_saved=saved == "now")


@router.post("/console/{project}/apps/{app_id}")
async def save(desk: DeskDep, app_id: AppIdPath, request: Request) -> Response:
    """Save an app's settings, unless another of the form's buttons was pressed, which only changes the form."""
    desk.require(Permission.APPS_WRITE)
    head = await app_head(desk, app_id)
    form = await read_form(request)
    stored = values_of(head.app)
    values = read(form, stored, head.app.app_type)
    lost = [name for name in SECRETS if _typed(form, name)]
    if (pressed := form.text("do")) not in ("", "save"):
        values, focus = after(values, pressed, _standard(desk, head))
        return await _page(desk, head, Editing(values, focus=focus, lost=lost), form=form)
    values = without_empty_rows(values)
    as_of = _moment(form.text("updatedAt"))
    if head.app.updated_at != as_of:
        return await _page(desk, head, _conflict(values, stored, form, lost=lost))
    try:
        check(values)
        new = definition_of_form(values, head.app)
        new = replace(new, client_secret=_secret(form, SECRET), signing_key=_secret(form, SIGNING_KEY))
        await update_app(desk.broker, desk.project.id, new, by=desk.principal_for_now, as_of=as_of, now=clock.now())
    except ChangedMeanwhile:
        head = await app_head(desk, app_id)
        return await _page(desk, head, _conflict(values, values_of(head.app), form, lost=lost))
    except InvalidRequest as error:
        editing = _wrong(values, error.details.get("fields", ()), error.message, lost=lost)
    except AlreadyExists as error:
        editing = Editing(values, 409, {"name": error.message}, focus="name", lost=lost)
    except PermissionDenied as error:
        problems = [error.message]
        if desk.principal_for_now != desk.principal:
            problems = ["You signed in more than 15 minutes ago. Sign in again, in another tab, and save then."]
        editing = Editing(values, 403, problems=problems, lost=lost)
    else:
        return desk.go(desk.path("apps", app_id, saved="now"))
    return await _page(desk, head, editing, form=form)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None  # differs from every moment, so that nothing is overwritten


def _typed(form: Form, name: str) -> str:
    return trimmed(form.secret(name)) or (trimmed(form.secret("clientKey")) if name == SECRET else "")


def _secret(form: Form, name: str) -> SecretStr | None:
    """Return the secret that was typed, an empty one where the app's shall go, or None where it stays."""
    typed = _typed(form, name)
    if len(typed) > MOST_SECRET_LETTERS:
        raise InvalidValue.of((name, f"use at most {MOST_SECRET_LETTERS:,} characters"))
    return SecretStr(typed) if typed or (name == SECRET and form.has("noSecret")) else None


def _wrong(values: Values, entries: Sequence[Mapping[str, str]], message: str, *, lost: Collection[str]) -> Editing:
    """Put each problem at its field, and those that have none above the form."""
    wrong: dict[str, str] = {}
    for entry in entries:
        name = NAMES_IN_ERRORS.get(entry["field"], entry["field"])
        wrong.setdefault(name, entry["problem"])
    if "defaultRedirectUrl" in wrong and (origin := _origin(values["defaultRedirectUrl"])):
        wrong["defaultRedirectUrl"] = f"the origin {origin} is not one of this project's redirect origins"
    order = [*LABELS]
    place = order.index("clientId") + 1
    order[place:place] = SECRETS
    shown = [name for name in wrong if name in order or name.startswith("variables.")]
    others = [f"{name}: {problem}" for name, problem in wrong.items() if name not in shown]
    first = min(shown, key=lambda name: order.index(name.partition(".")[0]), default="")
    return Editing(values, 400, wrong, others if entries else [message], focus=first, lost=lost)


def _origin(url: str) -> str:
    try:
        return origin_of(url, field="defaultRedirectUrl")
    except InvalidValue:
        return ""


def _conflict(mine: Values, now: Values, form: Form, *, lost: Collection[str]) -> Editing:
    """Put together what this form changed and what somebody else has saved meanwhile; nothing is overwritten yet."""
    marks = form.text("marks")
    my, their = touched(mine, marks), touched(now, marks)
    both = [
        (LABELS[name], in_words(now[name]), in_words(mine[name]) if name in my else "")
        for name in LABELS
        if name in their and now[name] != mine[name]
    ]
    merged = {name: mine[name] if name in my else now[name] for name in LABELS}
    return Editing(merged, 409, theirs=both, is_conflict=True, lost=lost)


def _standard(desk: Desk, head: AppHead) -> Values:
    template = template_of(desk.broker, head.app)
    return standard_of(template, definition_of(template) if template else None)


async def _page(
    desk: Desk, head: AppHead, editing: Editing, *, form: Form | None = None, is_saved: bool = False
) -> Response:
    """Answer with the form. One that comes back keeps the moment and the marks that it was opened with."""
    app, broker = head.app, desk.broker
    template = template_of(broker, app)
    spoken = kind_of(app)
    may_write = desk.may(Permission.APPS_WRITE)
    public_url = broker.settings.public_url
    stored = values_of(app)
    opened = changed(editing.values, stored)
    values: dict[str, Any] = {
        "head": head,
        "app": app,
        "f": editing,
        "spoken": spoken,
        "asks": registration_of(spoken, template),
        "labels": LABELS,
        "standard": _standard(desk, head),
        "may_write": may_write,
        "is_saved": is_saved,
        "updated_at": form.text("updatedAt") if form else app.updated_at.isoformat(),
        "marks": form.text("marks") if form else marks_of(stored),
        "opened": opened,
        "changes": [LABELS[name] for name in opened],
        "entry": template,
        "variables": declared_variables(template, "app", "user"),
        "callback": callback_url(broker, app),
        "own_callback": public_origin(public_url, app) + own_callback_path(app),
        "advice": warnings_about(app, template, public_url=public_url, today=clock.now().date()),
        "choices": {"auth": AUTH_METHODS, "access": ACCESS_TYPES, "prompt": PROMPTS, "refresh": POLICIES},
        "calls": {LANGUAGES[one]: fetching(public_url, app).text(one) for one in LANGUAGES},
        "last_test": await read_trial(broker, desk.principal, app.id, now=clock.now()),
    }
    return desk.page("app_settings.html", status=editing.status, **values)
