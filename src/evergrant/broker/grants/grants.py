"""Grants: storing what a provider answered, and when it will be due."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.grants.directory import enter
from evergrant.broker.grants.expiry_warnings import warning_time
from evergrant.broker.grants.granted_scopes import GrantedScopes
from evergrant.broker.grants.lifetimes import Lifetime, lifetime_of, refresh_token_end, unknown_end
from evergrant.broker.grants.replacing import Replacement, replace_earlier
from evergrant.broker.grants.schedule import next_refresh
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.vault import Sealer
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.db.grant_reader import OwnerKey
from evergrant.errors import AppNotFound, ReauthorizationRequired, TokenNotFound
from evergrant.oauth2.id_token import Subject
from evergrant.oauth2.odd_parts import part_or
from evergrant.oauth2.quirks import Quirks
from evergrant.oauth2.token_response import TokenResponse


@dataclass(frozen=True, slots=True)
class ResourceOwner:
    """Who a grant belongs to: a user, a user in a tenant, or a tenant. Empty means "none"."""

    user_id: str = ""
    tenant_id: str = ""


SEALS_OF_ANSWER = 3
"""So many secrets a token endpoint's answer has: access token, refresh token and id_token."""


@dataclass(frozen=True, slots=True)
class SealedTokens:
    """A token endpoint's answer, sealed for one grant and ready to be written."""

    access_token: Sealed | None
    access_token_type: str
    refresh_token: Sealed | None
    id_token: Sealed | None
    scopes: tuple[str, ...] | None
    lifetime: Lifetime
    refresh_token_expires_at: datetime | None = None

    def columns(self) -> dict[str, Sealed | None]:
        """Return the columns of the tokens that can be revoked."""
        return {"access_token": self.access_token, "refresh_token": self.refresh_token}


def new_grant_id() -> str:
    """Return an id for a grant; it is needed before the row exists, because secrets are sealed for it."""
    return secrets.token_hex(16)


def token_slot(owner: OwnerKey, grant_id: str, column: str) -> Slot:
    """Return the place that one of a grant's tokens is sealed for: its owner's, and nobody else's.

    A fetch asks with whom it was asked for, so that a row that was given to somebody else opens for nobody.
    """
    return Slot(owner[0], "grants", column, grant_id, owner[1:])


def owner_key(app: OutboundApp, owner: ResourceOwner, external_identifier: str) -> OwnerKey:
    """Return whose a grant of `app` is, as fetches find it and as its tokens are sealed."""
    return OwnerKey(app.project_id, app.id, owner.user_id, owner.tenant_id, external_identifier)


def owner_of(grant: Grant) -> OwnerKey:
    """Return whose a grant is, likewise."""
    return OwnerKey(grant.project_id, grant.app_id, grant.user_id, grant.tenant_id, grant.external_identifier)


def seal_answer(
    sealer: Sealer,
    owner: OwnerKey,
    grant_id: str,
    answer: TokenResponse,
    *,
    quirks: Quirks,
    refreshed: Grant | None = None,
    now: datetime,
) -> SealedTokens:
    """Seal a token response for a grant. It needs no database, and nothing that stands beside the tokens can stop it.

    Args:
        sealer: `SEALS_OF_ANSWER` seals, reserved before the provider was called.
        owner: whose grant it is.
        grant_id: the grant, which need not exist yet.
        answer: what the token endpoint answered.
        quirks: the provider's habits.
        refreshed: the grant as it was, if this is the answer to its refresh, or a consent that goes on with its refresh
            token.
        now: the moment of the answer.
    """
    access = sealer.seal(token_slot(owner, grant_id, "access_token"), answer.access_token)
    refresh = identity = None
    if answer.refresh_token is not None:
        refresh = sealer.seal(token_slot(owner, grant_id, "refresh_token"), answer.refresh_token)
    if answer.id_token is not None:
        identity = sealer.seal(token_slot(owner, grant_id, "id_token"), answer.id_token)
    return SealedTokens(
        access_token=access,
        access_token_type=answer.token_type,
        refresh_token=refresh,
        id_token=identity,
        scopes=answer.scopes,
        lifetime=part_or(
            unknown_end(now=now), "lifetime", lambda: lifetime_of(answer, quirks, refreshed=refreshed, now=now)
        ),
        refresh_token_expires_at=part_or(
            refreshed.refresh_token_expires_at if refreshed is not None else None,
            "refresh token's end",
            lambda: refresh_token_end(answer, quirks, refreshed=refreshed, now=now),
        ),
    )


def owner_problems(app: OutboundApp, owner: ResourceOwner) -> list[tuple[str, str]]:
    """Return the problems, by field, that keep `owner` from connecting `app`: it may belong to one tenant."""
    if app.tenant_id and owner.tenant_id != app.tenant_id:
        return [("tenantId", f"the app '{app.id}' is for one tenant only: name that tenant")]
    return []


