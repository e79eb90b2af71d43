"""Deleting connections: one, a user's, or those of an app."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, select

from evergrant.broker.access.policies import require_may_delete_with_app
from evergrant.broker.apps.apps import load_app
from evergrant.broker.audit.record import record
from evergrant.broker.revocations.deleting import delete_grants
from evergrant.broker.revocations.revocation import RevocationOutcome, RevocationReason
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.db import AccessPolicy, Grant, GrantDirectory, OutboundApp
from evergrant.errors import AppNotFound, MissingArgument, TokenNotFound

MOST_COUNTED = 100_000


async def delete_token(broker: Broker, principal: Principal, grant_id: str, *, now: datetime) -> RevocationOutcome:
    """Delete one connection, revoke it at the provider, and return how far the revocation has got.

    Raises:
        TokenNotFound: there is none with this id.
        PermissionDenied: the key is limited to other apps.
    """
    outcomes = await delete_tokens(broker, principal, [grant_id], now=now)
    if grant_id not in outcomes:
        raise TokenNotFound("There is no connection with this id.")
    return outcomes[grant_id]


async def delete_tokens(
    broker: Broker, principal: Principal, grant_ids: Sequence[str], *, now: datetime
) -> Mapping[str, RevocationOutcome]:
    """Do the same with several, and return the outcomes of those that there were.

    Raises:
        PermissionDenied: the key is limited to other apps than one of them; nothing is deleted.
    """
    which = Grant.id.in_(grant_ids)
    async with broker.database.read() as session:
        found = select(Grant.app_id).distinct().where(Grant.project_id == principal.project_id, which)
        app_ids = list(await session.scalars(found))
    for app_id in app_ids:
        principal.require_app(app_id)
    if not app_ids:
        return {}
    return await delete_grants(broker, principal.project_id, which, reason=RevocationReason.DELETED, now=now)


async def delete_user_tokens(broker: Broker, principal: Principal, *, app_id: str, user_id: str, now: datetime) -> None:
    """Delete users' connections, in whatever tenant: of one app, of one user, or of one user for one app.

    A tenant's own connections are nobody's in particular and stay. There may be none to delete.

    Raises:
        MissingArgument: neither is given.
        AppNotFound: there is no such app.
        PermissionDenied: the key is limited to other apps. Without an app, it deletes from those that it may use.
    """
    which: list[ColumnElement[bool]] = [Grant.user_id == user_id if user_id else Grant.user_id != ""]
    if app_id:
        principal.require_app(app_id)
        await load_app(broker, principal.project_id, app_id)
        which.append(Grant.app_id == app_id)
    elif not user_id:
        raise MissingArgument.of(("appId", "give appId, userId or both"))
    elif principal.app_ids:
        which.append(Grant.app_id.in_(principal.app_ids))
    await delete_grants(broker, principal.project_id, *which, reason=RevocationReason.DELETED, now=now)


async def count_connections(broker: Broker, project_id: str, app_id: str) -> tuple[int, bool]:
    """Return how many connections of an app a deletion would end, and whether these are all: it counts to 100,000."""
    of_this_app = (
        select(GrantDirectory.grant_id)  # its index alone answers
        .where(GrantDirectory.project_id == project_id, GrantDirectory.app_id == app_id)
        .limit(MOST_COUNTED + 1)
    )
    async with broker.database.read() as session:
        counted = await session.scalar(select(func.count()).select_from(of_this_app.subquery())) or 0
    return min(counted, MOST_COUNTED), counted <= MOST_COUNTED


async def delete_app(broker: Broker, project_id: str, app_id: str, *, by: Principal | None, now: datetime) -> None:
    """Delete an app and everything that was connected through it, which is revoked at the provider.

    `by` is the key that asks; None is somebody at the machine itself.

    Raises:
        AppNotFound: there is no such app.
        PermissionDenied: its policies would go with it, and the key may not remove them; nothing is deleted.
    """
    await load_app(broker, project_id, app_id)
    if by is not None:
        await require_may_delete_with_app(broker, by, app_id)
    mine = (OutboundApp.project_id == project_id, OutboundApp.id == app_id)
    deleted = 0
    while True:
        gone = await delete_grants(broker, project_id, Grant.app_id == app_id, reason=RevocationReason.DELETED, now=now)
        deleted += len(gone)
        async with broker.database.write() as session:
            # Under this lock nobody can store a connection, so that none goes with the app without being revoked.
            locked = await session.execute(select(OutboundApp.id).where(*mine).with_for_update())
            if locked.scalar_one_or_none() is None:
                raise AppNotFound
            left = select(Grant.id).where(Grant.project_id == project_id, Grant.app_id == app_id).limit(1)
            if (await session.execute(left)).first():
                continue
            policies = (AccessPolicy.project_id == project_id, AccessPolicy.app_id == app_id)
            await session.execute(delete(AccessPolicy).where(*policies))
            await session.execute(delete(OutboundApp).where(*mine))
            await record(session, project_id, "app.deleted", app_id=app_id, data={"connections": deleted})
            return
