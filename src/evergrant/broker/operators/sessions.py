"""Sessions at the console: begun, recognised, listed and ended.

A session is a row. What its cookie says is looked up, and remembered for some seconds like a management key, so that
whatever ends it (its key, its project, somebody) ends it everywhere within 5 seconds.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import and_, delete, or_, select, update

from evergrant.broker.access.authentication import authenticate
from evergrant.broker.audit.record import record
from evergrant.broker.operators.signed_in import SignedIn, signed_in
from evergrant.broker.projects.projects import list_projects
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.opaque import digest, new_id, new_opaque
from evergrant.db import ConsoleDeparture, ConsoleSession, ManagementKey, Project
from evergrant.errors import AuthenticationFailed, NotFound, PermissionDenied

LONGEST = timedelta(hours=24)
IDLE = timedelta(hours=8)
"""A session that nobody used for so long is over."""
SEEN_EVERY = timedelta(minutes=1)
MOST_NAMED = 100
"""How many operators one record names at most."""


async def begin_session(
    broker: Broker,
    *,
    operator: str,
    way: str,
    role: str = "",
    project_id: str | None = None,
    key_id: str = "",
    now: datetime,
) -> str:
    """Begin a session, and return the cookie's value, which is stored nowhere."""
    cookie = new_opaque()
    row = ConsoleSession(
        id=new_id(),
        digest=digest(cookie),
        project_id=project_id,
        key_id=key_id,
        operator=operator,
        way=way,
        role=role,
        signed_in_at=now,
        seen_at=now,
        expires_at=now + LONGEST,
    )
    seen = [project_id] if project_id is not None else [project.id for project in await list_projects(broker)]
    async with broker.database.write() as session:
        session.add(row)
        await session.flush()
        for one in seen:
            data = {"sessionId": row.id, "operator": operator, "way": way, "role": role}
            await record(session, one, "console.signed_in", data=data)
    return cookie


async def sign_in_with_key(
    broker: Broker, project_id: str, key: str, *, client_address: str, now: datetime
) -> tuple[str, str]:
    """Begin a session that rests on a management key; returns the cookie's value and the project.

    Raises:
        AuthenticationFailed: there is no such key.
        RateLimited: too many wrong ones came from this address.
    """
    if ":" in key:  # the whole credential, as it is shown and sent
        project_id, _, key = key.partition(":")
    header = f"Bearer {project_id.strip()}:{key.strip()}"
    principal = await authenticate(broker, header, client_address=client_address, now=now)
    if principal.is_user:
        raise AuthenticationFailed
    async with broker.database.read() as session:
        row = await session.get_one(ManagementKey, (principal.project_id, principal.key_id))
    cookie = await begin_session(
        broker, operator=row.name, way="key", project_id=principal.project_id, key_id=principal.key_id, now=now
    )
    return cookie, principal.project_id


async def find_session(broker: Broker, cookie: str, *, client_address: str, now: datetime) -> SignedIn | None:
    """Return whose session a cookie is, or None. Costs a query every few seconds."""
    cookie_digest = digest(cookie)
    found: SignedIn | None = await broker.console_sessions.get_or_read(
        cookie_digest, lambda: _look_up_session(broker, cookie_digest)
    )
    if found is None:
        return None
    seen_at = max(found.seen_at, broker.uses.console.get(found.session_id) or found.signed_in_at)
    if found.expires_at <= now or now - seen_at > IDLE:
        return None
    if now - seen_at > SEEN_EVERY:
        broker.uses.console.note_latest(found.session_id, now)
    if found.key_id:
        try:
            found.principal(found.project_id or "").check_usable(client_address=client_address, now=now)
        except AuthenticationFailed:
            return None
    return found


