"""Trusted issuers: whose tokens are accepted, and what a token may do here."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import SecretStr

from evergrant import clock
from evergrant.broker.access.token_trial import TokenVerdict, try_token
from evergrant.broker.activity.series import read_activity
from evergrant.broker.projects import trusted_issuers
from evergrant.broker.runtime.principal import Permission
from evergrant.db import TrustedIssuer
from evergrant.errors import AlreadyExists, InvalidRequest, NotFound
from evergrant.oauth2.jwks import KnownKeys
from evergrant.web.console.desk import Desk, DeskDep
from evergrant.web.console.fields import problems_of
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.states import State
from evergrant.web.forms import Form, read_form
from evergrant.web.words import ago, counted

router = APIRouter(route_class=ConsoleRoute)

IssuerId = Annotated[str, Path(max_length=22, pattern=r"^[A-Za-z0-9]+$")]
MAX_PASTED = 20_000


@router.get("/console/{project}/issuers")
async def show_issuers(desk: DeskDep) -> Response:
    """List the issuers that the project trusts."""
    _require(desk)
    found = await trusted_issuers.list_issuers(desk.broker, desk.project.id)
    rows = [(one, state_of_keys(trusted_issuers.known_keys(desk.broker, one))) for one in found]
    tokens = None
    if found and desk.may(Permission.CONNECTIONS_READ):
        day = await read_activity(desk.broker, desk.principal, "24h", now=clock.now())
        tokens = day.total.parts("issuer:")
    return desk.page("issuers.html", rows=rows, tokens=tokens)


@router.get("/console/{project}/issuers/new")
async def show_new_issuer(desk: DeskDep) -> Response:
    """Show the form for a new issuer."""
    _require(desk)
    return _new_page(desk, Form([("user_claim", "sub")]))


@router.post("/console/{project}/issuers/new")
async def trust_issuer(desk: DeskDep) -> Response:
    """Trust an issuer, whose keys are read before."""
    _require(desk)
    desk.require_recent()
    form = await read_form(desk.request)
    try:
        await trusted_issuers.create_issuer(
            desk.broker,
            desk.project.id,
            issuer=form.text("issuer"),
            jwks_url=form.text("jwks_url"),
            audience=form.text("audience"),
            user_claim=form.text("user_claim"),
            tenant_claim=form.text("tenant_claim"),
            machines_without_user=form.has("machines_without_user"),
            mcp=form.has("mcp"),
            login_client_id=form.text("login_client_id"),
            login_client_secret=SecretStr(form.text("login_client_secret")),
            maker=desk.principal,
            now=clock.now(),
        )
    except InvalidRequest as error:
        return _new_page(desk, form, status=400, problems=problems_of(error))
    except AlreadyExists as error:
        return _new_page(desk, form, status=409, problems={"issuer": error.message})
    return desk.go(desk.path("issuers"))


@router.get("/console/{project}/issuers/try")
async def show_try(desk: DeskDep) -> Response:
    """Show where a token is pasted."""
    _require(desk)
    return _try_page(desk)


@router.post("/console/{project}/issuers/try")
async def try_pasted(desk: DeskDep) -> Response:
    """Say what a pasted token may do. It is in no answer, no log and no database."""
    _require(desk)
    token = (await read_form(desk.request)).text("token")
    if not token or len(token) > MAX_PASTED:
        problem = "paste a token" if not token else "this is longer than any token that evergrant takes"
        return _try_page(desk, wrong=problem)
    return _try_page(desk, await try_token(desk.broker, desk.project.id, token, now=clock.now()))


@router.get("/console/{project}/issuers/{issuer_id}/remove")
async def ask_remove(desk: DeskDep, issuer_id: IssuerId) -> Response:
    """Ask before an issuer is trusted no longer."""
    _require(desk)
    return desk.page("issuer_ask.html", issuer=await _load(desk, issuer_id))


@router.post("/console/{project}/issuers/{issuer_id}/remove")
async def remove_issuer(desk: DeskDep, issuer_id: IssuerId) -> Response:
    """Trust an issuer no longer."""
    _require(desk)
    desk.require_recent()
    await trusted_issuers.delete_issuer(desk.broker, desk.project.id, issuer_id, remover=desk.principal)
    return desk.go(desk.path("issuers"))


def state_of_keys(known: KnownKeys | None) -> State:
    """Return whether an issuer's keys can be read, as far as this process knows."""
    if known is None:
        return State("", "circle-dashed", "Keys not read yet")
    if known.failed or known.loaded_at is None:
        return State("bad", "circle-x", "Keys cannot be read")
    if not known.count:
        return State("bad", "circle-x", "No usable key")
    return State("good", "circle-check", f"{counted(known.count, 'key')}, read {ago(known.loaded_at)}")


def _require(desk: Desk) -> None:
    desk.require(Permission.KEYS)
    desk.principal.require_every_app()


async def _load(desk: Desk, issuer_id: str) -> TrustedIssuer:
    for one in await trusted_issuers.list_issuers(desk.broker, desk.project.id):
        if one.id == issuer_id:
            return one
    raise NotFound("This issuer is not trusted, or not any more.")


def _new_page(desk: Desk, form: Form, *, status: int = 200, problems: Mapping[str, str] | None = None) -> Response:
    redirect_uri = trusted_issuers.login_redirect_uri(desk.broker)
    return desk.page("issuer_new.html", status=status, form=form, problems=problems or {}, redirect_uri=redirect_uri)


def _try_page(desk: Desk, verdict: TokenVerdict | None = None, *, wrong: str = "") -> Response:
    return desk.page("token_try.html", status=400 if wrong else 200, verdict=verdict, wrong=wrong)
