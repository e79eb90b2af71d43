"""Fetching a token: the hot path. One authenticated lookup, one row, one decrypt, no write.

Only a token that is not fresh enough goes further, to `refresh_grant`.
"""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from pydantic import SecretStr

from evergrant import clock
from evergrant.broker.access import policies
from evergrant.broker.audit.record import actor, record
from evergrant.broker.grants.credentials import CREDENTIALS_TYPE, are_credentials
from evergrant.broker.grants.events import GrantEventKind, record_event
from evergrant.broker.grants.grants import ResourceOwner, token_slot
from evergrant.broker.refresh.refresh import refresh_grant
from evergrant.broker.runtime.admission import FETCH
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.broker.runtime.unwritten_calls import Call
from evergrant.broker.tokens.candidates import load_candidates
from evergrant.broker.tokens.fields import with_fields
from evergrant.catalog.api import Carried
from evergrant.db.grant import scope_key
from evergrant.db.grant_reader import GrantView, OwnerKey
from evergrant.errors import (
    AppNotFound,
    EvergrantError,
    InvalidValue,
    PermissionDenied,
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
    kind: Literal["fetch", "exchange"] = "fetch"
    """What the call log calls it."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token that works, with its grant's columns."""

    grant: GrantView
    access_token: SecretStr
    refresh_token: SecretStr | None
    carried: Carried | None = field(default=None, repr=False)
    """How calls carry it, where several fields stand in the place of one token."""


async def fetch_token(broker: Broker, principal: Principal, wanted: FetchRequest, *, now: datetime) -> Token:
    """Return a token that works, refreshing it first if it must be.

    Raises:
        PermissionDenied: the key may not use this app or see refresh tokens, a user asks for somebody else's token,
            or the app's policies forbid it.
        AppNotFound, TokenNotFound: there is no such app, or no such grant; `missingScopes` says what a grant lacks.
        ReauthorizationRequired: there was a grant, but it is dead.
        UpstreamUnavailable, UpstreamRejected: the provider failed and there is no valid token left.
    """
    started = time.perf_counter()
    try:
        token = await _fetch(broker, principal, wanted, now=now)
    except EvergrantError as error:
        # Whatever a caller may name is no app of ours yet, and must not become a row.
        app_id = "" if isinstance(error, AppNotFound | PermissionDenied) else wanted.app_id
        _note_fetch(broker, principal, app_id, "failed" if error.status >= 500 else "refused")
        _log_fetch(broker, principal, wanted, error, at=now, started=started)
        raise
    _note_fetch(broker, principal, wanted.app_id, "answered", (time.perf_counter() - started) * 1000)
    _log_fetch(broker, principal, wanted, token, at=now, started=started)
    return token


def _note_fetch(broker: Broker, principal: Principal, app_id: str, outcome: str, ms: float = 0.0) -> None:
    broker.activity.note(principal.project_id, app_id, f"fetch:{outcome}:{principal.key_id or 'user'}", ms)


def _log_fetch(
    broker: Broker,
    principal: Principal,
    wanted: FetchRequest,
    outcome: Token | EvergrantError,
    *,
    at: datetime,
    started: float,
) -> None:
    """Note a fetch for the call log: of users and agents each; what keys fetch, timelines count already."""
    if not (principal.is_user or broker.settings.call_log_fetches):
        return
    call = Call.begun(
        principal,
        kind=wanted.kind,
        at=at,
        app_id=wanted.app_id,
        user_id=wanted.owner.user_id,
        tenant_id=wanted.owner.tenant_id,
        remote_address=actor.get().remote_address,
    )
    call.source, call.ms = "evergrant", round((time.perf_counter() - started) * 1000)
    if isinstance(outcome, EvergrantError):
        call.status, call.code = outcome.status, outcome.code
    else:
        call.status, call.grant_id = 200, outcome.grant.id
    broker.calls.note(call)


async def _fetch(broker: Broker, principal: Principal, wanted: FetchRequest, *, now: datetime) -> Token:
    principal.require_app(wanted.app_id)
    if principal.session is not None:
        limits = principal.session.apps[wanted.app_id]
        identifier = limits.identifier_for(wanted.external_identifier)
        wanted = replace(wanted, external_identifier=identifier, scopes=limits.scopes_to_fetch(wanted.scopes))
    principal.require_for(Permission.TOKENS_FETCH, user_id=wanted.owner.user_id, tenant_id=wanted.owner.tenant_id)
    if wanted.with_refresh_token:
        principal.require(Permission.TOKENS_FETCH_REFRESH_TOKEN)
    if not policies.are_known_to_be_none(broker, principal, wanted.app_id, FETCH):
        await _check_policies(broker, principal, wanted, wanted.scopes or ())
    project_id = principal.project_id
    owner = OwnerKey(
        project_id, wanted.app_id, wanted.owner.user_id, wanted.owner.tenant_id, wanted.external_identifier
    )
    view = await _usable(broker, principal, owner, wanted, now=now)
    if view.access_token is None:  # a refresh brings one, so this cannot be; but an empty token must never get out
        raise TokenNotFound
    access = await broker.vault.open(token_slot(owner, view.id, "access_token"), view.access_token)
    broker.uses.note_grant((project_id, view.id), at=now)
    broker.timelines.note_fetch(project_id, view.id, principal.name, at=now)
    if view.access_token_type == CREDENTIALS_TYPE and are_credentials(access):  # uploads were once called by any word
        return Token(*with_fields(broker.catalogue, view, access))
    refresh = None
    if wanted.with_refresh_token and view.refresh_token is not None:
        refresh = await broker.vault.open(token_slot(owner, view.id, "refresh_token"), view.refresh_token)
        if are_credentials(refresh):  # what the next tokens are obtained from is nobody's to have
            return Token(view, access, None)
        await _record_disclosure(broker, project_id, view)
    return Token(view, access, refresh)


async def _usable(
    broker: Broker, principal: Principal, owner: OwnerKey, wanted: FetchRequest, *, now: datetime
) -> GrantView:
    """Return the grant that answers, with a token that is good enough; where one cannot, another that covers."""
    key = owner, scope_key(wanted.scopes) if wanted.scopes is not None else ""
    view = broker.hot_rows.get(key)
    if view is None or wanted.force_refresh or not is_good_enough(view, wanted, now=now):
        view = await _read_row(broker, key)
    if view is None:
        try:
            view = (await load_candidates(broker, owner)).choose(wanted.scopes)
        except ReauthorizationRequired as error:
            _note_refused(broker, principal, error.grant_id, error, now=now)
            raise
    if set(view.scopes) != set(wanted.scopes or ()):  # they can be more than was asked for, and checked before
        await _check_policies(broker, principal, wanted, view.scopes)
    tried: set[str] = set()
    while not is_good_enough(view, wanted, now=now):
        tried.add(view.id)
        try:
            return await _refreshed_with_scopes(broker, owner, view, wanted, now=now)
        except (ReauthorizationRequired, TokenNotFound) as error:  # dead, narrowed or replaced just now
            other = await _another(broker, principal, owner, wanted, tried)
            if other is None:
                _note_refused(broker, principal, view.id, error, now=now)
                raise
        except (UpstreamUnavailable, UpstreamRejected) as error:
            other = await _another(broker, principal, owner, wanted, tried)
            if other is None or not is_good_enough(other, wanted, now=now):
                _note_refused(broker, principal, view.id, error, now=now)
                raise
        # Who forces a refresh has seen this one's token fail, and not the other's.
        view, wanted = other, replace(wanted, force_refresh=False)
    return view


async def _read_row(broker: Broker, key: tuple[OwnerKey, str]) -> GrantView | None:
    """Return the active grant with exactly these scopes; without, that of the latest consent."""
    owner, scopes = key
    begun = broker.hot_rows.mark()
    reader = broker.grant_reader
    view = await (reader.by_scopes(owner, scopes) if scopes else reader.latest(owner))
    if view is not None:
        broker.hot_rows.put(key, view, read_since=begun)
    return view


def _note_refused(broker: Broker, principal: Principal, grant_id: str, error: EvergrantError, *, now: datetime) -> None:
    """Count in a connection's timeline that somebody asked for its token in vain, and why."""
    why = str(error.details.get("reason") or error.details.get("providerError") or type(error).__name__)
    broker.timelines.note_fetch(principal.project_id, grant_id, principal.name, refused=why[:100], at=now)


async def _another(
    broker: Broker, principal: Principal, owner: OwnerKey, wanted: FetchRequest, tried: Collection[str]
) -> GrantView | None:
    """Return the next connection that covers what is wanted, and that the policies allow; None where there is none."""
    other = (await load_candidates(broker, owner)).other_than(tried, wanted.scopes)
    try:
        if other is not None:
            await _check_policies(broker, principal, wanted, other.scopes)
    except PermissionDenied:
        return None
    return other


async def _check_policies(broker: Broker, principal: Principal, wanted: FetchRequest, scopes: Collection[str]) -> None:
    await policies.check_policies(broker, principal, wanted.app_id, FETCH, owner=wanted.owner, scopes=scopes)


async def _record_disclosure(broker: Broker, project_id: str, view: GrantView) -> None:
    """Record who is given a refresh token, before they get it: it outlives every access token."""
    async with broker.database.write() as session:
        seen, who = GrantEventKind.REFRESH_TOKEN_SEEN, actor.get().name
        await record_event(session, project_id, view.id, seen, at=clock.now(), actor=who)
        await record(
            session,
            project_id,
            "token.refresh_token_fetched",
            app_id=view.app_id,
            user_id=view.user_id,
            tenant_id=view.tenant_id,
            data={"grantId": view.id},
        )


def is_good_enough(view: GrantView, wanted: FetchRequest, *, now: datetime) -> bool:
    """Tell whether a grant's token can be used as it is, and need not be refreshed first."""
    if view.access_token is None:
        return False
    if wanted.force_refresh and view.refresh_token is not None:
        since = (now - view.last_refresh_time).total_seconds() if view.last_refresh_time else None
        return since is not None and 0 <= since < FORCE_COALESCES_SECONDS
    if view.fresh_until is None:
        return True
    if view.refresh_token is None:
        return view.expires_at is None or now < view.expires_at
    just_refreshed = view.last_refresh_time is not None and view.last_refresh_time >= now - timedelta(seconds=1)
    return now < view.fresh_until and (just_refreshed or _lives(view, wanted.minimum_seconds, now=now))


def _lives(view: GrantView, seconds: int, *, now: datetime) -> bool:
    """Tell whether the access token still works `seconds` from now."""
    if view.access_token is None:
        return False
    return view.expires_at is None or now + timedelta(seconds=seconds) < view.expires_at


async def refreshed(
    broker: Broker, project_id: str, view: GrantView, wanted: FetchRequest, *, now: datetime
) -> GrantView:
    """Return a grant with a newer token; with the one that it has, where that still works and none can be had.

    Raises:
        ReauthorizationRequired, TokenNotFound, UpstreamUnavailable, UpstreamRejected: as `fetch_token`.
    """
    # A forced refresh never answers with the old token: who forces one has seen it fail.
    fallback = not wanted.force_refresh and _lives(view, wanted.minimum_seconds, now=now)
    wait = WAIT_SECONDS_WITH_VALID_TOKEN if fallback else WAIT_SECONDS
    try:
        async with asyncio.timeout(wait):
            seen, forced = view.token_version, wanted.force_refresh
            grant = await refresh_grant(broker, project_id, view.id, seen_version=seen, forced=forced)
    except TimeoutError:
        if fallback:
            return view
        raise UpstreamUnavailable(
            "The provider takes too long to answer; the refresh goes on.", retry_after=5
        ) from None
    except (UpstreamUnavailable, UpstreamRejected, Unavailable):
        if fallback and _lives(view, wanted.minimum_seconds, now=clock.now()):
            return view
        raise
    return GrantView.of(grant)


async def _refreshed_with_scopes(
    broker: Broker, owner: OwnerKey, view: GrantView, wanted: FetchRequest, *, now: datetime
) -> GrantView:
    newer = await refreshed(broker, owner.project_id, view, wanted, now=now)
    if set(wanted.scopes or ()) <= set(newer.scopes):
        return newer
    return (await load_candidates(broker, owner)).require(newer, wanted.scopes)


def parse_scopes(scopes: list[str] | None, *, field: str = "scopes") -> tuple[str, ...]:
    """Check the scopes of a fetch.

    Raises:
        InvalidValue: one is empty or not a string of one word.
    """
    for scope in scopes or ():
        if scope.split() != [scope]:
            raise InvalidValue.of((field, "each scope is one word"))
    return tuple(scopes or ())
