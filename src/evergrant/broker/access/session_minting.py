"""Minting agent sessions: by a key for any owner, or by a user for itself. None can do more than its maker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Literal

from evergrant.broker.access.management_keys import network_problems
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.apps.definition import scope_problems
from evergrant.broker.audit.record import record
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.agent_limits import SessionApp
from evergrant.broker.runtime.authority import Authority, require_no_more
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.path_globs import glob_problem, method_problem
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.crypto.opaque import digest, new_id, new_session_key
from evergrant.db import AgentSession
from evergrant.errors import InvalidValue

DEFAULT_SECONDS, MOST_SECONDS = 900, 86_400
MOST_APPS, MOST_EACH = 100, 50
"""How many apps a session has at most, and how many methods or paths an app."""


@dataclass(frozen=True, kw_only=True)
class SessionRequest:
    """What a session shall let its agent do, for whom, and for how long."""

    owner: ResourceOwner
    apps: Sequence[SessionApp]
    agent_id: str
    agent_name: str = ""
    act: Sequence[str] = ()
    """The chain of actors, outermost first, where tokens tell of one."""
    connect: bool = False
    """Whether the agent may begin connect trips."""
    fetch: bool = False
    """Whether it may have the tokens themselves."""
    lives: timedelta = timedelta(seconds=DEFAULT_SECONDS)
    max_calls: int | None = None
    allowed_cidrs: Sequence[str] = ()
    elicitation: Literal["url", "link"] = "url"
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def permissions(self) -> frozenset[str]:
        """What it takes to mint it, beside the right to mint."""
        found = {Permission.CALLS}
        if self.connect:
            found.add(Permission.CONNECT)
        if self.fetch:
            found.add(Permission.TOKENS_FETCH)
        return frozenset(found)


@dataclass(frozen=True)
class MintedSession:
    """A session that was just made: the only time that its key is known."""

    row: AgentSession
    key: str = field(repr=False)


async def mint_session(
    broker: Broker, project_id: str, wanted: SessionRequest, *, maker: Principal | None, now: datetime
) -> MintedSession:
    """Make a session. `maker` is who asks for it: a management key, an operator or a user; None for the command line.

    Raises:
        InvalidValue: an app, or what shall be done with it, cannot be; nothing is written.
        PermissionDenied: it would do more than its maker may, elsewhere, or for longer; or for somebody else.
    """
    await _check_session(broker, project_id, wanted)
    expires_at = now + wanted.lives
    if maker is not None and maker.is_user:
        expires_at = _ends_for_user(maker, wanted, expires_at)
    elif maker is not None:
        _require_may_mint(maker, wanted, expires_at)
    session_id = new_id()
    key = new_session_key(project_id, session_id)
    row = AgentSession(
        project_id=project_id,
        id=session_id,
        digest=digest(key),
        user_id=wanted.owner.user_id,
        tenant_id=wanted.owner.tenant_id,
        agent_id=wanted.agent_id,
        agent_name=wanted.agent_name,
        act=list(wanted.act),
        apps=[app.wire() for app in wanted.apps],
        may_connect=wanted.connect,
        may_fetch=wanted.fetch,
        elicitation=wanted.elicitation,
        labels=dict(wanted.labels),
        allowed_cidrs=list(wanted.allowed_cidrs),
        max_calls=wanted.max_calls,
        calls=0,
        key_id=maker.key_id if maker is not None else "",
        claims=dict(maker.claims) if maker is not None and maker.claims is not None else None,
        made_by=maker.name[:300] if maker is not None else "cli",
        created_at=now,
        expires_at=expires_at,
    )
    data = {
        "sessionId": session_id,
        "agentId": row.agent_id,
        "appIds": [app.app_id for app in wanted.apps],
        "connect": row.may_connect,
        "fetch": row.may_fetch,
        "expiresAt": expires_at.isoformat(timespec="seconds"),
    }
    async with broker.database.write() as session:
        session.add(row)
        await session.flush()
        await record(session, project_id, "session.created", user_id=row.user_id, tenant_id=row.tenant_id, data=data)
    return MintedSession(row, key)


def _require_may_mint(maker: Principal, wanted: SessionRequest, expires_at: datetime) -> None:
    """Check what a management key, or an operator, needs; the session works from where its key does."""
    maker.require(Permission.SESSIONS)
    for app in wanted.apps:
        maker.require_app(app.app_id)
    networks = tuple(ip_network(cidr) for cidr in wanted.allowed_cidrs) or maker.networks
    asked = Authority(
        permissions=wanted.permissions,
        app_ids=frozenset(app.app_id for app in wanted.apps),
        networks=networks,
        expires_at=expires_at,
    )
    require_no_more(maker, asked, what="the session")


def _ends_for_user(maker: Principal, wanted: SessionRequest, expires_at: datetime) -> datetime:
    """Check what a user needs, and return the end of its session: at the latest, that of its own token."""
    if maker.session is not None:
        maker.require(Permission.SESSIONS)  # which is a management key's
    for permission in sorted(wanted.permissions):
        maker.require_for(Permission(permission), user_id=wanted.owner.user_id, tenant_id=wanted.owner.tenant_id)
    return min(expires_at, maker.expires_at) if maker.expires_at is not None else expires_at


async def _check_session(broker: Broker, project_id: str, wanted: SessionRequest) -> None:
    problems = [] if wanted.owner != ResourceOwner("", "") else [("userId", "say whose: userId or tenantId")]
    if not wanted.apps:
        problems.append(("apps", "name at least one"))
    if len(wanted.apps) > MOST_APPS:
        problems.append(("apps", f"name at most {MOST_APPS}"))
    ids = sorted({app.app_id for app in wanted.apps})
    known = {app.id for app in await list_apps(broker, project_id, only=ids)} if ids else set()
    for i, app in enumerate(wanted.apps):
        problems += [(f"apps[{i}].{name}", problem) for name, problem in _app_problems(app, fetch=wanted.fetch)]
        if app.app_id not in known:
            problems.append((f"apps[{i}].appId", "there is no such app"))
        if app.app_id in {earlier.app_id for earlier in wanted.apps[:i]}:
            problems.append((f"apps[{i}].appId", "name each app once"))
    problems += network_problems("permittedIps", wanted.allowed_cidrs)
    if wanted.fetch and wanted.max_calls is not None:
        problems.append(("maxCalls", "nobody counts calls with a token that was fetched: leave it or fetch out"))
    if not 1 <= wanted.lives.total_seconds() <= MOST_SECONDS:
        problems.append(("ttlSeconds", f"use 1 to {MOST_SECONDS}"))
    if problems:
        raise InvalidValue.of(*problems)


def _app_problems(app: SessionApp, *, fetch: bool) -> list[tuple[str, str]]:
    problems = scope_problems("scopes", app.scopes)
    for name, values, problem_of in (("methods", app.methods, method_problem), ("paths", app.paths, glob_problem)):
        problems += [(name, problem) for problem in dict.fromkeys(map(problem_of, values)) if problem]
    if fetch and (app.access != "write" or app.methods or app.paths or app.approve != "never"):
        problem = "nothing limits what is done with a token that was fetched: with fetch, say access: 'write' alone"
        problems.append(("access", f"{problem}, without methods, paths and approve"))
    return problems
