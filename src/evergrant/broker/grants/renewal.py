"""A consent that brings no refresh token goes on with the one that there is.

Many providers give a refresh token at a first consent only. A second one, for the same scopes or for more, then comes
with an access token alone, and the refresh token of the first is still the person's only one: it must not be thrown
away, and it must not stand in two rows, because a provider that rotates it would call the second use theft.
"""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.grants.directory import move
from evergrant.broker.grants.grants import Consent, SealedTokens, access_columns
from evergrant.broker.grants.replacing import Replacement, is_of_another_person, is_of_same_owner, replace_earlier
from evergrant.broker.grants.schedule import next_refresh, refreshed_at
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.oauth2.scopes import ScopeWords


async def find_renewable(broker: Broker, app: OutboundApp, consent: Consent, words: ScopeWords) -> Grant | None:
    """Return the grant whose refresh token a new consent without one goes on with; None where there is none.

    It is of the same owner, of the same person at the provider as far as both consents say who that is, and for no
    scopes that the new one lacks. Of several, the latest.
    """
    new = Grant(project_id=app.project_id, id="", **consent.columns(app))
    query = (
        select(Grant)
        .where(
            *is_of_same_owner(new),
            Grant.status == GrantStatus.ACTIVE,
            Grant.refresh_token.is_not(None),
            ~is_of_another_person(new),
        )
        .order_by(Grant.consented_at.desc())
    )
    async with broker.database.read() as session:
        grants = list(await session.scalars(query))
    covered = (g for g in grants if not words.missing(g.scopes, consent.scopes.granted))
    return next(covered, None)


async def renew_grant(
    session: AsyncSession,
    earlier: Grant,
    *,
    app: OutboundApp,
    consent: Consent,
    tokens: SealedTokens,
    replacement: Replacement | None,
    now: datetime,
) -> Grant | None:
    """Store a consent on the row of an `earlier` one, whose refresh token stays; `tokens` are sealed for that row.

    None where the earlier one is being refreshed, or has moved on: what its refresh brings would overwrite this, or be
    lost.

    Raises:
        ReplacedMeanwhile: there are others to replace than `replacement` knows.
    """
    due = next_refresh(
        app,
        tokens.lifetime.due,
        used_at=now,
        refreshed_at=refreshed_at(earlier),
        ends_at=tokens.refresh_token_expires_at,
        idle_after=None,
        now=now,
    )
    statement = (
        update(Grant)
        .where(
            Grant.project_id == earlier.project_id,
            Grant.id == earlier.id,
            Grant.token_version == earlier.token_version,
            Grant.status == GrantStatus.ACTIVE,
            Grant.lease_owner.is_(None),
        )
        .values(
            **consent.columns(app),
            **access_columns(tokens, now=now, before=earlier),
            consented_at=now,
            next_refresh_at=due,
            last_refresh_error="",
            refresh_failures=0,
            refresh_not_before=None,
            token_version=Grant.token_version + 1,
        )
        .returning(Grant)
        .execution_options(synchronize_session=False)
    )
    grant = (await session.execute(statement)).scalar_one_or_none()
    if grant is not None:
        await move(session, grant)
        await replace_earlier(session, grant, replacement)
    return grant
