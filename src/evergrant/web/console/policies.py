"""Access policies, each as a sentence: who may fetch, connect or call which app."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response
from markupsafe import Markup

from evergrant import clock
from evergrant.broker.access import policies
from evergrant.broker.access.management_keys import list_keys
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.runtime.admission import CONNECT, VIAS
from evergrant.broker.runtime.path_globs import METHODS
from evergrant.broker.runtime.principal import Permission
from evergrant.db import AccessPolicy, ManagementKey, OutboundApp
from evergrant.errors import InvalidRequest, InvalidValue, NotFound
from evergrant.web.console.desk import Desk, DeskDep
from evergrant.web.console.fields import problems_of
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.forms import Form, read_form

router = APIRouter(route_class=ConsoleRoute)

PolicyId = Annotated[str, Path(max_length=22, pattern=r"^[A-Za-z0-9]+$")]
CLAIM_ROWS = 3
"""How many claims the form has room for."""
MOST_KEYS = 500
_MAY = {"allow": "may", "deny": "may never", "approve": "may"}
_VIAS = {"proxy": "the proxy", "mcp": "MCP"}


@router.get("/console/{project}/policies")
async def show_policies(desk: DeskDep) -> Response:
    """List the policies."""
    _require(desk)
    apps, keys = await _apps(desk), await _keys(desk)
    known, names = {app.id: app for app in apps}, {key.id: key.name for key in keys}
    found = [one for one in await policies.list_policies(desk.broker, desk.project.id) if _concerns(desk, one)]
    rows = [(one, known.get(one.app_id), sentence_of_policy(one, _name_in(known, one), names)) for one in found]
    rows.sort(key=lambda row: (row[1].name if row[1] else row[0].app_id, row[0].action))
    return desk.page("policies.html", rows=rows, has_apps=bool(apps))


@router.get("/console/{project}/policies/new")
async def show_new_policy(desk: DeskDep) -> Response:
    """Show the form for a new policy."""
    _require(desk)
    return await _form_page(desk, Form([("app", desk.request.query_params.get("app", "")), ("action", "fetch")]))


@router.post("/console/{project}/policies/new")
async def make_policy(desk: DeskDep) -> Response:
    """Make a policy."""
    _require(desk)
    form = await read_form(desk.request)
    try:
        claims = _claims(form)
        await policies.create_policy(
            desk.broker,
            desk.project.id,
            app_id=form.text("app"),
            action=form.text("action"),
            claims=claims,
            key_ids=form.all("keys"),
            scopes=form.text("scopes").split(),
            levels=form.all("levels"),
            agents=_lines(form, "agents"),
            methods=form.all("methods"),
            paths=_lines(form, "paths"),
            via=form.all("via"),
            effect=form.text("effect") or "allow",
            maker=desk.principal,
            now=clock.now(),
        )
    except InvalidRequest as error:
        return await _form_page(desk, form, problems=problems_of(error))
    return desk.go(desk.path("policies"))


def _lines(form: Form, field: str) -> list[str]:
    return [line.strip() for line in form.text(field).splitlines() if line.strip()]


def _claims(form: Form) -> dict[str, list[str]]:
    """Return what users' claims must be. A row that is filled in by half is no row less: that would let more in."""
    claims: dict[str, list[str]] = {}
    for name, values in zip_longest(form.every("claim"), form.every("values"), fillvalue=""):
        if values and not name:
            raise InvalidValue.of(("claims", "name the claim that has these values"))
        if name in claims:
            raise InvalidValue.of(("claims", f"name '{name[:100]}' once, with all its values"))
        if name:
            claims[name] = [value.strip() for value in values.split(",") if value.strip()]
    return claims


@router.get("/console/{project}/policies/{policy_id}/remove")
async def ask_remove(desk: DeskDep, policy_id: PolicyId) -> Response:
    """Ask before a policy is removed, and say what is open then."""
    _require(desk)
    found = await policies.list_policies(desk.broker, desk.project.id)
    policy = next((one for one in found if one.id == policy_id), None)
    if policy is None:
        raise NotFound("There is no such policy, or not any more.")
    desk.principal.require_app(policy.app_id)
    others = [one for one in found if (one.app_id, one.action) == (policy.app_id, policy.action)]
    known = {app.id: app for app in await _apps(desk)}
    name, names = _name_in(known, policy), {key.id: key.name for key in await _keys(desk)}
    said = sentence_of_policy(policy, name, names)
    return desk.page("policy_ask.html", policy=policy, said=said, app_name=name, others=len(others) - 1)


