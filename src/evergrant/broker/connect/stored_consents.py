"""Storing a consent that has just been given: what the provider answered becomes a grant, and the trip an outcome."""

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import timedelta

from pydantic import SecretStr
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.broker.apps.destinations import digest_of
from evergrant.broker.apps.quirks import scope_words
from evergrant.broker.audit.record import actor
from evergrant.broker.connect.authorization_requests import (
    Authorization,
    check_not_moved,
    ends_with_its_test,
    needs_confirmation,
    outcome_slot,
    own_result,
    record_connect,
    with_params,
)
from evergrant.broker.connect.fresh_consent import FreshConsent
from evergrant.broker.grants.events import GrantEventKind, record_event
from evergrant.broker.grants.granted_scopes import GrantedScopes
from evergrant.broker.grants.grants import (
    SEALS_OF_ANSWER,
    Consent,
    ResourceOwner,
    SealedTokens,
    lock_app,
    owner_key,
    owner_problems,
    save_tokens,
    seal_answer,
)
from evergrant.broker.grants.renewal import find_renewable, renew_grant
from evergrant.broker.grants.replacing import Replacement, until_as_read
from evergrant.broker.refresh.until_stored import until_stored
from evergrant.broker.revocations.replaced import prepare_replacement
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.vault import Sealer
from evergrant.crypto.opaque import digest, new_opaque
from evergrant.crypto.sealed import Sealed
from evergrant.db import AuthorizationRequest, Grant, GrantStatus, OutboundApp
from evergrant.errors import ConnectFailed
from evergrant.oauth2.quirks import Quirks
from evergrant.oauth2.scopes import Proofs

BROWSER_SECONDS = 300.0
"""How long a browser waits for a page, and so how long a consent is tried to be stored while the database is away."""
MOST_REFUSALS = 5
"""So often a database that is there may refuse it: about three seconds."""
RENEWAL_SECONDS = 15.0
"""How long a consent without a refresh token waits for a refresh of the earlier one that is under way."""
RENEWAL_PAUSE_SECONDS = 0.1
CONFIRMATION_LIFETIME = timedelta(minutes=15)
"""How long the application's backend may take to confirm who came back."""
SEALS_OF_CONSENT = SEALS_OF_ANSWER + 1
"""So many secrets it has: those of the answer, and the outcome."""


@dataclass(frozen=True)
class _Ending:
    """Where the browser goes when all is well, also sealed; with the confirmation in it, where the app wants one."""

    location: str
    sealed: Sealed
    confirmation: str


def _ending(authorization: Authorization, sealer: Sealer) -> _Ending:
    request, app = authorization.request, authorization.app
    wanted = needs_confirmation(authorization) and not ends_with_its_test(request)
    confirmation = new_opaque() if wanted else ""
    extra = {"confirmation": confirmation} if confirmation else {}
    back = {"outboundAppId": app.id, "outboundStatus": "connected", **extra}
    location = with_params(request.redirect_url, back) or own_result(request)
    return _Ending(location, sealer.seal(outcome_slot(request), SecretStr(location)), confirmation)


