"""Agents: the sessions that they have, minting one, and ending them."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.access.session_list import (
    SessionFilter,
    SessionStatus,
    list_agent_sessions,
    revoke_agent_sessions,
    status_of_session,
)
from evergrant.broker.access.session_minting import MintedSession, SessionRequest, mint_session
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.calls.redirects import proxy_url
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.agent_limits import SessionApp
from evergrant.broker.runtime.list_places import Place
from evergrant.broker.runtime.principal import Permission
from evergrant.db import AgentSession, OutboundApp
from evergrant.errors import InvalidRequest, InvalidValue, NotFound
from evergrant.web.console.desk import Asked, Desk, DeskDep
from evergrant.web.console.fields import problems_of
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.states import State
from evergrant.web.forms import Form, read_form
from evergrant.web.mcp_address import resource_url

router = APIRouter(route_class=ConsoleRoute)

PER_PAGE = 50
MINUTES = ("15", "60", "480", "1440")
ACCESSES = {
    "read": "to read: what changes nothing",
    "approve": "to read, and to write what its owner approves, call by call",
    "write": "to read and write",
}
"""What the form offers: `approve` is `access` write with `approve` writes."""
SessionId = Annotated[str, Path(max_length=22, pattern=r"^[A-Za-z0-9]+$")]
STATES: dict[SessionStatus, State] = {
    "active": State("good", "circle-check", "Active"),
    "expired": State("", "clock", "Over"),
    "revoked": State("", "circle-x", "Revoked"),
}


@router.get("/console/{project}/agents")
async def show_agents(
    desk: DeskDep,
    user: Asked = "",
    agent: Asked = "",
    at: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """List the sessions of agents, the latest first."""
    desk.require(Permission.SESSIONS)
    now, which = clock.now(), SessionFilter(user_id=user, agent_id=agent)
    rows, following = await list_agent_sessions(
        desk.broker,
        desk.project.id,
        which,
        reader=desk.principal,
        after=Place.parse(at, field="at"),
        limit=PER_PAGE,
        now=now,
    )
    known = {app.id: app for app in await _apps(desk)}
    return desk.page(
        "agents.html",
        rows=[(row, STATES[status_of_session(row, now=now)], may_of(row)) for row in rows],
        apps=known,
        user=user,
        agent=agent,
        is_first=not at,
        older=desk.path("agents", user=user, agent=agent, at=str(following)) if following else "",
    )


@router.get("/console/{project}/agents/new")
async def show_new_session(desk: DeskDep) -> Response:
    """Show the form for a new session."""
    desk.require(Permission.SESSIONS)
    return await _form_page(desk, Form([("minutes", MINUTES[0])]))


@router.post("/console/{project}/agents/new")
async def make_session(desk: DeskDep) -> Response:
    """Mint a session and show its key, this once."""
    desk.require(Permission.SESSIONS)
    desk.require_recent()
    form = await read_form(desk.request)
    try:
        made = await _mint(desk, form)
    except InvalidRequest as error:
        return await _form_page(desk, form, problems=problems_of(error))
    here = desk.broker.settings.public_url
    return desk.page(
        "agent_made.html",
        session=made.row,
        text=made.key,
        mcp_url=resource_url(here, desk.project.id),
        proxy_urls={app["appId"]: proxy_url(here, app["appId"]) for app in made.row.apps},
    )


@router.get("/console/{project}/agents/{session_id}/revoke")
async def ask_revoke(desk: DeskDep, session_id: SessionId) -> Response:
    """Ask before a session is ended."""
    desk.require(Permission.SESSIONS)
    rows, _ = await list_agent_sessions(
        desk.broker,
        desk.project.id,
        SessionFilter(session_id=session_id),
        reader=desk.principal,
        limit=1,
        now=clock.now(),
    )
    if not rows:
        raise NotFound("There is no such session, or not any more.")
    return desk.page("agent_revoke.html", session=rows[0])


@router.post("/console/{project}/agents/{session_id}/revoke")
async def revoke_session(desk: DeskDep, session_id: SessionId) -> Response:
    """End a session, within 2 seconds everywhere."""
    desk.require(Permission.SESSIONS)
    which = SessionFilter(session_id=session_id)
    await revoke_agent_sessions(desk.broker, desk.project.id, which, principal=desk.principal, now=clock.now())
    return desk.go(desk.path("agents"))


def may_of(row: AgentSession) -> list[str]:
    """Return in words what a session may do."""
    writes = sum(app["access"] == "write" for app in row.apps)
    found = ["read" if not writes else "read and write" if writes == len(row.apps) else "read, write some"]
    if any(app["approve"] != "never" for app in row.apps):
        found.append("with approval")
    if row.may_connect:
        found.append("connect")
    if row.may_fetch:
        found.append("fetch tokens")
    return found


async def _mint(desk: Desk, form: Form) -> MintedSession:
    agent_id, name = form.text("agent"), form.text("name")
    if not 1 <= len(agent_id) <= 255:
        raise InvalidValue.of(("agent", "say in 1 to 255 characters which agent it is"))
    if form.text("minutes") not in MINUTES:
        raise InvalidValue.of(("minutes", f"use {', '.join(MINUTES)}"))
    calls = form.text("calls")
    if calls and not (calls.isascii() and calls.isdigit() and 1 <= int(calls[:10]) <= 1_000_000_000):
        raise InvalidValue.of(("calls", "use a number from 1, or leave it empty"))
    access = form.text("access") or "read"
    if access not in ACCESSES:
        raise InvalidValue.of(("access", f"use {', '.join(ACCESSES)}"))
    wanted = SessionRequest(
        owner=ResourceOwner(form.text("user")[:255], form.text("tenant")[:255]),
        apps=[
            SessionApp(
                app_id=app_id,
                access="read" if access == "read" else "write",
                approve="writes" if access == "approve" else "never",
            )
            for app_id in form.all("apps")
        ],
        agent_id=agent_id,
        agent_name=name[:200],
        connect=bool(form.text("connect")),
        lives=timedelta(minutes=int(form.text("minutes"))),
        max_calls=int(calls) if calls else None,
    )
    return await mint_session(desk.broker, desk.project.id, wanted, maker=desk.principal, now=clock.now())


async def _apps(desk: Desk) -> list[OutboundApp]:
    return await list_apps(desk.broker, desk.project.id, only=sorted(desk.principal.app_ids))


async def _form_page(desk: Desk, form: Form, *, problems: dict[str, str] | None = None) -> Response:
    return desk.page(
        "agent_new.html",
        status=400 if problems else 200,
        form=form,
        apps=await _apps(desk),
        minutes=MINUTES,
        accesses=ACCESSES,
        problems=problems or {},
    )
