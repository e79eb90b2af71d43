"""Fetching a token: the hot path. One authenticated lookup, one row, one decrypt, no write.

Only a token that is not fresh enough goes further, to `refresh_grant`.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import select

from evergrant import clock
from evergrant.broker.access import policies
from evergrant.broker.apps.apps import load_app
from evergrant.broker.audit.record import record
from evergrant.broker.grants import last_used
from evergrant.broker.grants.grants import ResourceOwner, token_slot
from evergrant.broker.refresh.refresh import refresh_grant
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.db.grant import scope_key
from evergrant.db.grant_reader import GrantView, OwnerKey
from evergrant.errors import (
    AppNotFound,
    InvalidValue,
    ReauthorizationRequired,
    TokenNotFound,
    Unavailable,
    UpstreamRejected,
    UpstreamUnavailable,
)

WAIT_SECONDS = 25.0
"""How long a caller without any usable token waits for the provider before it is told to come back."""
WAIT_SECONDS_WITH_VALID_TOKEN = 3.0
"""How long it waits when there is a valid token that could be handed out instead."""
FORCE_COALESCES_SECONDS = 3.0
"""A grant refreshed this recently answers another forced refresh from the row."""


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """A request for a token: which app, whose connection, which scopes."""

    app_id: str
    owner: ResourceOwner
    external_identifier: str = ""
    scopes: tuple[str, ...] | None = None
    """None for the most recently consented grant, whatever its scopes."""
    with_refresh_token: bool = False
    force_refresh: bool = False
    minimum_seconds: int = 0
    """The token must live at least this long, or is refreshed."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token that works, with its grant's columns."""

    grant: GrantView
    access_token: SecretStr
    refresh_token: SecretStr | None


async def fetch_token(broker: Broker, principal: Principal, wanted: FetchRequest, *, now: datetime) -> Token:
    """Return a token that works, refreshing it first if it must be.

    Raises:
        PermissionDenied: the key may not use this app or see refresh tokens, a user asks for somebody else's token,
            or the app's policies forbid it.
        AppNotFound, TokenNotFound: there is no such app, or no such grant; `missingScopes` says what a grant lacks.
        ReauthorizationRequired: there was a grant, but it is dead.
        UpstreamUnavailable, UpstreamRejected: the provider failed and there is no valid token left.
    """
    principal.require_app(wanted.app_id)
    principal.require_for(Permission.TOKENS_FETCH, user_id=wanted.owner.user_id, tenant_id=wanted.owner.tenant_id)
    if wanted.with_refresh_token:
        principal.require(Permission.TOKENS_FETCH_REFRESH_TOKEN)
    await _check_policies(broker, principal, wanted, wanted.scopes or ())
    project_id = principal.project_id
    owner = OwnerKey(
        project_id, wanted.app_id, wanted.owner.user_id, wanted.owner.tenant_id, wanted.external_identifier
    )
    if wanted.scopes is None:
        view = await broker.grant_reader.latest(owner)
    else:
        view = await broker.grant_reader.by_scopes(owner, scope_key(wanted.scopes))
    if view is None:
        view = await _covering_or_explain(broker, owner, wanted)
    await _check_policies(broker, principal, wanted, view.scopes)  # they can be more than was asked for
    if not _is_good_enough(view, wanted, now=now):
        refreshed = await _refreshed(broker, project_id, view, wanted, now=now)
        if taken_away := set(wanted.scopes or ()) & set(view.scopes) - set(refreshed.scopes):
            raise _lacking(taken_away)
        view = refreshed
    if view.access_token is None:  # a refresh brings one, so this cannot be; but an empty token must never get out
        raise TokenNotFound
    access = await broker.vault.open(token_slot(project_id, view.id, "access_token"), view.access_token)
    last_used.note_use(broker, project_id, view, now=now)
    refresh = None
    if wanted.with_refresh_token and view.refresh_token is not None:
        refresh = await broker.vault.open(token_slot(project_id, view.id, "refresh_token"), view.refresh_token)
        await _record_disclosure(broker, project_id, view)
    return Token(view, access, refresh)


async def _check_policies(broker: Broker, principal: Principal, wanted: FetchRequest, scopes: Collection[str]) -> None:
    owner = wanted.owner
    await policies.check_policies(
        broker,
        principal,
        wanted.app_id,
        policies.FETCH,
        user_id=owner.user_id,
        tenant_id=owner.tenant_id,
        scopes=scopes,
    )