@router.post("/console/{project}/policies/{policy_id}/remove")
async def remove_policy(desk: DeskDep, policy_id: PolicyId) -> Response:
    """Remove a policy, within 5 seconds everywhere."""
    _require(desk)
    desk.require_recent()
    await policies.delete_policy(desk.broker, desk.project.id, policy_id, principal=desk.principal)
    return desk.go(desk.path("policies"))


def sentence_of_policy(policy: AccessPolicy, app_name: str, key_names: Mapping[str, str]) -> Markup:
    """Return a policy as a sentence: "Users with roles = sales or support may fetch Contacts, at most contacts"."""
    who = [
        Markup("users with {}").format(
            Markup(" and ").join(
                Markup("<code>{}</code> = {}").format(name, _either(values)) for name, values in policy.claims.items()
            )
        )
        if policy.claims
        else Markup(""),
        Markup("{} {}").format(
            "the key" if len(policy.key_ids) == 1 else "the keys",
            _either([key_names.get(key_id, key_id) for key_id in policy.key_ids]),
        )
        if policy.key_ids
        else Markup(""),
    ]
    whom = Markup(", and ").join(part for part in who if part) or Markup("everybody")
    if policy.agents:
        agents = Markup(" or ").join(Markup("<code>{}</code>").format(agent) for agent in policy.agents)
        whom += Markup(", by the {} {}").format("agent" if len(policy.agents) == 1 else "agents", agents)
    may = _MAY[policy.effect]
    said = Markup("{}{} {} {} <strong>{}</strong>").format(whom[:1].upper(), whom[1:], may, policy.action, app_name)
    if policy.scopes:
        said += Markup(", at most {}").format(
            Markup(", ").join(Markup("<code>{}</code>").format(scope) for scope in policy.scopes)
        )
    return said + _of_calls(policy) + _levels(policy)


def _of_calls(policy: AccessPolicy) -> Markup:
    said = Markup("")
    if policy.methods:
        said += Markup(" with {}").format(_either(policy.methods))
    if policy.paths:
        paths = Markup(" or ").join(Markup("<code>{}</code>").format(path) for path in policy.paths)
        said += Markup(" at {}").format(paths)
    if policy.via:
        said += Markup(" by {}").format(Markup(" or ").join(_VIAS[via] for via in policy.via))
    if policy.effect == "approve":
        said += ", each request once its owner has approved it"
    return said


def _either(values: Sequence[str]) -> Markup:
    return Markup(" or ").join(Markup("<strong>{}</strong>").format(value) for value in values)


def _levels(policy: AccessPolicy) -> str:
    if policy.levels == ["user"]:
        return ", for users' own connections"
    if policy.levels == ["tenant"]:
        return ", for tenants' connections"
    return ", also for a whole tenant" if policy.levels and policy.action == CONNECT else ""


def _require(desk: Desk) -> None:
    desk.require(Permission.POLICIES, Permission.KEYS)


def _concerns(desk: Desk, policy: AccessPolicy) -> bool:
    return not desk.principal.app_ids or policy.app_id in desk.principal.app_ids


def _name_in(apps: Mapping[str, OutboundApp], policy: AccessPolicy) -> str:
    return apps[policy.app_id].name if policy.app_id in apps else policy.app_id


async def _apps(desk: Desk) -> list[OutboundApp]:
    return await list_apps(desk.broker, desk.project.id, only=sorted(desk.principal.app_ids))


async def _keys(desk: Desk) -> list[ManagementKey]:
    """Return the keys that this operator manages: of others, policies show only the ids."""
    if not desk.may(Permission.KEYS):
        return []
    return await list_keys(desk.broker, desk.project.id, reader=desk.principal, most=MOST_KEYS)


async def _form_page(desk: Desk, form: Form, *, problems: dict[str, str] | None = None) -> Response:
    claims = list(zip(form.every("claim"), form.every("values"), strict=False))
    claims += [("", "")] * (CLAIM_ROWS - len(claims))
    return desk.page(
        "policy_new.html",
        status=400 if problems else 200,
        form=form,
        claims=claims,
        apps=await _apps(desk),
        keys=await _keys(desk),
        methods=METHODS,
        ways=[(via, _VIAS[via]) for via in VIAS],
        problems=problems or {},
    )
