"""What becomes of a claimed grant: it is refreshed, or put off if nobody wants that any more."""

import logging
from datetime import datetime

from evergrant.broker.grants.schedule import is_wanted, next_refresh, refreshed_at
from evergrant.broker.refresh import lease
from evergrant.broker.refresh.refresh import ClaimedGrant, refresh_grant
from evergrant.broker.runtime.broker import Broker
from evergrant.errors import EvergrantError

log = logging.getLogger(__name__)


async def refresh_claimed(broker: Broker, claim: ClaimedGrant, *, now: datetime) -> None:
    """Refresh one claimed grant, or put it off. Errors go to its row and the log, and stop nothing."""
    grant = claim.leased.grant
    try:
        await refresh_or_put_off(broker, claim, now=now)
    except EvergrantError as error:
        log.info("a refresh failed", extra={"grant": grant.id, "app": grant.app_id, "error": error.message})
    except Exception:
        log.exception("a refresh broke", extra={"grant": grant.id, "app": grant.app_id})


async def refresh_or_put_off(broker: Broker, claim: ClaimedGrant, *, now: datetime) -> bool:
    """Refresh one claimed grant and return True, or put it off and return False.

    Raises:
        EvergrantError: as `refresh_grant`.
    """
    leased, grant = claim.leased, claim.leased.grant
    if grant.restored_at is not None and claim.app.restored_pace == 0:
        await lease.release(broker, leased, next_refresh_at=None)  # the provider has refused another one since
        return False
    idle_after = broker.settings.idle_after
    if not is_wanted(claim.app, grant, used_at=leased.used_at, idle_after=idle_after, now=now):
        await _put_off(broker, claim, now=now)
        return False
    await refresh_grant(broker, grant.project_id, grant.id, seen_version=grant.token_version, claim=claim)
    return True


async def _put_off(broker: Broker, claim: ClaimedGrant, *, now: datetime) -> None:
    grant = claim.leased.grant
    later = next_refresh(
        claim.app,
        grant.fresh_until,
        used_at=claim.leased.used_at,
        refreshed_at=refreshed_at(grant),
        ends_at=grant.refresh_token_expires_at,
        idle_after=broker.settings.idle_after,
        now=now,
    )
    await lease.release(broker, claim.leased, next_refresh_at=later)
