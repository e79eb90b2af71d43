"""Refreshes that failed: what is noted on the row, and when the next try may come."""

import logging
from datetime import timedelta

from sqlalchemy import delete, update

from evergrant import clock
from evergrant.broker.apps import health
from evergrant.broker.audit.record import record
from evergrant.broker.grants.events import GrantEventKind, record_event
from evergrant.broker.refresh import lease
from evergrant.broker.refresh.lease import FailedRefresh, LeasedGrant
from evergrant.broker.refresh.successor import find_successor
from evergrant.broker.runtime.backoff import doubling, jittered
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.webhooks.outbox import emit_reauthorization_required
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.db.types import database_now
from evergrant.errors import Trouble, Unavailable, UpstreamRejected, UpstreamUnavailable

log = logging.getLogger(__name__)

ON_DEMAND_PAUSE = (1.0, 5.0)
"""Seconds between two tries for waiting callers while the provider fails: at first, and at most."""
BACKGROUND_PAUSE = (5.0, 600.0)
"""The same for the background refresher."""
REJECTED_PAUSE = 1800.0
"""Seconds between background tries while the provider refuses: time alone seldom mends that."""
OUR_FAULT = "evergrant could not refresh this connection; its log says why. The consent is as it was."


async def end_grant(broker: Broker, leased: LeasedGrant, reason: str) -> bool:
    """End a consent that only the user can renew, and tell the audit log and webhooks; False if the row has moved on.

    Where another connection of the same owner answers for it, the row goes without a word to webhooks: nobody need act.

    Raises:
        Unavailable: the database is away; nothing is written.
    """
    statement = (
        lease.releasing_update(leased)
        .where(Grant.token_version == leased.grant.token_version)
        .values(
            status=GrantStatus.REAUTHORIZATION_REQUIRED,
            last_refresh_error=reason,
            refresh_failures=Grant.refresh_failures + 1,
            next_refresh_at=None,
        )
        .returning(Grant)
    )
    async with broker.database.write() as session:
        grant = (await session.execute(statement)).scalar_one_or_none()
        if grant is None:
            return False
        action, data = "grant.reauthorization_required", {"grantId": grant.id, "reason": reason}
        kind, happened = GrantEventKind.ENDED, {"error": reason}
        if (successor := await find_successor(broker, session, grant)) is not None:
            action, data = "grant.superseded", {**data, "supersededBy": successor.id}
            kind, happened = GrantEventKind.SUPERSEDED, {"error": reason, "by": successor.id}
            await session.execute(delete(Grant).where(Grant.project_id == grant.project_id, Grant.id == grant.id))
        else:
            await emit_reauthorization_required(session, grant)
        await record_event(session, grant.project_id, grant.id, kind, at=clock.now(), data=happened)
        await record(
            session,
            grant.project_id,
            action,
            app_id=grant.app_id,
            user_id=grant.user_id,
            tenant_id=grant.tenant_id,
            data=data,
        )
    broker.holder.put_down(leased.held)
    return True


def metric_outcome(error: UpstreamUnavailable) -> str:
    """Return what the metrics call it."""
    if error.in_doubt:
        return "in_doubt"
    return {Trouble.LIMIT: "limited", Trouble.OURS: "held_back"}.get(error.trouble, "unavailable")


async def follow_row(broker: Broker, leased: LeasedGrant) -> None:
    """Let a refused lease go where the row has moved on meanwhile, and have its newer tokens tried at once.

    The provider may have taken our copy for a theft and revoked them too. Then that is found out now, and not when the
    access token ends.
    """
    grant = leased.grant
    moved = (
        update(Grant)
        .where(
            Grant.project_id == grant.project_id,
            Grant.id == grant.id,
            Grant.token_version > grant.token_version,
            Grant.status == GrantStatus.ACTIVE,
            Grant.refresh_token.is_not(None),
        )
        .values(fresh_until=clock.now(), next_refresh_at=clock.now())
        .execution_options(synchronize_session=False)
    )
    async with broker.database.write() as session:
        await session.execute(moved)
    await lease.let_go(broker, leased)


