"""What comes after a connect trip: the application confirms who came back, and rows that are over go."""

import logging
from datetime import datetime, timedelta

from sqlalchemy import delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.apps.apps import load_app
from evergrant.broker.connect.authorization_requests import record_connect
from evergrant.broker.grants.events import GrantEventKind, record_event
from evergrant.broker.grants.grants import load_grant
from evergrant.broker.grants.replacing import Replacement, replace_earlier, until_as_read
from evergrant.broker.grants.schedule import next_refresh
from evergrant.broker.revocations.deleting import delete_grants
from evergrant.broker.revocations.replaced import prepare_replacement
from evergrant.broker.revocations.revocation import (
    RevocationReason,
    claim_at_once,
    prepare_revocations,
    try_at_once,
)
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.crypto.opaque import digest
from evergrant.db import AuthorizationRequest, BrowserLogin, Grant, GrantStatus, OutboundApp, Revocation
from evergrant.errors import NotFound, Unavailable

log = logging.getLogger(__name__)


@until_as_read
async def confirm_connection(
    broker: Broker, principal: Principal, *, confirmation: str, user_id: str, now: datetime
) -> None:
    """Make a pending grant usable: the application's backend says that the person who came back is `user_id`.

    Otherwise the grant goes, and is revoked: it may be somebody's who was tricked into giving it.

    Raises:
        NotFound: the confirmation is unknown, used, expired, or was meant for somebody else. It is used up either way.
    """
    which = [
        AuthorizationRequest.project_id == principal.project_id,
        AuthorizationRequest.confirmation_digest == digest(confirmation),
    ]
    if principal.app_ids:  # a key that is limited to some apps
        which.append(AuthorizationRequest.app_id.in_(principal.app_ids))
    async with broker.database.read() as session:
        request = (await session.execute(select(AuthorizationRequest).where(*which))).scalar_one_or_none()
    if request is None:
        raise _not_valid()
    seen = await load_grant(broker, request.project_id, request.grant_id or "")
    right_person = (request.granted_by or request.user_id) == user_id
    good = seen is not None and right_person and request.expires_at > now
    reason = RevocationReason.UNCONFIRMED if right_person else RevocationReason.REFUSED
    replacement: Replacement | None = None
    rows: list[Revocation] = []
    if seen is not None:  # its app is there too, which it would have gone with
        app = await load_app(broker, request.project_id, request.app_id)
        if good:
            replacement = await prepare_replacement(broker, app, seen, now=now)
        else:
            rows = await prepare_revocations(broker, app, [seen], reason=reason, person=user_id, now=now)
    first = claim_at_once(rows, now=now)
    use_up = update(AuthorizationRequest).where(*which).values(confirmation_digest=None)
    async with broker.database.write() as session:
        used = (await session.execute(use_up.returning(AuthorizationRequest.id))).scalar_one_or_none()
        grant = await session.get(Grant, (request.project_id, request.grant_id)) if used is not None else None
        if grant is None or grant.status != GrantStatus.PENDING:
            good, first = False, []
        elif good:
            await replace_earlier(session, grant, replacement)
            grant.status = GrantStatus.ACTIVE
            grant.next_refresh_at = await _due_from_now(session, grant, now=now)
        else:
            await session.delete(grant)
            session.add_all(rows)
        if grant is not None and good:
            await record_event(
                session, grant.project_id, grant.id, GrantEventKind.CONFIRMED, at=now, actor=principal.name
            )
        elif grant is not None:
            data = {"reason": str(reason), "appId": grant.app_id}
            await record_event(session, grant.project_id, grant.id, GrantEventKind.DELETED, at=now, data=data)
        if grant is not None:
            outcome = "grant.confirmed" if good else "grant.confirmation_refused"
            await record_connect(session, request, outcome, data={"grantId": grant.id, "confirmedFor": user_id})
    await try_at_once(broker, first)
    if not good:
        raise _not_valid()


def _not_valid() -> NotFound:
    return NotFound("This confirmation is not valid for this user: let the user connect again.")


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
    """Delete requests that are over or abandoned, and return how many; the grants that nobody confirmed go before."""
    over = AuthorizationRequest.expires_at <= now - timedelta(hours=1)
    pending = exists().where(
        Grant.project_id == AuthorizationRequest.project_id,
        Grant.id == AuthorizationRequest.grant_id,
        Grant.status == GrantStatus.PENDING,
    )
    async with broker.database.read() as session:
        projects = list(await session.scalars(select(AuthorizationRequest.project_id).where(over, pending).distinct()))
    for project_id in projects:
        abandoned = select(AuthorizationRequest.grant_id).where(AuthorizationRequest.project_id == project_id, over)
        which = (Grant.status == GrantStatus.PENDING, Grant.id.in_(abandoned))
        try:
            await delete_grants(broker, project_id, *which, reason=RevocationReason.UNCONFIRMED, now=now)
        except Unavailable:
            raise
        except Exception:
            log.exception("connections that nobody confirmed cannot be deleted", extra={"project": project_id})
    async with broker.database.write() as session:
        await session.execute(delete(BrowserLogin).where(BrowserLogin.expires_at <= now - timedelta(hours=1)))
        gone = await session.execute(
            delete(AuthorizationRequest).where(over, ~pending).execution_options(synchronize_session=False)
        )
        return int(getattr(gone, "rowcount", 0))
