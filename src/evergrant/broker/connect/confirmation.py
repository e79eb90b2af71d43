"""What comes after a connect trip: the application confirms who came back, and rows that are over go."""

from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.connect.authorization_requests import record_connect
from evergrant.broker.grants.grants import replace_earlier
from evergrant.broker.grants.schedule import next_refresh
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.crypto.opaque import digest
from evergrant.db import AuthorizationRequest, Grant, GrantStatus, OutboundApp
from evergrant.errors import NotFound


async def confirm_connection(
    broker: Broker, principal: Principal, *, confirmation: str, user_id: str, now: datetime
) -> None:
    """Make a pending grant usable: the application's backend says that the person who came back is `user_id`.

    Raises:
        NotFound: the confirmation is unknown, used, expired, or was meant for somebody else. It is used up either way.
    """
    query = (
        update(AuthorizationRequest)
        .where(
            AuthorizationRequest.project_id == principal.project_id,
            AuthorizationRequest.confirmation_digest == digest(confirmation),
        )
        .values(confirmation_digest=None)
        .returning(AuthorizationRequest)
    )
    if principal.app_ids:  # a key that is limited to some apps
        query = query.where(AuthorizationRequest.app_id.in_(principal.app_ids))
    async with broker.database.write() as session:
        request = (await session.execute(query)).scalar_one_or_none()
        grant = await session.get(Grant, (request.project_id, request.grant_id)) if request is not None else None
        meant_for = "" if request is None else request.granted_by or request.user_id
        expired = request is not None and request.expires_at <= now
        good = grant is not None and grant.status == GrantStatus.PENDING and meant_for == user_id and not expired
        if grant is not None and good:
            await replace_earlier(session, grant)
            grant.status = GrantStatus.ACTIVE
            grant.next_refresh_at = await _due_from_now(session, grant, now=now)
        elif grant is not None and grant.status == GrantStatus.PENDING:
            await session.delete(grant)
        if request is not None and grant is not None:
            outcome = "grant.confirmed" if good else "grant.confirmation_refused"
            await record_connect(session, request, outcome, data={"grantId": grant.id, "confirmedFor": user_id})
    if not good:
        raise NotFound("This confirmation is not valid for this user: let the user connect again.")


async def _due_from_now(session: AsyncSession, grant: Grant, *, now: datetime) -> datetime | None:
    app = await session.get_one(OutboundApp, (grant.project_id, grant.app_id))
    if grant.refresh_token is None:
        return None
    return next_refresh(
        app,
        grant.fresh_until,
        used_at=now,
        refreshed_at=grant.consented_at,
        ends_at=grant.refresh_token_expires_at,
        idle_after=None,
        now=now,
    )


async def clear_finished_requests(broker: Broker, *, now: datetime) -> int:
    """Delete requests that are over or abandoned, with the grants that nobody confirmed, and return how many."""
    over = AuthorizationRequest.expires_at <= now - timedelta(hours=1)
    async with broker.database.write() as session:
        abandoned = select(AuthorizationRequest.grant_id).where(
            over, AuthorizationRequest.confirmation_digest.is_not(None)
        )
        await session.execute(
            delete(Grant)
            .where(Grant.status == GrantStatus.PENDING, Grant.id.in_(abandoned))
            .execution_options(synchronize_session=False)
        )
        gone = await session.execute(
            delete(AuthorizationRequest).where(over).execution_options(synchronize_session=False)
        )
        return int(getattr(gone, "rowcount", 0))
