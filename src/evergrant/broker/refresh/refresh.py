"""The one critical section: `refresh_grant`, which the fetch call, the sweep and everybody else go through.

Refresh tokens rotate. One that is sent twice, or whose answer is dropped, can cost the user's consent. So:

1. One task per grant in this process; callers share it, and one that hangs up cancels only its own wait.
2. A lease on the row, by the database's clock, keeps processes apart. Who does not get it waits for the row to change.
   However a refresh ends, its lease is given back; one that has an answer in hand keeps it until the answer has landed.
3. Under the lease the row is read again: somebody may have been faster.
4. The provider is called with no database connection held, and the call ends before the lease does.
5. The answer is landed at once, on the condition that the row has not moved on, and again while the database is away.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from evergrant import clock
from evergrant.broker.apps import dynamic_registration, health
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.provider_client import provider_client
from evergrant.broker.apps.quirks import source_url
from evergrant.broker.grants.grants import SEALS_OF_ANSWER, alive, load_grant, owner_of, token_slot
from evergrant.broker.refresh import failures, lease, restored
from evergrant.broker.refresh.attempt import RefreshAttempt, send_refresh_token
from evergrant.broker.refresh.blame import Fault, whose_fault
from evergrant.broker.refresh.landing import AnswerInHand, ask_for_lifetime, land, take_in_hand
from evergrant.broker.refresh.lease import LeasedGrant
from evergrant.broker.refresh.replay import settle_waiting
from evergrant.broker.refresh.waiting import wait_for_turn
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.errors import (
    GrantRefused,
    ReauthorizationRequired,
    TooLateToSend,
    Unavailable,
    UpstreamRejected,
    UpstreamUnavailable,
)
from evergrant.oauth2.failures import app_refused, credentials_refused, grant_refused
from evergrant.oauth2.token_endpoint import CONNECT_AGAIN, consent_ended
from evergrant.oauth2.token_response import TokenResponse
from evergrant.tracing import Attributes, span

log = logging.getLogger(__name__)

CALL_MARGIN = 1.5
"""So many times as long as a call the lease must still last when one begins: it may have to wait for a slot."""
NO_WAY_TO_REFRESH = "The access token has expired and the provider gave no refresh token: the user must connect again."
COUNTED = {
    "refreshed": "ok",
    "unavailable": "retried",
    "in_doubt": "retried",
    "limited": "retried",
    "reauthorization_required": "ended",
    "refused": "refused",
    "rejected": "app_refused",
    "broken": "broken",
}
"""What the charts call an outcome. Where the provider was not asked, nothing is counted."""
INTERRUPTED = (
    " It comes after an interrupted refresh: an earlier call ended without an answer that evergrant could read, and "
    "a new refresh token may have been lost with it."
)


@dataclass(frozen=True, slots=True)
class ClaimedGrant:
    """A grant whose lease the caller holds already, and its app: the background takes them in batches."""

    leased: LeasedGrant
    app: OutboundApp


async def refresh_grant(
    broker: Broker,
    project_id: str,
    grant_id: str,
    *,
    seen_version: int,
    claim: ClaimedGrant | None = None,
    forced: bool = False,
) -> Grant:
    """Return the grant with tokens newer than `seen_version`, refreshing it unless somebody else just did.

    `forced` is for the timeline alone: somebody asked for it although the token was good.

    Raises:
        ReauthorizationRequired: the consent is dead; it is recorded as such.
        UpstreamRejected: the provider refuses the app, or (`GrantRefused`) this grant for now; it is as before.
        UpstreamUnavailable: the provider failed; the grant is as before.
        TokenNotFound: the grant is gone.
    """
    if claim is not None and broker.refreshes.is_running((project_id, grant_id)):
        # Somebody in this process is already waiting for the very lease that we hold: let them have it.
        await lease.release(broker, claim.leased)
        claim = None
    while True:
        flight = broker.refreshes.start(
            (project_id, grant_id),
            partial(_refresh, broker, project_id, grant_id, seen_version=seen_version, claim=claim, forced=forced),
        )
        grant = await asyncio.shield(flight)
        claim = None  # it was for the first flight only
        # A flight that set out for somebody who had seen an older version may have brought only what we have seen.
        if grant.token_version > seen_version:
            return grant


async def _refresh(
    broker: Broker, project_id: str, grant_id: str, *, seen_version: int, claim: ClaimedGrant | None, forced: bool
) -> Grant:
    leased = claim.leased if claim is not None else await lease.take(broker, project_id, grant_id)
    if leased is None:
        broker.metrics.lease_conflicts.inc()
        turn = await wait_for_turn(broker, project_id, grant_id, seen_version=seen_version)
        if isinstance(turn, Grant):
            return turn
        leased = turn
    app = claim.app if claim is not None else None
    why = "forced" if forced else "fetch" if app is None else "background"
    about: Attributes = {
        "evergrant.project": project_id,
        "evergrant.app": leased.grant.app_id,
        "evergrant.connection": grant_id,
        "evergrant.refresh.why": why,
    }
    try:
        with span("refresh", about):
            grant = await _refresh_leased(broker, leased, app, seen_version=seen_version, forced=forced)
    except Exception:
        await lease.let_go(broker, leased)
        raise
    if broker.holder.has_answer(leased.held):
        broker.holder.put_down(leased.held)  # it has landed, which gave the lease back
    else:
        await lease.let_go(broker, leased)
    return grant


async def _refresh_leased(
    broker: Broker, leased: LeasedGrant, app: OutboundApp | None, *, seen_version: int, forced: bool
) -> Grant:
    """Decide by the row whether the provider is called now, and call it; without an `app`, somebody is waiting."""
    grant = leased.grant
    if grant.token_version > seen_version or grant.status != GrantStatus.ACTIVE:
        await lease.release(broker, leased)
        return alive(grant)
    if grant.refresh_token is None:
        if await failures.end_grant(broker, leased, NO_WAY_TO_REFRESH):
            raise ReauthorizationRequired(NO_WAY_TO_REFRESH, last_refresh_error=NO_WAY_TO_REFRESH)
        await lease.let_go(broker, leased)
        return alive(await load_grant(broker, grant.project_id, grant.id))
    if leased.wait_seconds > 0:
        await lease.release(broker, leased)
        wait = max(1, round(leased.wait_seconds + 0.5))
        raise UpstreamUnavailable(grant.last_refresh_error or None, retry_after=wait)
    fetched = app is None
    why = "forced" if forced else "fetch" if fetched else "background"
    app = app or await load_app(broker, grant.project_id, grant.app_id)
    attempt = await _put_together(broker, leased, app, why=why)
    await _require_late_enough(broker, attempt)
    await _require_endpoint(broker, attempt)
    with broker.metrics.refreshes_in_flight.track_inprogress():
        return await _call_and_land(broker, attempt, fetched=fetched)


async def _put_together(broker: Broker, leased: LeasedGrant, app: OutboundApp, *, why: str) -> RefreshAttempt:
    """Put together once what every further step needs: the provider, with this connection's values filled in."""
    try:
        provider = await provider_client(broker, app, leased.grant.details)
    except Exception:
        await failures.note_broken(broker, leased)
        broker.metrics.refreshes.labels(app.project_id, app.id, "broken").inc()
        raise
    endpoint = broker.endpoints.at(source_url(app, provider.quirks))
    return RefreshAttempt(leased, app, provider, endpoint, why)


