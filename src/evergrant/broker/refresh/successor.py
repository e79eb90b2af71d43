"""A connection that answers for another that has just died."""

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.broker.apps.quirks import scope_words
from evergrant.broker.grants.granted_scopes import proofs_of
from evergrant.broker.grants.replacing import is_of_another_person, is_of_same_owner
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, GrantStatus, OutboundApp


async def find_successor(broker: Broker, session: AsyncSession, dead: Grant) -> Grant | None:
    """Return a living connection of the same owner and person that has all scopes of a dead one; None without one.

    Some providers keep one refresh token for each person and client: a wider consent ends the earlier one.
    """
    app = await session.get(OutboundApp, (dead.project_id, dead.app_id))
    if app is None:
        return None
    works = or_(Grant.refresh_token.is_not(None), Grant.expires_at.is_(None), Grant.expires_at > clock.now())
    query = select(Grant).where(
        *is_of_same_owner(dead), Grant.status == GrantStatus.ACTIVE, works, ~is_of_another_person(dead)
    )
    words = scope_words(broker, app)
    living = await session.scalars(query.order_by(Grant.consented_at.desc()))
    return next((other for other in living if not words.missing(dead.scopes, other.scopes, proofs_of(other))), None)