async def _look_up_session(broker: Broker, cookie_digest: bytes) -> SignedIn | None:
    is_its_key = and_(ManagementKey.project_id == ConsoleSession.project_id, ManagementKey.id == ConsoleSession.key_id)
    query = (
        select(ConsoleSession, ManagementKey)
        .outerjoin(ManagementKey, is_its_key)
        .outerjoin(Project, Project.id == ConsoleSession.project_id)
        .where(
            ConsoleSession.digest == cookie_digest,
            or_(ConsoleSession.project_id.is_(None), Project.closed_at.is_(None)),
        )
    )
    async with broker.database.read() as session:
        found = (await session.execute(query)).one_or_none()
    if found is None:
        return None
    row: ConsoleSession = found[0]
    key: ManagementKey | None = found[1]
    if row.key_id and (key is None or key.disabled):
        return None
    return signed_in(row, key)


async def list_sessions(broker: Broker, who: SignedIn, project_id: str, *, now: datetime) -> list[ConsoleSession]:
    """Return the sessions that may see a project and are not over, the latest first: for administrators.

    Raises:
        PermissionDenied: this is none.
    """
    _require_admin(who)
    query = (
        select(ConsoleSession)
        .where(
            or_(ConsoleSession.project_id.is_(None), ConsoleSession.project_id == project_id),
            ConsoleSession.expires_at > now,
            ConsoleSession.seen_at > now - IDLE,
        )
        .order_by(ConsoleSession.signed_in_at.desc(), ConsoleSession.id)
        .limit(200)
    )
    async with broker.database.read() as session:
        return list(await session.scalars(query))


async def end_session(broker: Broker, who: SignedIn, session_id: str) -> None:
    """End a session: one's own, or as an administrator any that one may see. Effective everywhere within 5 seconds.

    Raises:
        PermissionDenied: it is another's.
        NotFound: there is no such session.
    """
    if session_id != who.session_id:
        _require_admin(who)
    seeing = [project.id for project in await list_projects(broker)] if who.project_id is None else []
    async with broker.database.write() as session:
        row = await session.get(ConsoleSession, session_id)
        if row is None or (who.project_id is not None and row.project_id != who.project_id):
            raise NotFound("This session is over already.")
        await session.delete(row)
        await session.flush()
        for one in [row.project_id] if row.project_id is not None else seeing:
            data = {"sessionId": row.id, "operator": row.operator}
            await record(session, one, "console.signed_out", data=data)
    broker.console_sessions.clear()


async def end_other_sessions(broker: Broker, who: SignedIn, project_id: str) -> int:
    """End every session that an administrator sees in a project, all but their own, and return how many there were.

    An administrator of one project leaves those of the whole installation alone.

    Raises:
        PermissionDenied: this is none.
    """
    _require_admin(who)
    theirs = ConsoleSession.project_id == project_id
    seen = theirs if who.project_id is not None else or_(theirs, ConsoleSession.project_id.is_(None))
    others = delete(ConsoleSession).where(seen, ConsoleSession.id != who.session_id)
    async with broker.database.write() as session:
        operators = list(await session.scalars(others.returning(ConsoleSession.operator)))
        if operators:
            data = {"sessions": len(operators), "operators": sorted(set(operators))[:MOST_NAMED]}
            await record(session, project_id, "console.others_signed_out", data=data)
    broker.console_sessions.clear()
    return len(operators)


async def write_session_uses(broker: Broker) -> None:
    """Store when sessions were last used, and forget those that are over. Called about once a minute."""

    async def write(uses: Sequence[tuple[str, datetime]]) -> None:
        async with broker.database.write() as session:
            for session_id, at in uses:
                await session.execute(update(ConsoleSession).where(ConsoleSession.id == session_id).values(seen_at=at))

    await broker.uses.console.drain(write, at_once=100)


async def clear_console_sessions(broker: Broker, *, now: datetime) -> None:
    """Delete what is over."""
    async with broker.database.write() as session:
        over = or_(ConsoleSession.expires_at <= now, ConsoleSession.seen_at <= now - IDLE)
        await session.execute(delete(ConsoleSession).where(over))
        await session.execute(delete(ConsoleDeparture).where(ConsoleDeparture.expires_at <= now))


def _require_admin(who: SignedIn) -> None:
    if not who.is_admin:
        raise PermissionDenied("Only administrators see and end the sessions of others.")
