"""The one critical section: `refresh_grant`, which the fetch call, the sweep and everybody else go through.

Refresh tokens rotate. One that is sent twice, or whose answer is dropped, can cost the user's consent. So:

1. One task per grant in this process; callers share it, and one that hangs up cancels only its own wait.
2. A lease on the row, by the database's clock, keeps processes apart. Who does not get it waits for the row to change.
3. Under the lease the row is read again: somebody may have been faster.
4. The provider is called with no database connection held, and the call ends before the lease does.
5. The answer is landed at once, on the condition that the lease is still ours, and again while the database is away.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from evergrant import clock
from evergrant.broker.apps import dynamic_registration, health
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.provider_client import ProviderClient, callback_url, provider_client
from evergrant.broker.apps.quirks import quirks_of
from evergrant.broker.grants.grants import alive, load_grant, token_slot
from evergrant.broker.refresh import failures, lease
from evergrant.broker.refresh.landing import correct_lifetime, land
from evergrant.broker.refresh.lease import Lease, LeasedGrant
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.endpoints import Endpoint
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.errors import (
    ReauthorizationRequired,
    UpstreamRejected,
    UpstreamUnavailable,
)
from evergrant.oauth2 import follow_up, token_endpoint
from evergrant.oauth2.token_endpoint import CONNECT_AGAIN
from evergrant.oauth2.token_response import TokenResponse

log = logging.getLogger(__name__)

CALL_SECONDS = 30.0
"""The holder gives up here, whatever the transport does: well before its lease ends."""
CALL_MARGIN = 1.5
"""So many times that long the lease must still last when a call begins: it may have to wait for a slot."""
POLL_SECONDS = (0.05, 0.25)
"""How often who waits for another process looks at the row: at first, and later."""
NO_WAY_TO_REFRESH = "The access token has expired and the provider gave no refresh token: the user must connect again."
INTERRUPTED = (
    " It comes after an interrupted refresh: an earlier call ended without an answer that evergrant could read, and "
    "a new refresh token may have been lost with it."
)
DEAD = "grant.reauthorization_required"
"""What the audit log calls the end of a consent."""


@dataclass(frozen=True, slots=True)
class ClaimedGrant:
    """A grant whose lease the caller holds already, and its app: the background takes them in batches."""

    held: LeasedGrant
    app: OutboundApp


async def refresh_grant(
    broker: Broker, project_id: str, grant_id: str, *, seen_version: int, claim: ClaimedGrant | None = None
) -> Grant:
    """Return the grant with tokens newer than `seen_version`, refreshing it unless somebody else just did.

    Raises:
        ReauthorizationRequired: the consent is dead; it is recorded as such.
        UpstreamRejected: the provider refuses the app's registration; the grant is as before.
        UpstreamUnavailable: the provider failed; the grant is as before.
        TokenNotFound: the grant is gone.
    """
    if claim is not None and broker.refreshes.is_running((project_id, grant_id)):
        # Somebody in this process is already waiting for the very lease that we hold: let them have it.
        await lease.release(broker, project_id, grant_id, claim.held.lease)
        claim = None
    while True:
        flight = broker.refreshes.start(
            (project_id, grant_id),
            partial(_refresh, broker, project_id, grant_id, seen_version=seen_version, claim=claim),
        )
        grant = await asyncio.shield(flight)
        claim = None  # it was for the first flight only
        # A flight that set out for somebody who had seen an older version may have brought only what we have seen.
        if grant.token_version > seen_version:
            return grant


async def _refresh(
    broker: Broker, project_id: str, grant_id: str, *, seen_version: int, claim: ClaimedGrant | None
) -> Grant:
    key = (project_id, grant_id)
    held = claim.held if claim is not None else await lease.take(broker, *key, Lease.new())
    pause = POLL_SECONDS[0]
    if held is None:
        broker.metrics.lease_conflicts.inc()
    while held is None:
        grant = alive(await load_grant(broker, project_id, grant_id))
        if grant.token_version > seen_version:
            return grant
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, POLL_SECONDS[1])
        held = await lease.take(broker, *key, Lease.new())
    grant = held.grant
    if grant.token_version > seen_version or grant.status != GrantStatus.ACTIVE:
        await lease.release(broker, *key, held.lease)
        return alive(grant)
    if grant.refresh_token is None:
        await lease.update_leased(broker, failures.dead(held, NO_WAY_TO_REFRESH), audited_as=DEAD)
        raise ReauthorizationRequired(NO_WAY_TO_REFRESH, last_refresh_error=NO_WAY_TO_REFRESH)
    if held.wait_seconds > 0:
        await lease.release(broker, *key, held.lease)
        raise UpstreamUnavailable(grant.last_refresh_error or None, retry_after=max(1, round(held.wait_seconds + 0.5)))
    app = claim.app if claim is not None else await load_app(broker, project_id, grant.app_id)
    endpoint = broker.endpoints.at(quirks_of(broker, app, grant.details).fill(app.token_url))
    await _require_late_enough(broker, app, held)
    try:
        endpoint.require(app.name)
    except UpstreamUnavailable as error:
        if endpoint is broker.endpoints.of(app):
            await lease.release(broker, *key, held.lease)
        else:  # the background looks at the app's endpoint before it claims, and cannot see this one
            later = clock.utcnow() + timedelta(seconds=error.retry_after)
            await failures.write_note(broker, lease.releasing_update(held).values(next_refresh_at=later))
        raise
    with broker.metrics.refreshes_in_flight.track_inprogress():
        return await _call_and_land(broker, app, endpoint, held, fetched=claim is None)


async def _require_late_enough(broker: Broker, app: OutboundApp, held: LeasedGrant) -> None:
    """Check that a provider that gives no new token before the end of the old one would give one now.

    Raises:
        UpstreamUnavailable: with the seconds until then. The provider is not asked: it would call that an error.
    """
    grant = held.grant
    margin = quirks_of(broker, app, grant.details).refresh_margin
    if margin is None or grant.access_token is None or grant.fresh_until is None:
        return
    early = (grant.fresh_until - clock.utcnow()).total_seconds()
    if early > 0:
        await failures.write_note(broker, lease.releasing_update(held).values(next_refresh_at=grant.fresh_until))
        raise UpstreamUnavailable(
            f"{app.name} gives no new token earlier than {margin} s before the end of the current one.",
            retry_after=max(1, round(early + 0.5)),
        )


async def _call_and_land(
    broker: Broker, app: OutboundApp, endpoint: Endpoint, held: LeasedGrant, *, fetched: bool
) -> Grant:
    grant = held.grant
    outcome = "broken"
    try:
        provider, answer = await _call_provider(broker, app, endpoint, held)
        outcome = "refreshed"
    except ReauthorizationRequired as error:
        outcome = "reauthorization_required"
        return await _on_invalid_grant(broker, held, error)
    except UpstreamRejected as error:
        outcome = "rejected"
        told = await dynamic_registration.note_refusal(broker, app, error)
        await failures.note_rejected(broker, held, app, told)
        raise told from error
    except _LeaseLost:
        outcome = "lease_lost"
        current = alive(await load_grant(broker, grant.project_id, grant.id))
        if current.token_version > grant.token_version:
            return current
        raise UpstreamUnavailable("Another process is refreshing this connection.", retry_after=1) from None
    except UpstreamUnavailable as error:
        outcome = "in_doubt" if error.in_doubt else "unavailable"
        await failures.note_unavailable(broker, held, error)
        raise
    except Exception:
        await failures.note_broken(broker, held)
        raise
    finally:
        broker.metrics.refreshes.labels(grant.project_id, grant.app_id, outcome).inc()
        broker.metrics.breaker_is(endpoint.url, is_open=endpoint.is_open)
    usual = follow_up.with_usual_lifetime(answer, provider.quirks)
    landed = await land(broker, app, held, usual, fetched=fetched)
    if answer.expires_in is None:
        seconds = await follow_up.introspected(broker.http, provider.client, answer.access_token, provider.quirks)
        landed = landed if seconds is None else await correct_lifetime(broker, app, landed, seconds)
    if app.unhealthy_since is not None:
        await health.note_healthy(broker, app)
    return landed


class _LeaseLost(Exception):
    """The lease was over before the provider was called: somebody else may be calling it."""


async def _call_provider(
    broker: Broker, app: OutboundApp, endpoint: Endpoint, held: LeasedGrant
) -> tuple[ProviderClient, TokenResponse]:
    """Call the provider. No database connection is held meanwhile."""
    grant = held.grant
    assert grant.refresh_token is not None  # noqa: S101 - _refresh has looked; this tells the type checker
    provider = await provider_client(broker, app, grant.details)
    slot = token_slot(grant.project_id, grant.id, "refresh_token")
    refresh_token = await broker.vault.open(slot, grant.refresh_token)
    is_late = held.ends - time.monotonic() < CALL_SECONDS * CALL_MARGIN
    if is_late and await lease.renew(broker, grant.project_id, grant.id, held.lease) is None:
        raise _LeaseLost  # this process was slow or stood still: the token that it holds may be spent already
    try:
        async with endpoint.call(name=app.name), asyncio.timeout(CALL_SECONDS):
            return provider, await token_endpoint.refresh(
                broker.http,
                provider.server,
                provider.client,
                refresh_token=refresh_token,
                resources=grant.resources or ([app.resource] if app.resource else ()),
                granted=grant.scopes,
                redirect_uri=callback_url(broker, app),
                quirks=provider.quirks,
            )
    except TimeoutError:
        raise UpstreamUnavailable(f"{app.name} did not answer within {CALL_SECONDS:.0f} s.", in_doubt=True) from None


async def _on_invalid_grant(broker: Broker, held: LeasedGrant, error: ReauthorizationRequired) -> Grant:
    """Handle `invalid_grant`: if the stored token has moved meanwhile, it was only our copy that was spent."""
    grant = held.grant
    text = str(error.details.get("lastRefreshError") or error.message)
    if grant.interrupted_at is not None:
        text = f"{text.removesuffix(CONNECT_AGAIN)}{INTERRUPTED}{CONNECT_AGAIN}"
    still_ours = failures.dead(held, text).where(Grant.token_version == grant.token_version)
    dead = await lease.update_leased(broker, still_ours, audited_as=DEAD)
    if dead is not None:
        log.warning("a consent is dead", extra={"grant": grant.id, "app": grant.app_id, "project": grant.project_id})
        raise ReauthorizationRequired(text, last_refresh_error=text) from error
    return alive(await load_grant(broker, grant.project_id, grant.id))
