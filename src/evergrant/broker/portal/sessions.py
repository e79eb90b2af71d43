"""Visits of end users: made for whoever may connect for them, opened once, recognised by a cookie, cleared away.

A visit is a row. Link and cookie are stored as digests. What ends a visit (its time, its project, the key or the
issuer of the user that asked for it) ends it at its next request: nothing is remembered here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import and_, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.apps.apps import list_apps
from evergrant.broker.apps.definition import scope_problems
from evergrant.broker.audit.record import record
from evergrant.broker.portal.visits import CONNECT, DISCONNECT, Visit, visit_of
from evergrant.broker.projects.projects import load_project
from evergrant.broker.projects.redirects import check_redirect_url
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.crypto.opaque import digest, new_id, new_opaque
from evergrant.db import ManagementKey, PortalSession, Project, TrustedIssuer
from evergrant.errors import InvalidValue, LinkIsOver

VISIT_PATH = "/accounts"
OPENS = timedelta(seconds=60)
"""How long a link waits to be opened."""
LONGEST = timedelta(minutes=30)
SEEN_EVERY = timedelta(minutes=1)
KEPT = timedelta(days=1)
"""How long a visit that is over can still say which application to go back to."""


@dataclass(frozen=True, kw_only=True)
class VisitRequest:
    """Whose connected accounts to show, and what may be done there."""

    user_id: str
    tenant_id: str = ""
    user_label: str = ""
    tenant_label: str = ""
    app_ids: Sequence[str] = ()
    """The only apps that are shown; empty for all."""
    allow: Sequence[str] = ()
    """Empty for all that whoever asks may do."""
    scopes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By app: the scopes that may be asked for beside the app's own."""
    locale: str = ""
    return_url: str = ""


async def make_visit(
    broker: Broker, principal: Principal, wanted: VisitRequest, *, now: datetime
) -> tuple[str, datetime]:
    """Return a link to a user's connected accounts, and until when it opens. It opens once.

    Raises:
        PermissionDenied: a user asks for somebody else, a key may not use an app, or may not delete connections.
        InvalidValue: an app, a scope or the address to return to cannot be used; nothing is written.
        RateLimited: the user has asked for too much.
    """
    principal.require_for(Permission.CONNECT, user_id=wanted.user_id, tenant_id=wanted.tenant_id)
    if principal.session is not None:  # the page ends connections, and is for people
        principal.require(Permission.CONNECT)
    may_delete = principal.is_user or Permission.TOKENS_WRITE in principal.permissions
    if DISCONNECT in wanted.allow and not may_delete:
        principal.require(Permission.TOKENS_WRITE)
    allow = set(wanted.allow) or {CONNECT, *([DISCONNECT] if may_delete else [])}
    for app_id in (*wanted.app_ids, *wanted.scopes):
        principal.require_app(app_id)
    await _check(broker, principal.project_id, wanted)
    if principal.is_user:
        broker.limits.connects.take((principal.project_id, principal.name))
    code = new_opaque()
    row = PortalSession(
        id=new_id(),
        project_id=principal.project_id,
        code_digest=digest(code),
        user_id=wanted.user_id,
        tenant_id=wanted.tenant_id,
        user_label=wanted.user_label,
        tenant_label=wanted.tenant_label,
        app_ids=sorted(set(wanted.app_ids) or principal.app_ids),
        allow=sorted(allow),
        scopes={app_id: list(scopes) for app_id, scopes in wanted.scopes.items()},
        locale=wanted.locale,
        return_url=wanted.return_url,
        made_by=principal.name[:300],
        key_id=principal.key_id,
        claims=dict(principal.claims) if principal.claims is not None else None,
        created_at=now,
        opens_until=now + OPENS,
        expires_at=now + OPENS,
    )
    async with broker.database.write() as session:
        session.add(row)
        await session.flush()
        data = {"sessionId": row.id, "allow": row.allow, "appIds": row.app_ids}
        await record(
            session,
            row.project_id,
            "accounts.link_made",
            user_id=row.user_id,
            tenant_id=row.tenant_id,
            data=data,
        )
    return f"{broker.settings.public_url}{VISIT_PATH}/{code}", row.opens_until