async def _require_late_enough(broker: Broker, attempt: RefreshAttempt) -> None:
    """Check that a provider that gives no new token before the end of the old one would give one now.

    Raises:
        UpstreamUnavailable: with the seconds until then. The provider is not asked: it would call that an error.
    """
    grant, margin = attempt.leased.grant, attempt.provider.quirks.refresh_margin
    if margin is None or grant.access_token is None or grant.fresh_until is None or grant.expires_at is None:
        return
    early = (grant.fresh_until - clock.now()).total_seconds()
    if early > 0:
        await failures.write_note(broker, attempt.leased, next_refresh_at=grant.fresh_until)
        raise UpstreamUnavailable(
            f"{attempt.app.name} gives no new token earlier than {margin} s before the end of the current one.",
            retry_after=max(1, round(early + 0.5)),
        )


async def _require_endpoint(broker: Broker, attempt: RefreshAttempt) -> None:
    """Check that the token endpoint may be called.

    Raises:
        UpstreamUnavailable: it is left alone, or lets the client ask no more for now; with the seconds until then.
    """
    try:
        attempt.endpoint.require(attempt.app.name, attempt.app.client_id)
    except UpstreamUnavailable as error:
        if attempt.endpoint is broker.endpoints.of(attempt.app):
            await lease.release(broker, attempt.leased)
        else:  # the background looks at the app's endpoint before it claims, and cannot see this one
            later = clock.now() + timedelta(seconds=error.retry_after)
            await failures.write_note(broker, attempt.leased, next_refresh_at=later)
        raise