async def store_consent(
    broker: Broker, authorization: Authorization, fresh: FreshConsent, quirks: Quirks, sealer: Sealer
) -> str:
    """Store the consent, however often that takes while the person waits, and return where the browser goes.

    There is no journal for this: who is at the browser can consent again, and is told to.
    """
    request, app, answer = authorization.request, authorization.app, fresh.tokens
    words, now = scope_words(broker, app, fresh.details), clock.now()
    owner = owner_key(app, ResourceOwner(request.user_id, request.tenant_id), request.external_identifier)
    ending = _ending(authorization, sealer)
    pending = needs_confirmation(authorization) or ends_with_its_test(request)

    def consent(*, renewed: bool = False) -> Consent:
        proofs = Proofs(renewed or answer.refresh_token is not None, answer.id_token is not None)
        return Consent(
            owner=ResourceOwner(request.user_id, request.tenant_id),
            external_identifier=request.external_identifier,
            granted_by=request.granted_by,
            scopes=GrantedScopes.of(words, request.scopes, answer.scopes, proofs),
            subject=fresh.subject,
            resources=request.resources,
            details=fresh.details,
        )

    def sealed(grant_id: str, own: Sealer, *, earlier: Grant | None = None) -> SealedTokens:
        return seal_answer(own, owner, grant_id, answer, quirks=quirks, refreshed=earlier, now=now)

    async def replacement(grant_id: str, consent: Consent, tokens: SealedTokens) -> Replacement | None:
        new = Grant(project_id=app.project_id, id=grant_id, **{**consent.columns(app), **tokens.columns()})
        return await prepare_replacement(broker, app, new, now=now)

    @until_as_read
    async def renewed(refusals: int) -> str | None:
        """Go on with an earlier consent; None where there is none, or its refresh does not end."""
        _require_patience(refusals)
        give_up_at = time.monotonic() + RENEWAL_SECONDS
        while time.monotonic() < give_up_at:
            earlier = await find_renewable(broker, app, consent(renewed=True), words)
            if earlier is None:
                break
            again = await broker.vault.reserve(request.project_id, seals=SEALS_OF_ANSWER)
            tokens = sealed(earlier.id, again, earlier=earlier)
            kept = replace(tokens, refresh_token=earlier.refresh_token)
            replaced = await replacement(earlier.id, consent(renewed=True), kept)
            async with broker.database.write() as session:
                current = await _lock_offered_app(broker, session, authorization)
                grant = await renew_grant(
                    session,
                    earlier,
                    app=current,
                    consent=consent(renewed=True),
                    tokens=tokens,
                    replacement=replaced,
                    now=now,
                )
                if grant is not None:
                    return await _record_stored(session, authorization, grant, ending, renewed=True)
            await asyncio.sleep(RENEWAL_PAUSE_SECONDS)  # it is being refreshed: that ends soon, one way or the other
        return None

    grant_id = fresh.grant_id
    tokens = sealed(grant_id, sealer)

    @until_as_read
    async def stored(refusals: int) -> str:
        _require_patience(refusals)
        replaced = None if pending else await replacement(grant_id, consent(), tokens)
        async with broker.database.write() as session:
            current = await _lock_offered_app(broker, session, authorization)
            if await session.get(Grant, (request.project_id, grant_id)) is not None:
                return ending.location  # the database went away before it could say so
            grant = await save_tokens(
                session,
                grant_id=grant_id,
                app=current,
                consent=consent(),
                tokens=tokens,
                pending=pending,
                replacement=replaced,
                now=now,
            )
            return await _record_stored(session, authorization, grant, ending)

    try:
        async with asyncio.timeout(BROWSER_SECONDS):
            if answer.refresh_token is None and not pending:
                location = await until_stored(broker, renewed)
                if location is not None:
                    return location
            return await until_stored(broker, stored)
    except TimeoutError:
        raise ConnectFailed(
            "temporarily_unavailable", "evergrant could not store the connection. Start again."
        ) from None


def _require_patience(refusals: int) -> None:
    """Check that a database that is there has not refused a consent too often for somebody who waits.

    Raises:
        ConnectFailed: it has.
    """
    if refusals > MOST_REFUSALS:
        raise ConnectFailed("server_error", "evergrant could not finish the connection.")


async def _lock_offered_app(broker: Broker, session: AsyncSession, authorization: Authorization) -> OutboundApp:
    request, app = authorization.request, authorization.app
    current = await lock_app(session, request.project_id, app.id)
    check_not_moved(authorization, digest_of(broker.catalogue, current))
    if owner_problems(current, ResourceOwner(request.user_id, request.tenant_id)):
        raise ConnectFailed("access_denied", f"{app.name} is not available to this tenant any more.")
    return current


async def _record_connected(
    session: AsyncSession, request: AuthorizationRequest, grant: Grant, *, renewed: bool
) -> None:
    data: dict[str, object] = {
        "madeBy": request.made_by,
        "from": actor.get().remote_address,
        "scopes": len(grant.scopes),
        "pending": grant.status == GrantStatus.PENDING,
        "renewed": renewed,
    }
    await record_event(
        session,
        grant.project_id,
        grant.id,
        GrantEventKind.CONNECTED,
        at=grant.consented_at,
        actor=f"user:{request.granted_by or request.user_id}",
        data={name: value for name, value in data.items() if value},
    )


async def _record_stored(
    session: AsyncSession, authorization: Authorization, grant: Grant, ending: _Ending, *, renewed: bool = False
) -> str:
    """Note on the request what came of it, and return where the browser goes."""
    request = authorization.request
    await session.execute(
        update(AuthorizationRequest)
        .where(AuthorizationRequest.project_id == request.project_id, AuthorizationRequest.id == request.id)
        .values(
            grant_id=grant.id,
            code_verifier=None,
            outcome=ending.sealed,
            confirmation_digest=digest(ending.confirmation) if ending.confirmation else None,
            expires_at=grant.consented_at + CONFIRMATION_LIFETIME,
        )
    )
    data = {"grantId": grant.id, "scopes": grant.scopes, "pending": bool(ending.confirmation)}
    if renewed:  # the provider gave none, so that the earlier one goes on
        data["keptRefreshToken"] = True
    if grant.token_sub_problem:
        data["tokenSubProblem"] = grant.token_sub_problem
    await _record_connected(session, request, grant, renewed=renewed)
    await record_connect(session, request, "grant.connected", data=data)
    return ending.location
