"""Operators: who is signed in to see a project, and ending that."""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.operators.sessions import end_other_sessions, end_session, list_sessions
from evergrant.web.console.desk import SIGN_IN_PATH, DeskDep
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.settings_pages import require_admin, require_admin_again, settings_page

router = APIRouter(route_class=ConsoleRoute)

SessionId = Annotated[str, Path(max_length=22, pattern=r"^[A-Za-z0-9_-]+$")]


@router.get("/console/{project}/settings/operators")
async def show(desk: DeskDep) -> Response:
    """List the sessions that see this project."""
    require_admin(desk)
    sessions = await list_sessions(desk.broker, desk.who, desk.project.id, now=clock.now())
    return settings_page(desk, "settings_operators.html", sessions=sessions)


@router.post("/console/{project}/settings/operators/end-others")
async def end_others(desk: DeskDep) -> Response:
    """End all sessions but this one."""
    require_admin_again(desk)
    await end_other_sessions(desk.broker, desk.who, desk.project.id)
    return desk.go(desk.path("settings", "operators"))


@router.post("/console/{project}/settings/operators/{session}/end")
async def end(desk: DeskDep, session: SessionId) -> Response:
    """End one session."""
    require_admin_again(desk)
    await end_session(desk.broker, desk.who, session)
    own = session == desk.who.session_id
    return desk.go(SIGN_IN_PATH if own else desk.path("settings", "operators"))