async def note_unavailable(broker: Broker, leased: LeasedGrant, error: UpstreamUnavailable) -> None:
    """Note that the provider failed, and set in the error how long waiting callers shall wait.

    What the provider's limit or this process held back is no failure of the grant: it only comes again later.
    """
    grant = leased.grant
    if error.trouble is Trouble.OURS:
        later = clock.now() + timedelta(seconds=error.retry_after)
        await write_note(broker, leased, next_refresh_at=None if grant.next_refresh_at is None else later)
        return
    is_limit = error.trouble is Trouble.LIMIT
    times = broker.refusals.held_back(grant) if is_limit else grant.refresh_failures + 1
    on_demand = doubling(*ON_DEMAND_PAUSE, failures=times)
    background = doubling(*BACKGROUND_PAUSE, failures=times)
    if error.provider_retry_after is not None:
        on_demand = max(on_demand, error.provider_retry_after)
        background = max(background, error.provider_retry_after)
    next_try = clock.now() + timedelta(seconds=background)
    await write_note(
        broker,
        leased,
        failure=FailedRefresh(error.message, next_try),
        last_refresh_error=error.message,
        refresh_failures=grant.refresh_failures if is_limit else times,
        refresh_not_before=database_now(on_demand),
        next_refresh_at=next_try,
        interrupted_at=clock.now() if error.in_doubt else grant.interrupted_at,
    )
    error.retry_after = max(1, round(on_demand + 0.5))


async def note_broken(broker: Broker, leased: LeasedGrant) -> None:
    """Note an error of our own, a secret that does not open for example; the log has the reason.

    The background comes back later: what cannot be refreshed must not stay first in its queue.
    """
    failures = leased.grant.refresh_failures + 1
    next_try = clock.now() + timedelta(seconds=doubling(*BACKGROUND_PAUSE, failures=failures))
    await write_note(
        broker,
        leased,
        failure=FailedRefresh(OUR_FAULT, next_try),
        last_refresh_error=OUR_FAULT,
        refresh_failures=failures,
        next_refresh_at=next_try,
    )


async def note_rejected(broker: Broker, leased: LeasedGrant, app: OutboundApp, error: UpstreamRejected) -> None:
    """Note that the provider refuses the app: the grant is innocent, and only the operator can mend it."""
    await _wait_longer(broker, leased, error, app_refused=True)
    if await health.note_unhealthy(broker, app, error.message):
        log.error("a provider refuses an app's registration", extra={"app": app.id, "project": app.project_id})


async def note_refused(broker: Broker, leased: LeasedGrant, error: UpstreamRejected) -> None:
    """Note that the provider refuses this grant's refresh, for a reason that is not clear: the app is innocent."""
    grant = leased.grant
    await _wait_longer(broker, leased, error)
    log.warning(
        "a provider refuses a connection", extra={"grant": grant.id, "app": grant.app_id, "project": grant.project_id}
    )


async def _wait_longer(
    broker: Broker, leased: LeasedGrant, error: UpstreamRejected, *, app_refused: bool = False
) -> None:
    next_try = clock.now() + timedelta(seconds=jittered(REJECTED_PAUSE))
    await write_note(
        broker,
        leased,
        failure=FailedRefresh(error.message, next_try, app_refused),
        last_refresh_error=error.message,
        refresh_failures=leased.grant.refresh_failures + 1,
        refresh_not_before=database_now(ON_DEMAND_PAUSE[1]),
        next_refresh_at=next_try,
    )


async def write_note(
    broker: Broker, leased: LeasedGrant, *, failure: FailedRefresh | None = None, **values: object
) -> None:
    """Release the lease with these columns changed; as soon as the database takes it, if it does not now."""
    try:
        await lease.release(broker, leased, failure=failure, **values)
    except Unavailable as error:
        broker.database_health.note_away(error)