async def _record_disclosure(broker: Broker, project_id: str, view: GrantView) -> None:
    """Record who is given a refresh token, before they get it: it outlives every access token."""
    async with broker.database.write() as session:
        await record(
            session,
            project_id,
            "token.refresh_token_fetched",
            app_id=view.app_id,
            user_id=view.user_id,
            tenant_id=view.tenant_id,
            data={"grantId": view.id},
        )


def _is_good_enough(view: GrantView, wanted: FetchRequest, *, now: datetime) -> bool:
    if view.access_token is None:
        return False
    if wanted.force_refresh and view.refresh_token is not None:
        since = (now - view.last_refresh_time).total_seconds() if view.last_refresh_time else None
        return since is not None and 0 <= since < FORCE_COALESCES_SECONDS
    if view.fresh_until is None or view.expires_at is None:
        return True
    if view.refresh_token is None:
        return now < view.expires_at
    just_refreshed = view.last_refresh_time is not None and view.last_refresh_time >= now - timedelta(seconds=1)
    return now < view.fresh_until and (just_refreshed or _lives(view, wanted.minimum_seconds, now=now))


def _lives(view: GrantView, seconds: int, *, now: datetime) -> bool:
    """Tell whether the access token still works `seconds` from now."""
    if view.access_token is None:
        return False
    return view.expires_at is None or now + timedelta(seconds=seconds) < view.expires_at


async def _refreshed(
    broker: Broker, project_id: str, view: GrantView, wanted: FetchRequest, *, now: datetime
) -> GrantView:
    # A forced refresh never answers with the old token: who forces one has seen it fail.
    fallback = not wanted.force_refresh and _lives(view, wanted.minimum_seconds, now=now)
    wait = WAIT_SECONDS_WITH_VALID_TOKEN if fallback else WAIT_SECONDS
    try:
        async with asyncio.timeout(wait):
            grant = await refresh_grant(broker, project_id, view.id, seen_version=view.token_version)
    except TimeoutError:
        if fallback:
            return view
        raise UpstreamUnavailable(
            "The provider takes too long to answer; the refresh goes on.", retry_after=5
        ) from None
    except (UpstreamUnavailable, UpstreamRejected, Unavailable):
        if fallback and _lives(view, wanted.minimum_seconds, now=clock.utcnow()):
            return view
        raise
    return GrantView.of(grant)


async def _covering_or_explain(broker: Broker, owner: OwnerKey, wanted: FetchRequest) -> GrantView:
    """Return the smallest grant that covers the wanted scopes, or raise what tells the caller most."""
    query = (
        select(Grant, OutboundApp.app_type)
        .join(OutboundApp, (OutboundApp.project_id == Grant.project_id) & (OutboundApp.id == Grant.app_id))
        .where(
            *(getattr(Grant, name) == value for name, value in zip(OwnerKey._fields, owner, strict=True)),
            Grant.status != GrantStatus.PENDING,
        )
        .order_by(Grant.consented_at.desc())
    )
    async with broker.database.read() as session:
        rows = (await session.execute(query)).all()
    grants = [row.Grant for row in rows]
    if not grants:
        app = await load_app(broker, owner.project_id, owner.app_id)
        if app.tenant_id and app.tenant_id != owner.tenant_id:
            raise AppNotFound  # for this owner there is none
        raise TokenNotFound
    if rows[0].app_type == "apikey":
        return GrantView.of(grants[0])  # a key has no scopes: it answers whatever was asked for
    scopes = frozenset(wanted.scopes or ())
    covering = [grant for grant in grants if scopes <= set(grant.scopes)]
    alive = [grant for grant in covering if grant.status == GrantStatus.ACTIVE]
    if alive:
        return GrantView.of(min(alive, key=lambda grant: len(grant.scopes)))
    if covering:
        error = covering[0].last_refresh_error
        raise ReauthorizationRequired(error or None, last_refresh_error=error)
    raise _lacking(min((scopes - set(grant.scopes) for grant in grants), key=len))


def _lacking(scopes: Collection[str]) -> TokenNotFound:
    missing = sorted(scopes)
    return TokenNotFound(
        f"The connection lacks scopes: {', '.join(missing)}. Connect again with them.",
        details={"missingScopes": missing},
    )


def parse_scopes(scopes: list[str] | None, *, field: str = "scopes") -> tuple[str, ...]:
    """Check the scopes of a fetch.

    Raises:
        InvalidValue: one is empty or not a string of one word.
    """
    for scope in scopes or ():
        if scope.split() != [scope]:
            raise InvalidValue.of((field, "each scope is one word"))
    return tuple(scopes or ())