async def lock_app(session: AsyncSession, project_id: str, app_id: str) -> OutboundApp:
    """Return an app as it is now and stays until the transaction ends; other transactions may store grants of it too.

    Raises:
        AppNotFound: it was deleted.
    """
    query = select(OutboundApp).where(OutboundApp.project_id == project_id, OutboundApp.id == app_id)
    app = (await session.execute(query.with_for_update(read=True))).scalar_one_or_none()
    if app is None:
        raise AppNotFound
    return app


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """A new consent, or an upload that stands for one: everything of its grant but the tokens."""

    owner: ResourceOwner
    external_identifier: str
    granted_by: str
    scopes: GrantedScopes
    subject: Subject
    resources: Sequence[str] = ()
    details: Mapping[str, str] = field(default_factory=dict)

    def columns(self, app: OutboundApp) -> dict[str, Any]:
        """Return the columns of the consent's grant."""
        return {
            "app_id": app.id,
            "user_id": self.owner.user_id,
            "tenant_id": self.owner.tenant_id,
            "external_identifier": self.external_identifier,
            "granted_by": self.granted_by,
            "token_sub": self.subject.sub,
            "token_sub_problem": self.subject.problem,
            "resources": list(self.resources),
            "details": dict(self.details),
            **self.scopes.columns(),
        }


async def save_tokens(
    session: AsyncSession,
    *,
    grant_id: str,
    app: OutboundApp,
    consent: Consent,
    tokens: SealedTokens,
    pending: bool,
    replacement: Replacement | None,
    now: datetime,
) -> Grant:
    """Store the grant of a new consent.

    It takes the place of an earlier consent of the same owner to the same scopes, unless it is `pending`: then the
    earlier one stays in use until the confirmation. A refresh of the earlier one that is still under way finds its
    grant gone and stores nothing.

    Raises:
        ReplacedMeanwhile: there are others to replace than `replacement` knows.
    """
    columns = columns_of_consent(app, consent, tokens, pending=pending, now=now)
    grant = Grant(project_id=app.project_id, id=grant_id, **columns)
    session.add(grant)
    await session.flush()
    await enter(session, grant)
    if not pending:
        await replace_earlier(session, grant, replacement)
    return grant


def columns_of_consent(
    app: OutboundApp, consent: Consent, tokens: SealedTokens, *, pending: bool = False, now: datetime
) -> dict[str, Any]:
    """Return the columns of a new consent's grant, but for those that say which it is."""

    def due() -> datetime | None:
        return next_refresh(
            app,
            tokens.lifetime.due,
            used_at=now,
            refreshed_at=now,
            ends_at=tokens.refresh_token_expires_at,
            idle_after=None,
            now=now,
        )

    fallback: datetime | None = now
    due_at = part_or(fallback, "due", due)
    return {
        **consent.columns(app),
        "status": GrantStatus.PENDING if pending else GrantStatus.ACTIVE,
        "consented_at": now,
        "refresh_token": tokens.refresh_token,
        # what waits for its confirmation is not refreshed
        "next_refresh_at": due_at if tokens.refresh_token is not None and not pending else None,
        **access_columns(tokens, now=now),
    }


def access_columns(tokens: SealedTokens, *, now: datetime, before: Grant | None = None) -> dict[str, Any]:
    """Return the columns that every answer has, whether it brings a refresh token or not.

    `before` is the grant as it was, where the answer goes onto a row that there is.
    """
    return {
        "access_token": tokens.access_token,
        "access_token_type": tokens.access_token_type,
        "id_token": tokens.id_token,
        "expires_at": tokens.lifetime.expires_at,
        "fresh_until": tokens.lifetime.fresh_until,
        "refresh_token_expires_at": tokens.refresh_token_expires_at,
        "warn_at": warning_time(tokens.refresh_token_expires_at, now=now, before=before),
    }


async def load_grant(broker: Broker, project_id: str, grant_id: str) -> Grant | None:
    """Return a grant, or None if it is gone."""
    async with broker.database.read() as session:
        return (
            await session.execute(select(Grant).where(Grant.project_id == project_id, Grant.id == grant_id))
        ).scalar_one_or_none()


def alive(grant: Grant | None) -> Grant:
    """Return a grant that can be used.

    Raises:
        TokenNotFound: it is gone.
        ReauthorizationRequired: it is dead.
    """
    if grant is None:
        raise TokenNotFound("This connection was deleted or replaced.")
    if grant.status == GrantStatus.REAUTHORIZATION_REQUIRED:
        raise ReauthorizationRequired(grant.last_refresh_error or None, last_refresh_error=grant.last_refresh_error)
    return grant
