"""Agent sessions in use: who bears one, whether it is still good, and how many calls it has left.

A session that is good is remembered for a second. So one that is revoked, or whose key, issuer or project ends, is over
within two seconds everywhere, and at once in the process that ended it.
"""

from datetime import datetime
from ipaddress import ip_network
from typing import cast

from sqlalchemy import and_, select, update

from evergrant.broker.runtime.agent_limits import AgentLimits, SessionApp
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.crypto.opaque import digest, equal, session_key_parts
from evergrant.db import AgentSession, ManagementKey, Project, TrustedIssuer
from evergrant.errors import AuthenticationFailed, CallsUsedUp
from evergrant.networks import Network, common_networks

WRONG = "This key of an agent session is not valid here: copy the whole of it, or mint another."


async def bearer_of(broker: Broker, project_id: str, key: str) -> Principal:
    """Return whom a session's key identifies. `project_id` is what was named beside it; empty for nothing.

    Time and address are left for `Principal.check_usable`.

    Raises:
        AuthenticationFailed: it is misspelt, of another project, or of no session; or the session was revoked, or what
            minted it has ended. That is told only to somebody who holds the right key.
    """
    parts = session_key_parts(key)
    if parts is None or project_id not in ("", parts[0]):
        raise AuthenticationFailed(WRONG)
    return await _good(broker, *parts, presented=digest(key))


async def require_still_good(broker: Broker, principal: Principal, *, now: datetime) -> None:
    """Check that who opened a stream may go on with it: asked each second, it costs a query a second at most.

    Raises:
        AuthenticationFailed: the session was revoked, or what minted it has ended; or the credential has expired.
    """
    if principal.session is not None:
        await _good(broker, principal.project_id, principal.session.id)
    if principal.expires_at is not None and principal.expires_at <= now:
        raise AuthenticationFailed("This credential has expired.")


async def count_call(broker: Broker, principal: Principal) -> None:
    """Count one call of a session that may make so many, exactly, however many processes there are.

    Raises:
        CallsUsedUp: it has made them.
    """
    if principal.session is None or principal.session.max_calls is None:
        return
    one_more = (
        update(AgentSession)
        .where(
            AgentSession.project_id == principal.project_id,
            AgentSession.id == principal.session.id,
            AgentSession.calls < AgentSession.max_calls,
        )
        .values(calls=AgentSession.calls + 1)
        .returning(AgentSession.id)
    )
    async with broker.database.write() as session:
        counted = (await session.execute(one_more)).first() is not None
    if not counted:
        raise CallsUsedUp


async def _good(broker: Broker, project_id: str, session_id: str, *, presented: bytes | None = None) -> Principal:
    """Return the bearer of a session that is good, from memory or from its row; with a key's digest, to its holder."""
    # With what is presented: whoever presents a wrong key must not share its refusal with those who have the right one.
    bearer: Principal = await broker.agent_sessions.get_or_read(
        (project_id, session_id, presented or b""), lambda: _read_session(broker, project_id, session_id, presented)
    )
    return bearer


async def _read_session(broker: Broker, project_id: str, session_id: str, presented: bytes | None) -> Principal:
    is_its_key = and_(ManagementKey.project_id == AgentSession.project_id, ManagementKey.id == AgentSession.key_id)
    query = (
        select(AgentSession, ManagementKey)
        .join(Project, Project.id == AgentSession.project_id)
        .outerjoin(ManagementKey, is_its_key)
        .where(AgentSession.project_id == project_id, AgentSession.id == session_id, Project.closed_at.is_(None))
    )
    async with broker.database.read() as session:
        found = (await session.execute(query)).one_or_none()
        if found is None or (presented is not None and not equal(found[0].digest, presented)):
            raise AuthenticationFailed(WRONG)
        row, key = found[0], cast(ManagementKey | None, found[1])
        issuer = (row.claims or {}).get("iss")
        trusts = select(TrustedIssuer.id).where(TrustedIssuer.project_id == project_id, TrustedIssuer.issuer == issuer)
        is_trusted = row.claims is None or (await session.execute(trusts.limit(1))).first() is not None
    if row.revoked_at is not None:
        raise AuthenticationFailed("This session was revoked: mint another.")
    if not is_trusted or (row.key_id and (key is None or key.disabled)):
        raise AuthenticationFailed("What minted this session is not valid any more, so the session is over.")
    return _principal_of(row, key)


def _principal_of(row: AgentSession, key: ManagementKey | None) -> Principal:
    """Return what a row says. A key's permissions, apps and end never change; its networks can."""
    permissions = {Permission.CALLS}
    if row.may_connect:
        permissions.add(Permission.CONNECT)
    if row.may_fetch:
        permissions.add(Permission.TOKENS_FETCH)
    apps = {app["appId"]: SessionApp.read(app) for app in row.apps}
    return Principal(
        project_id=row.project_id,
        key_id="",
        permissions=frozenset(permissions),
        app_ids=frozenset(apps),
        networks=_networks(row.allowed_cidrs, key.allowed_cidrs if key is not None else ()),
        expires_at=row.expires_at,
        claims=row.claims,
        user_id=row.user_id,
        tenant_ids=frozenset({row.tenant_id} - {""}),
        agent=row.agent_id,
        act=tuple(row.act),
        session=AgentLimits(
            id=row.id,
            agent_name=row.agent_name,
            apps=apps,
            key_id=row.key_id,
            max_calls=row.max_calls,
            elicitation="link" if row.elicitation == "link" else "url",
        ),
    )


def _networks(own: list[str], of_key: list[str] | tuple[()]) -> tuple[Network, ...]:
    """Return where a session works from: where its key does, and where itself is limited to.

    Raises:
        AuthenticationFailed: there is no such place any more.
    """
    narrow, wide = (tuple(ip_network(cidr) for cidr in cidrs) for cidrs in (own, of_key))
    if not (narrow and wide):
        return narrow or wide
    both = common_networks(narrow, wide)
    if not both:
        raise AuthenticationFailed("The networks of this session and of its key have nothing in common any more.")
    return both
