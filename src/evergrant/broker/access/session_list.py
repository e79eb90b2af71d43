"""The agent sessions of a project: looking at them, revoking them, and clearing away what is long over.

A management key that is limited to some apps sees and revokes the sessions that are for these alone.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import ColumnElement, delete, select

from evergrant.broker.audit.record import record
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.list_places import Place
from evergrant.broker.runtime.principal import Principal
from evergrant.db import AgentSession
from evergrant.errors import NotFound

KEPT = timedelta(days=30)
"""How long a session that is over can be looked at."""
NAMED = 50
"""How many are named in the audit record of several."""
NO_SUCH = "There is no agent session with this id."

SessionStatus = Literal["active", "expired", "revoked"]


@dataclass(frozen=True, kw_only=True)
class SessionFilter:
    """Which sessions; an empty field does not limit."""

    session_id: str = ""
    user_id: str = ""
    agent_id: str = ""
    app_id: str = ""
    status: SessionStatus | Literal[""] = ""


def status_of_session(row: AgentSession, *, now: datetime) -> SessionStatus:
    """Return how a session is, as far as its own row says."""
    if row.revoked_at is not None:
        return "revoked"
    return "active" if row.expires_at > now else "expired"


def is_seen_by(row: AgentSession, principal: Principal | None) -> bool:
    """Tell whether a key may look at a session and revoke it: it is for none but the key's apps. None: the operator."""
    return principal is None or not principal.app_ids or {app["appId"] for app in row.apps} <= principal.app_ids


async def list_agent_sessions(
    broker: Broker,
    project_id: str,
    which: SessionFilter,
    *,
    reader: Principal | None,
    after: Place | None = None,
    limit: int,
    now: datetime,
) -> tuple[list[AgentSession], Place | None]:
    """Return a page of sessions, the latest first, and where the next one goes on; None on the last.

    A page may be shorter than `limit` where a key does not see all.
    """
    query = select(AgentSession).where(*_of_filter(project_id, which, now=now))
    if after is not None:
        query = query.where(after.older(AgentSession.created_at, AgentSession.id))
    query = query.order_by(AgentSession.created_at.desc(), AgentSession.id.desc()).limit(limit + 1)
    async with broker.database.browse() as session:
        rows = list(await session.scalars(query))
    following = Place(rows[limit - 1].created_at, rows[limit - 1].id) if len(rows) > limit else None
    return [row for row in rows[:limit] if is_seen_by(row, reader) and _is_for(row, which)], following


async def revoke_agent_sessions(
    broker: Broker, project_id: str, which: SessionFilter, *, principal: Principal | None, now: datetime
) -> int:
    """End sessions that go on, at once in this process and within two seconds elsewhere; return how many there were.

    Raises:
        NotFound: one is named by its id, and there is none that the key may revoke.
    """
    goes_on = (AgentSession.revoked_at.is_(None), AgentSession.expires_at > now)
    query = select(AgentSession).where(*_of_filter(project_id, which, now=now), *goes_on).order_by(AgentSession.id)
    async with broker.database.write() as session:
        rows = [row for row in await session.scalars(query) if is_seen_by(row, principal) and _is_for(row, which)]
        if which.session_id and not rows:
            row = await session.get(AgentSession, (project_id, which.session_id))
            if row is None or not is_seen_by(row, principal):
                raise NotFound(NO_SUCH)
        for row in rows:
            row.revoked_at = now
        await session.flush()
        if rows:
            owner = (rows[0].user_id, rows[0].tenant_id) if len(rows) == 1 else (which.user_id, "")
            data = {"sessionIds": [row.id for row in rows[:NAMED]], "total": len(rows), "agentId": which.agent_id}
            if len(rows) == 1:
                data["agentId"] = rows[0].agent_id
            await record(
                session,
                project_id,
                "session.revoked",
                app_id=which.app_id,
                user_id=owner[0],
                tenant_id=owner[1],
                data=data,
            )
    broker.agent_sessions.clear()
    return len(rows)


async def clear_agent_sessions(broker: Broker, *, now: datetime) -> None:
    """Delete what has been over for a month."""
    async with broker.database.write() as session:
        await session.execute(delete(AgentSession).where(AgentSession.expires_at <= now - KEPT))


def _of_filter(project_id: str, which: SessionFilter, *, now: datetime) -> list[ColumnElement[bool]]:
    found = [AgentSession.project_id == project_id]
    pairs = (
        (AgentSession.id, which.session_id),
        (AgentSession.user_id, which.user_id),
        (AgentSession.agent_id, which.agent_id),
    )
    found += [column == value for column, value in pairs if value]
    match which.status:
        case "active":
            found += [AgentSession.revoked_at.is_(None), AgentSession.expires_at > now]
        case "expired":
            found += [AgentSession.revoked_at.is_(None), AgentSession.expires_at <= now]
        case "revoked":
            found.append(AgentSession.revoked_at.is_not(None))
    return found


def _is_for(row: AgentSession, which: SessionFilter) -> bool:
    return not which.app_id or any(app["appId"] == which.app_id for app in row.apps)
