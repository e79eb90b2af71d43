"""Deleting grants, batch by batch: here at once, and at the provider where it can (see `revocation`)."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, select, tuple_

from evergrant import clock
from evergrant.broker.apps.apps import load_app
from evergrant.broker.audit.record import actor, record
from evergrant.broker.grants.events import GrantEventKind, record_event
from evergrant.broker.revocations.revocation import (
    RevocationOutcome,
    RevocationReason,
    claim_at_once,
    prepare_revocations,
    try_at_once,
)
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.webhooks.outbox import EventType, about_grant, emit
from evergrant.db import Grant, GrantStatus, Revocation
from evergrant.errors import AppNotFound

BATCH = 200
IN_FLIGHT_SECONDS = 5.0
"""How long a deletion waits for a refresh in flight, whose answer would otherwise be nowhere and not be revoked."""
_POLL_SECONDS = 0.1


async def delete_grants(
    broker: Broker, project_id: str, *which: ColumnElement[bool], reason: RevocationReason, now: datetime
) -> dict[str, RevocationOutcome]:
    """Delete the grants, batch by batch, and return how far each one's revocation has got."""
    outcomes: dict[str, RevocationOutcome] = {}
    first: list[Revocation] = []
    deadline = asyncio.get_running_loop().time() + IN_FLIGHT_SECONDS
    while grants := await _read_batch(broker, project_id, which):
        if asyncio.get_running_loop().time() < deadline:
            idle = [grant for grant in grants if grant.lease_owner is None]
            if not idle:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            grants = idle
        rows = await _prepare_batch(broker, project_id, grants, reason=reason, now=now)
        chosen = claim_at_once(rows, now=now) if not first else []
        gone = await _delete_batch(broker, grants, rows, reason)
        first += [row for row in chosen if row.grant_id in gone]
        pending = {row.grant_id for row in rows}
        outcomes |= {
            one: RevocationOutcome.PENDING if one in pending else RevocationOutcome.UNSUPPORTED for one in gone
        }
    return outcomes | await try_at_once(broker, first)


async def _read_batch(broker: Broker, project_id: str, which: Sequence[ColumnElement[bool]]) -> list[Grant]:
    query = select(Grant).where(Grant.project_id == project_id, *which)
    async with broker.database.read() as session:
        # Those in nobody's hands first, so that one refresh in flight does not hold up the others.
        return list(await session.scalars(query.order_by(Grant.lease_owner.is_not(None), Grant.id).limit(BATCH)))


async def _prepare_batch(
    broker: Broker, project_id: str, grants: Sequence[Grant], *, reason: RevocationReason, now: datetime
) -> list[Revocation]:
    by_app: dict[str, list[Grant]] = {}
    for grant in grants:
        by_app.setdefault(grant.app_id, []).append(grant)
    rows: list[Revocation] = []
    for app_id, its in by_app.items():
        try:
            app = await load_app(broker, project_id, app_id)
        except AppNotFound:
            continue  # deleted meanwhile, with its grants
        rows += await prepare_revocations(broker, app, its, reason=reason, now=now)
    return rows


async def _delete_batch(
    broker: Broker, grants: Sequence[Grant], rows: Sequence[Revocation], reason: RevocationReason
) -> set[str]:
    """Delete the grants that are as they were read; the others hold newer tokens, and are read again."""
    as_read = tuple_(Grant.id, Grant.token_version).in_([(grant.id, grant.token_version) for grant in grants])
    project_id = grants[0].project_id
    async with broker.database.write() as session:
        statement = (
            delete(Grant)
            .where(Grant.project_id == project_id, as_read)
            .returning(Grant.id)
            .execution_options(synchronize_session=False)
        )
        gone = set(await session.scalars(statement))
        session.add_all(row for row in rows if row.grant_id in gone)
        await session.flush()
        # One that nobody has confirmed was never told of.
        told = [grant for grant in grants if grant.id in gone and grant.status != GrantStatus.PENDING]
        await emit(session, project_id, EventType.GRANT_REVOKED, *(about_grant(grant) for grant in told))
        who, now = actor.get().name, clock.now()
        for grant in grants:
            if grant.id in gone:
                happened = {"reason": str(reason), "appId": grant.app_id}
                await record_event(
                    session, project_id, grant.id, GrantEventKind.DELETED, at=now, actor=who, data=happened
                )
        for grant in grants:
            if grant.id in gone:
                data: dict[str, Any] = {"grantId": grant.id, "reason": reason, "scopes": grant.scopes}
                await record(
                    session,
                    project_id,
                    "token.deleted",
                    app_id=grant.app_id,
                    user_id=grant.user_id,
                    tenant_id=grant.tenant_id,
                    data=data,
                )
        return gone