async def _check(broker: Broker, project_id: str, wanted: VisitRequest) -> None:
    problems: list[tuple[str, str]] = []
    if wanted.return_url:
        async with broker.database.read() as session:
            project = await load_project(session, project_id)
        try:
            check_redirect_url(broker, project, wanted.return_url, field="returnUrl")
        except InvalidValue as error:
            problems += [(entry["field"], entry["problem"]) for entry in error.details["fields"]]
    named = {*wanted.app_ids, *wanted.scopes}
    known = {app.id for app in await list_apps(broker, project_id, only=sorted(named))} if named else set()
    problems += [("appIds", f"there is no app '{app_id}'") for app_id in wanted.app_ids if app_id not in known]
    for app_id, scopes in wanted.scopes.items():
        if app_id not in known:
            problems.append(("scopes", f"there is no app '{app_id}'"))
        problems += scope_problems(f"scopes.{app_id}", scopes)
    if problems:
        raise InvalidValue.of(*problems)


async def project_of_link(broker: Broker, code: str) -> Project | None:
    """Return the project that a link is of, whether it still opens or not; None where there is none."""
    query = (
        select(Project)
        .join(PortalSession, PortalSession.project_id == Project.id)
        .where(PortalSession.code_digest == digest(code), Project.closed_at.is_(None))
    )
    async with broker.database.read() as session:
        return (await session.execute(query)).scalar_one_or_none()


async def is_opened_by(broker: Broker, code: str, cookie: str) -> bool:
    """Tell whether a link was opened by the browser with this cookie, which comes again."""
    query = select(PortalSession.id).where(
        PortalSession.code_digest == digest(code), PortalSession.digest == digest(cookie)
    )
    async with broker.database.read() as session:
        return (await session.execute(query)).first() is not None


async def open_visit(broker: Broker, code: str, cookie: str, *, now: datetime) -> None:
    """Use a link up: from now on the visit is that of the browser with this cookie, which is stored nowhere.

    Raises:
        LinkIsOver: it was opened already, or its time is over, or there never was one.
    """
    query = (
        update(PortalSession)
        .where(
            PortalSession.code_digest == digest(code), PortalSession.digest.is_(None), PortalSession.opens_until > now
        )
        .values(digest=digest(cookie), seen_at=now, expires_at=now + LONGEST)
        .returning(PortalSession.id, PortalSession.project_id, PortalSession.user_id, PortalSession.tenant_id)
    )
    try:
        async with broker.database.write() as session:
            row = (await session.execute(query)).one_or_none()
            if row is None:
                raise LinkIsOver
            await record(
                session,
                row.project_id,
                "accounts.opened",
                user_id=row.user_id,
                tenant_id=row.tenant_id,
                data={"sessionId": row.id},
            )
    except IntegrityError:
        raise LinkIsOver from None  # the cookie is another visit's


async def find_visit(broker: Broker, cookie: str, *, now: datetime) -> Visit | None:
    """Return the visit of a cookie, which may be over; None where there is none, or its project is closed."""
    is_its_key = and_(ManagementKey.project_id == PortalSession.project_id, ManagementKey.id == PortalSession.key_id)
    query = (
        select(PortalSession, Project, ManagementKey)
        .join(Project, Project.id == PortalSession.project_id)
        .outerjoin(ManagementKey, is_its_key)
        .where(PortalSession.digest == digest(cookie), Project.closed_at.is_(None))
    )
    async with broker.database.read() as session:
        found = (await session.execute(query)).one_or_none()
        if found is None:
            return None
        row, project, key = found
        is_trusted = row.claims is None or await _trusts(session, row)
    written = row.seen_at or row.created_at
    seen_at = max(written, broker.uses.visits.get(row.id) or written)
    visit = visit_of(row, project, key, is_trusted=is_trusted, seen_at=seen_at, now=now)
    if not visit.is_over and now - seen_at > SEEN_EVERY:
        broker.uses.visits.note_latest(row.id, now)
    return visit


async def _trusts(session: AsyncSession, row: PortalSession) -> bool:
    """Tell whether a project still trusts the issuer whose user has asked for a visit."""
    issuer = (row.claims or {}).get("iss")
    is_its = select(TrustedIssuer.id).where(TrustedIssuer.project_id == row.project_id, TrustedIssuer.issuer == issuer)
    return (await session.execute(is_its.limit(1))).first() is not None


async def write_visit_uses(broker: Broker) -> None:
    """Store when visits were last used. Called about once a minute."""

    async def write(uses: Sequence[tuple[str, datetime]]) -> None:
        async with broker.database.write() as session:
            for visit_id, at in uses:
                await session.execute(update(PortalSession).where(PortalSession.id == visit_id).values(seen_at=at))

    await broker.uses.visits.drain(write, at_once=100)


async def clear_visits(broker: Broker, *, now: datetime) -> None:
    """Delete what is over, and has said for a day where to go back to."""
    async with broker.database.write() as session:
        await session.execute(delete(PortalSession).where(PortalSession.expires_at <= now - KEPT))
