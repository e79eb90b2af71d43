"""A new app: what has to be registered at the provider first, and what the provider gives for it."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import SecretStr

from evergrant import clock
from evergrant.app_types import AppType
from evergrant.broker.apps.apps import create_app, list_apps
from evergrant.broker.apps.callbacks import proposed_id, proposed_url
from evergrant.broker.apps.definition import AppDefinition
from evergrant.broker.apps.templates import definition_of
from evergrant.broker.apps.variables import declared_variables
from evergrant.broker.runtime.principal import Permission
from evergrant.catalog.loader import dcr_presets
from evergrant.catalog.template import Template
from evergrant.crypto.opaque import new_id
from evergrant.errors import AlreadyExists, InvalidRequest, InvalidValue, MalformedRequest, NotFound
from evergrant.pasted import trimmed
from evergrant.web.console.desk import Asked, Desk, DeskDep
from evergrant.web.console.kinds import KINDS, registration_of
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.forms import Form, read_form
from evergrant.web.logos import template_logo
from evergrant.web.tiles import tile_of

router = APIRouter(route_class=ConsoleRoute)

CUSTOM = {
    "custom": ("Custom OAuth app", AppType.OAUTH),
    "apikey": ("API key app", AppType.API_KEY),
    "client-credentials": ("Client credentials app", AppType.CLIENT_CREDENTIALS),
    "mcp": ("MCP server by URL", AppType.OAUTH),
}
"""What an app can be made of beside a template, its title and its type; no template has one of these ids."""
TEXTS = ("name", "id", "clientId", "authorizationUrl", "tokenUrl", "discoveryUrl", "scopeLines")
MOST_LETTERS, MOST_SECRET_LETTERS = 2_000, 20_000
SECRETS = ("clientSecret", "signingKey")
"""Fields that no page repeats."""
NAMES_IN_ERRORS = {"defaultScopes": "scopeLines", "useDcr": "clientId"}
"""Fields that an error calls by another name than the form."""

KindPath = Annotated[str, Path(max_length=64)]


@dataclass(frozen=True, slots=True)
class Draft:
    """A new app as its form has it."""

    proposal: str
    """What the callback address follows from; see `callbacks.proposed_id`."""
    values: Mapping[str, str]
    scopes: Sequence[str] = ()
    """Those of the template that are ticked."""
    wrong: Mapping[str, str] = field(default_factory=dict)
    problems: Collection[str] = ()
    focus: str = ""
    status: int = 200
    lost: Collection[str] = ()
    """Secrets that were typed, which the page does not repeat."""


@router.get("/console/{project}/apps/new/{kind}")
async def form_for_new_app(desk: DeskDep, kind: KindPath, name: Asked = "", preset: Asked = "") -> Response:
    """Show the form, with an id and a name that are free."""
    template = _template(desk, kind)
    known = dcr_presets().get(preset)
    values = dict.fromkeys(TEXTS, "")
    wanted_id, wanted_name = (template.id, template.name) if template else ("", name)
    if known is not None:
        wanted_id, wanted_name, values["discoveryUrl"] = known.id, known.name, known.discovery_url
    if wanted_name:
        apps = await list_apps(desk.broker, desk.project.id)
        values["name"] = _free(wanted_name, {app.name for app in apps}, " ")
        values["id"] = _free(wanted_id, {app.id for app in apps}, "-") if wanted_id else ""
    return _page(desk, kind, template, Draft(new_id(), values, template.default_scopes if template else ()))


@router.post("/console/{project}/apps/new/{kind}")
async def create(desk: DeskDep, kind: KindPath, request: Request) -> Response:
    """Create the app, and go on to its settings or to its test."""
    template = _template(desk, kind)
    form = await read_form(request)
    draft = _draft(form, template)
    secrets = {name: text for name in SECRETS if (text := trimmed(form.secret(name)))}
    try:
        _check_lengths(draft, secrets)
        wanted = _definition(kind, template, draft, {name: SecretStr(text) for name, text in secrets.items()})
        app = await create_app(
            desk.broker,
            desk.project.id,
            wanted,
            callback_id=proposed_id(desk.project.id, draft.proposal),
            now=clock.now(),
        )
    except (InvalidRequest, AlreadyExists) as error:
        return _page(desk, kind, template, _wrong(draft, error, lost=secrets.keys()))
    return desk.go(desk.path("apps", app.id, *[part for part in ("test", "credentials") if form.has(part)]))


def _template(desk: Desk, kind: str) -> Template | None:
    """Return the template that is meant; None for an app that is made of none. Checks who asks."""
    desk.require(Permission.APPS_WRITE)
    desk.principal.require_every_app()
    template = desk.broker.catalogue.get(kind)
    if template is None and kind not in CUSTOM:
        raise NotFound(f"There is no provider '{kind}' in the library.")
    return template


def _free(wanted: str, used: Collection[str], between: str) -> str:
    """Return `wanted`, or where that is used the same with the first number that makes it free."""
    names = (wanted, *(f"{wanted}{between}{number}" for number in range(2, len(used) + 3)))
    return next(name for name in names if name not in used)


def _draft(form: Form, template: Template | None) -> Draft:
    proposal = form.text("proposal")
    if not re.fullmatch(r"[A-Za-z0-9]{22}", proposal):
        raise MalformedRequest("The form came without its callback address. Open it again.")
    values = {name: form.text(name) for name in TEXTS}
    values |= {name: text.strip() for name, text in form.pairs if name.startswith("variables.")}
    known = set(_scopes(template))
    return Draft(proposal, values, [scope for scope in form.all("scope") if scope in known])


def _scopes(template: Template | None) -> dict[str, str]:
    """Return the scopes that a template knows, those of the default first, and their words."""
    if template is None:
        return {}
    return {scope: template.scopes.get(scope, "") for scope in (*template.default_scopes, *template.scopes)}


def _check_lengths(draft: Draft, secrets: Mapping[str, str]) -> None:
    limits = [(name, text, MOST_LETTERS) for name, text in draft.values.items()]
    limits += [(name, text, MOST_SECRET_LETTERS) for name, text in secrets.items()]
    if problems := [(name, f"use at most {most:,} characters") for name, text, most in limits if len(text) > most]:
        raise InvalidValue.of(*problems)


def _definition(kind: str, template: Template | None, draft: Draft, secrets: Mapping[str, SecretStr]) -> AppDefinition:
    """Return the app that the form describes.

    Raises:
        InvalidValue: it lacks what an app of this kind begins with.
    """
    values = draft.values
    client_id, discovery_url = values["clientId"], values["discoveryUrl"]
    app_id, name = values["id"], values["name"]
    if template is not None:
        given = {
            name.removeprefix("variables."): text for name, text in values.items() if "variables." in name and text
        }
        wanted = replace(definition_of(template), id=app_id, name=name, variables=given)
        if template.app_type == AppType.API_KEY:
            return wanted
        secret, key = secrets.get("clientSecret"), secrets.get("signingKey")
        asked_for = replace(wanted, client_id=client_id, client_secret=secret, signing_key=key)
        return replace(asked_for, default_scopes=draft.scopes)
    if kind == "apikey":
        return AppDefinition(id=app_id, name=name, app_type=AppType.API_KEY)
    if kind == "mcp" and not discovery_url:
        raise InvalidValue.of(("discoveryUrl", "enter the server's address"))
    return AppDefinition(
        id=app_id,
        name=name,
        app_type=CUSTOM[kind][1],
        client_id=client_id,
        client_secret=secrets.get("clientSecret"),
        discovery_url=discovery_url,
        authorization_url=values["authorizationUrl"],
        token_url=values["tokenUrl"],
        default_scopes=values["scopeLines"].split(),
        use_dcr=kind == "mcp" and not client_id,
    )


def _wrong(draft: Draft, error: InvalidRequest | AlreadyExists, *, lost: Collection[str]) -> Draft:
    """Put each problem at its field, and those that have none above the form."""
    wrong: dict[str, str] = {}
    for entry in error.details.get("fields", ()):
        wrong.setdefault(NAMES_IN_ERRORS.get(entry["field"], entry["field"]), entry["problem"])
    order = ["callbackUrl", "discoveryUrl", *TEXTS, *SECRETS, *draft.values]
    shown = [name for name in order if name in wrong]
    others = [f"{name}: {problem}" for name, problem in wrong.items() if name not in shown]
    return replace(
        draft,
        # The address that was shown cannot be this app's: the form goes on with another, and says so.
        proposal=new_id() if "callbackUrl" in wrong else draft.proposal,
        wrong=wrong,
        problems=others if wrong else [error.message],
        focus=next((name for name in shown if name != "callbackUrl"), ""),
        status=error.status,
        lost=lost,
    )


def _page(desk: Desk, kind: str, template: Template | None, draft: Draft) -> Response:
    title, app_type = (template.name, template.app_type) if template else CUSTOM[kind]
    spoken = KINDS[app_type]
    provider = template.name if template else "the provider"
    return desk.page(
        "app_new.html",
        status=draft.status,
        kind=kind,
        spoken=spoken,
        about=spoken.about.format(provider=provider),
        asks=registration_of(spoken, template),
        title=title,
        tile=tile_of(kind, title, template_logo(kind)),
        f=draft,
        entry=template,
        provider=provider,
        scopes=_scopes(template),
        variables=declared_variables(template, "app", "user"),
        callback=proposed_url(desk.broker, desk.project.id, draft.proposal),
        may_test=desk.may(Permission.CONNECT) and spoken.is_consented,
        may_add=desk.may(Permission.TOKENS_WRITE) and not spoken.is_consented,
    )
