"""Adding the credentials of a connection that nobody consents to: a key, several fields, a key file."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from fastapi import APIRouter, Request
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.apps.variables import template_of
from evergrant.broker.connections.credential_fields import fields_asked
from evergrant.broker.connections.credentials_upload import CredentialsUpload, upload_credentials
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.principal import Permission
from evergrant.catalog.field import CredentialField
from evergrant.catalog.variable import Variable
from evergrant.errors import InvalidRequest, UpstreamRejected, UpstreamUnavailable
from evergrant.web.console.app_head import AppHead, app_head
from evergrant.web.console.desk import AppIdInPath, Desk, DeskDep
from evergrant.web.console.kinds import variables_brought
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.forms import read_form

router = APIRouter(route_class=ConsoleRoute)

OWNER = ("user", "tenant", "external")
NAMES = {"userId": "user", "tenantId": "tenant", "externalIdentifier": "external"}
"""Fields of the form, by the names that errors give them."""
MOST_LETTERS = 255


@dataclass(frozen=True, slots=True)
class Asked:
    """What the form asks for, beside whose credentials these are."""

    fields: Mapping[str, CredentialField]
    variables: Mapping[str, Variable]
    can_verify: bool
    """Whether there is a way to try what is entered."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What the form holds; no secret is in it."""

    values: Mapping[str, str]
    verify: bool = True
    wrong: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    """What belongs to no field."""
    lost: Collection[str] = ()
    """Secrets that were typed, which the page does not repeat."""
    status: int = 200


@router.get("/console/{project}/apps/{app_id}/credentials")
async def ask(desk: DeskDep, request: Request, app_id: AppIdInPath) -> Response:
    """Ask whose credentials these are, and for them; the address may name the owner already."""
    desk.require(Permission.TOKENS_WRITE)
    head = await app_head(desk, app_id)
    given = request.query_params
    return _page(desk, head, Filled({name: given.get(name, "")[:MOST_LETTERS] for name in OWNER}))


@router.post("/console/{project}/apps/{app_id}/credentials")
async def add(desk: DeskDep, request: Request, app_id: AppIdInPath) -> Response:
    """Store credentials, tried first where the box is ticked."""
    desk.require(Permission.TOKENS_WRITE)
    head = await app_head(desk, app_id)
    form = await read_form(request)
    asked = _asked(desk, head)
    owner = {name: form.text(name) for name in OWNER}
    entered = {name: form.secret(f"fields.{name}").replace("\r\n", "\n") for name in asked.fields}
    details = {name: text for name in asked.variables if (text := form.text(f"details.{name}"))}
    shown = {f"fields.{name}": text for name, text in entered.items() if not asked.fields[name].secret}
    filled = Filled(
        {**owner, **shown, **{f"details.{name}": text for name, text in details.items()}},
        verify=form.has("verify"),
        lost=[f"fields.{name}" for name, text in entered.items() if text and asked.fields[name].secret],
    )
    if wrong := _wrong(owner):
        return _page(desk, head, replace(filled, wrong=wrong, status=400))
    upload = CredentialsUpload(
        app_id=app_id,
        owner=ResourceOwner(owner["user"], owner["tenant"]),
        fields=entered,
        details=details,
        external_identifier=owner["external"],
    )
    try:
        await upload_credentials(desk.broker, desk.principal, upload, verify=filled.verify, now=clock.now())
    except InvalidRequest as error:
        wrong = {NAMES.get(one["field"], one["field"]): one["problem"] for one in error.details.get("fields", ())}
        known = _known(asked)
        rest = [problem for name, problem in wrong.items() if name not in known]
        return _page(desk, head, replace(filled, wrong=wrong, problem=" ".join(rest), status=error.status))
    except (UpstreamRejected, UpstreamUnavailable) as error:
        return _page(desk, head, replace(filled, problem=error.message, status=error.status))
    return desk.go(desk.path("apps", app_id, "connections", done="added"))


def _asked(desk: Desk, head: AppHead) -> Asked:
    template = template_of(desk.broker, head.app)
    can_verify = head.kind.is_obtained or (template is not None and bool(template.api.check))
    return Asked(fields_asked(template, head.app), variables_brought(head.app, template), can_verify)


def _known(asked: Asked) -> set[str]:
    return {*OWNER, *(f"fields.{name}" for name in asked.fields), *(f"details.{name}" for name in asked.variables)}


def _wrong(owner: Mapping[str, str]) -> dict[str, str]:
    wrong = {name: f"use at most {MOST_LETTERS} characters" for name in OWNER if len(owner[name]) > MOST_LETTERS}
    if not owner["user"] and not owner["tenant"]:
        wrong["user"] = "say whose these are: a user, or a tenant for everyone in it"
    return wrong


def _page(desk: Desk, head: AppHead, filled: Filled) -> Response:
    template = template_of(desk.broker, head.app)
    return desk.page(
        "credentials.html",
        status=filled.status,
        head=head,
        entry=template,
        asked=_asked(desk, head),
        f=filled,
    )