async def _call_and_land(broker: Broker, attempt: RefreshAttempt, *, fetched: bool) -> Grant:
    grant, app, leased = attempt.leased.grant, attempt.app, attempt.leased
    if await _has_settled(broker, leased):
        return alive(await load_grant(broker, grant.project_id, grant.id))
    outcome = "broken"
    try:
        answer, in_hand = await _call_provider(broker, attempt, fetched=fetched)
        outcome = "refreshed"
    except ReauthorizationRequired as error:
        outcome = "reauthorization_required"
        return await _on_invalid_grant(broker, attempt, error)
    except UpstreamRejected as error:
        outcome = "rejected"
        fault = await whose_fault(broker, attempt, error)
        if fault is Fault.ENDED:
            outcome = "reauthorization_required"
            ended = consent_ended(f"{app.name}: {error.said}.", error.provider_error)
            return await _on_invalid_grant(broker, attempt, ended)
        if fault in (Fault.GRANT, Fault.CREDENTIALS):
            outcome = "refused"
            words = credentials_refused if fault is Fault.CREDENTIALS else grant_refused
            text = words(app.name, error.said) if error.said else error.message
            refusal = error.reworded(text, GrantRefused)
            await failures.note_refused(broker, leased, refusal)
            raise refusal from error
        blamed = error.reworded(app_refused(app.name, error.said), UpstreamRejected) if error.said else error
        rejection = await dynamic_registration.note_refusal(broker, app, blamed)
        await failures.note_rejected(broker, leased, app, rejection)
        raise rejection from error
    except _LeaseLost:
        outcome = "lease_lost"
        current = alive(await load_grant(broker, grant.project_id, grant.id))
        if current.token_version > grant.token_version:
            return current
        raise UpstreamUnavailable("Another process is refreshing this connection.", retry_after=1) from None
    except UpstreamUnavailable as error:
        outcome = failures.metric_outcome(error)
        await failures.note_unavailable(broker, leased, error)
        raise
    except Exception:
        await failures.note_broken(broker, leased)
        raise
    finally:
        broker.metrics.refreshes.labels(grant.project_id, grant.app_id, outcome).inc()
        if outcome in COUNTED:
            broker.activity.note(grant.project_id, grant.app_id, f"refresh:{COUNTED[outcome]}")
    was_restored = grant.restored_at is not None
    landed = await land(broker, attempt, in_hand)
    if was_restored:
        await restored.note_unspent(broker, app)
    if app.unhealthy_since is not None:
        try:
            await health.note_healthy(broker, app)
        except Exception:  # the token is there, and who waits for it gets it
            log.exception("could not note that an app is well again", extra={"app": app.id})
    return await ask_for_lifetime(broker, app, attempt.provider, answer, landed, used_at=attempt.leased.used_at)


async def _has_settled(broker: Broker, leased: LeasedGrant) -> bool:
    """Land an answer of an earlier call, where the journal has one, and then let go of the lease: it is what we want.

    Raises:
        Unavailable: there is one, and it cannot land now. What the row has is spent, so nobody else may have the lease.
    """
    try:
        settled = await settle_waiting(broker, leased.grant)
    except Unavailable:
        broker.holder.leave(leased.held)
        raise
    if settled:
        await lease.release(broker, leased)
    return settled


class _LeaseLost(Exception):
    """Before the provider was called, the lease was over or the row had newer tokens: somebody else was faster."""


async def _call_provider(
    broker: Broker, attempt: RefreshAttempt, *, fetched: bool
) -> tuple[TokenResponse, AnswerInHand]:
    """Send the refresh token to the provider, and take its answer in hand before anything else is done.

    What that takes is reserved before the call. No database connection is held meanwhile.
    """
    grant = attempt.leased.grant
    assert grant.refresh_token is not None  # noqa: S101 - _refresh_leased has looked; this tells the type checker
    slot = token_slot(owner_of(grant), grant.id, "refresh_token")
    refresh_token = await broker.vault.open(slot, grant.refresh_token)
    sealer = await broker.vault.reserve(grant.project_id, seals=SEALS_OF_ANSWER)
    if attempt.leased.ends - time.monotonic() < broker.pace.call * CALL_MARGIN:
        renewed = await lease.renew(broker, attempt.leased)
        if renewed is None or renewed.grant.token_version != grant.token_version:
            raise _LeaseLost  # this process was slow or stood still: the token that it holds may be spent already
        attempt = replace(attempt, leased=renewed)
    began = time.monotonic()
    try:
        answer = await send_refresh_token(broker, attempt, refresh_token)
    except TooLateToSend:  # it stood still since: the lease decides again whether it may call
        return await _call_provider(broker, attempt, fetched=fetched)
    seconds = time.monotonic() - began
    broker.holder.note_answer(attempt.leased.held)
    return answer, await take_in_hand(broker, attempt, answer, sealer, fetched=fetched, seconds=seconds)


async def _on_invalid_grant(broker: Broker, attempt: RefreshAttempt, error: ReauthorizationRequired) -> Grant:
    """End the consent, unless the stored token has moved meanwhile: then it was only our copy that was spent."""
    leased, grant = attempt.leased, attempt.leased.grant
    text = str(error.details.get("lastRefreshError") or error.message)
    if grant.interrupted_at is not None or grant.restored_at is not None:
        why = restored.RESTORED if grant.restored_at is not None else INTERRUPTED
        text = f"{text.removesuffix(CONNECT_AGAIN)}{why}{CONNECT_AGAIN}"
    if grant.restored_at is not None:
        await restored.note_spent(broker, attempt.app)
    if await failures.end_grant(broker, leased, text):
        log.warning("a consent is dead", extra={"grant": grant.id, "app": grant.app_id, "project": grant.project_id})
        raise ReauthorizationRequired(text, last_refresh_error=text) from error
    await failures.follow_row(broker, leased)
    return alive(await load_grant(broker, grant.project_id, grant.id))
