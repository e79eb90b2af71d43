"""The second half of a connect trip: the provider's answer becomes a grant."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from pydantic import SecretStr
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.broker.apps import dynamic_registration
from evergrant.broker.apps.provider_client import ProviderClient, provider_client, with_details
from evergrant.broker.apps.quirks import scope_words
from evergrant.broker.apps.variables import Values, allowed_captures, details_of_user, require_variables, template_of
from evergrant.broker.connect.authorization_requests import (
    RESULT_PATH,
    Authorization,
    open_verifier,
    outcome_slot,
    record_connect,
    values_of,
    with_params,
)
from evergrant.broker.grants.granted_scopes import GrantedScopes
from evergrant.broker.grants.grants import (
    SEALS_OF_ANSWER,
    Consent,
    ResourceOwner,
    SealedTokens,
    lock_app,
    new_grant_id,
    owner_problems,
    save_tokens,
    seal_answer,
)
from evergrant.broker.grants.renewal import find_renewable, renew_grant
from evergrant.broker.refresh.until_stored import until_stored
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.vault import Sealer
from evergrant.crypto.opaque import digest, new_opaque
from evergrant.crypto.sealed import Sealed
from evergrant.db import AuthorizationRequest, Grant, OutboundApp
from evergrant.errors import ConnectFailed, EvergrantError, UpstreamError, UpstreamRejected
from evergrant.oauth2 import follow_up, token_endpoint
from evergrant.oauth2.authorization import AuthorizationResponse, check_issuer
from evergrant.oauth2.id_token import Subject, identify
from evergrant.oauth2.quirks import Quirks
from evergrant.oauth2.scopes import Proofs
from evergrant.oauth2.token_response import TokenResponse
from evergrant.oauth2.userinfo import fetch_userinfo_subject

log = logging.getLogger(__name__)

BROWSER_SECONDS = 300.0
"""How long a browser waits for a page, and so how long a consent is tried to be stored while the database is away."""
RENEWAL_SECONDS = 15.0
"""How long a consent without a refresh token waits for a refresh of the earlier one that is under way."""
RENEWAL_PAUSE_SECONDS = 0.1
CONFIRMATION_LIFETIME = timedelta(minutes=15)
"""How long the application's backend may take to confirm who came back."""


async def complete_connect(
    broker: Broker, authorization: Authorization, params: Mapping[str, str], *, path: str, now: datetime
) -> str:
    """Redeem the provider's answer, store the grant and the outcome, and return where the browser goes.

    `path` is that of the callback address to which the answer came.

    Raises:
        ConnectFailed: the provider or the user said no, or the answer is not what was asked for; no grant is stored.
    """
    request, app = authorization.request, authorization.app
    if request.expires_at <= now:
        raise ConnectFailed("expired", "The connection took too long. Start again.")
    if path != urlsplit(request.redirect_uri).path:
        # Mix-up: the answer is to another app's question (RFC 9700 section 4.4.2.2), or its provider ignores ours.
        raise ConnectFailed(
            "callback_mismatch",
            f"The answer came to another callback address than the one that was asked for. Register "
            f"{request.redirect_uri} at {app.name}, exactly so.",
        )
    provider = await provider_client(broker, app, values_of(request))
    response = AuthorizationResponse.parse(params, provider.quirks)
    check_issuer(response, provider.server, provider.quirks)
    if response.error:
        await dynamic_registration.verify_registration(broker, app, response.error)
        raise ConnectFailed(response.error, response.error_description or f"{app.name} refused the connection.")
    sealer = await broker.vault.reserve(request.project_id, seals=SEALS_OF_ANSWER + 1)  # and the outcome
    template = template_of(broker, app)
    details = {**details_of_user(template, app, values_of(request)), **allowed_captures(template, response.captured)}
    require_variables(template, details, "callback")
    provider = with_details(broker, app, provider, details)
    answer = await _redeem(broker, authorization, response, provider)
    details |= allowed_captures(template, answer.captured)
    require_variables(template, details, "token")
    provider = with_details(broker, app, provider, details)
    answer = await follow_up.with_lifetime(broker.http, provider.client, answer, provider.quirks)
    learnt = await follow_up.context(broker.http, provider.client, answer.access_token, provider.quirks)
    details |= allowed_captures(template, learnt)
    require_variables(template, details, "context")
    subject = await _subject(broker, authorization, provider, answer)
    return await _store_grant(broker, authorization, answer, subject, details, provider.quirks, sealer)


async def _redeem(
    broker: Broker, authorization: Authorization, response: AuthorizationResponse, provider: ProviderClient
) -> TokenResponse:
    request = authorization.request
    verifier = await open_verifier(broker, request)
    try:
        return await token_endpoint.exchange_code(
            broker.http,
            provider.server,
            provider.client,
            code=response.code,
            redirect_uri=request.redirect_uri,
            code_verifier=verifier,
            resources=request.resources,
            scopes=request.scopes,
            state=response.state,
            nonce=request.nonce,
            quirks=provider.quirks,
        )
    except UpstreamError as cause:
        error: UpstreamError = cause
        if isinstance(cause, UpstreamRejected):
            error = await dynamic_registration.note_refusal(broker, authorization.app, cause)
        log.warning("a code could not be redeemed", extra={"app": authorization.app.id, "error": error.message})
        code = "server_error" if isinstance(error, UpstreamRejected) else "temporarily_unavailable"
        raise ConnectFailed(error.provider_error or code, error.message) from cause


async def _subject(
    broker: Broker, authorization: Authorization, provider: ProviderClient, answer: TokenResponse
) -> Subject:
    """Return the user's id at the provider, from a verified id_token or else the userinfo call, or why it is not known.

    Raises:
        ConnectFailed: the id_token contradicts the trip.
    """
    app, found = authorization.app, Subject()
    if answer.id_token is not None:
        found = await identify(
            broker.http,
            provider.server,
            provider.client,
            answer.id_token,
            nonce=authorization.request.nonce or None,
            pkce=authorization.request.code_verifier is not None,
            now=clock.now(),
        )
    if not found.sub and app.userinfo_url:
        try:
            found = Subject(await fetch_userinfo_subject(broker.http, provider.server, answer.access_token))
        except EvergrantError as error:
            found = Subject(problem=f"{found.problem} {error.message}".strip())
    if found.problem:  # who the user is there is good to know, but the consent is real without it
        log.warning("it is not known who connected", extra={"app": app.id, "why": found.problem})
    return found


@dataclass(frozen=True)
class _Ending:
    """Where the browser goes when all is well, also sealed; with the confirmation in it, where the app wants one."""

    location: str
    sealed: Sealed
    confirmation: str


def _ending(authorization: Authorization, sealer: Sealer) -> _Ending:
    request, app = authorization.request, authorization.app
    confirmation = new_opaque() if app.require_confirmation else ""
    extra = {"confirmation": confirmation} if confirmation else {}
    back = {"outboundAppId": app.id, "outboundStatus": "connected", **extra}
    location = with_params(request.redirect_url, back) or RESULT_PATH
    return _Ending(location, sealer.seal(outcome_slot(request), SecretStr(location)), confirmation)


async def _store_grant(
    broker: Broker,
    authorization: Authorization,
    answer: TokenResponse,
    subject: Subject,
    details: Values,
    quirks: Quirks,
    sealer: Sealer,
) -> str:
    """Store the consent, however often that takes while the person waits, and return where the browser goes.

    There is no journal for this: who is at the browser can consent again, and is told to.
    """
    request, app = authorization.request, authorization.app
    words, now = scope_words(broker, app), clock.now()
    ending = _ending(authorization, sealer)

    def consent(*, renewed: bool = False) -> Consent:
        proofs = Proofs(renewed or answer.refresh_token is not None, answer.id_token is not None)
        return Consent(
            owner=ResourceOwner(request.user_id, request.tenant_id),
            external_identifier=request.external_identifier,
            granted_by=request.granted_by,
            scopes=GrantedScopes.of(words, request.scopes, answer.scopes, proofs),
            subject=subject,
            resources=request.resources,
            details=details,
        )

    def sealed(grant_id: str, own: Sealer, *, earlier: Grant | None = None) -> SealedTokens:
        return seal_answer(own, request.project_id, grant_id, answer, quirks=quirks, refreshed=earlier, now=now)

    async def renewed(_: int) -> str | None:
        """Go on with an earlier consent; None where there is none, or its refresh does not end."""
        give_up_at = time.monotonic() + RENEWAL_SECONDS
        while time.monotonic() < give_up_at:
            earlier = await find_renewable(broker, app, consent(renewed=True), words)
            if earlier is None:
                break
            again = await broker.vault.reserve(request.project_id, seals=SEALS_OF_ANSWER)
            tokens = sealed(earlier.id, again, earlier=earlier)
            async with broker.database.write() as session:
                current = await _lock_offered_app(session, authorization)
                grant = await renew_grant(
                    session, earlier, app=current, consent=consent(renewed=True), tokens=tokens, now=now
                )
                if grant is not None:
                    return await _record_stored(session, authorization, grant, ending, renewed=True)
            await asyncio.sleep(RENEWAL_PAUSE_SECONDS)  # it is being refreshed: that ends soon, one way or the other
        return None

    grant_id = new_grant_id()
    tokens = sealed(grant_id, sealer)

    async def stored(_: int) -> str:
        async with broker.database.write() as session:
            current = await _lock_offered_app(session, authorization)
            if await session.get(Grant, (request.project_id, grant_id)) is not None:
                return ending.location  # the database went away before it could say so
            grant = await save_tokens(
                session,
                grant_id=grant_id,
                app=current,
                consent=consent(),
                tokens=tokens,
                pending=app.require_confirmation,
                now=now,
            )
            return await _record_stored(session, authorization, grant, ending)

    try:
        async with asyncio.timeout(BROWSER_SECONDS):
            if answer.refresh_token is None and not app.require_confirmation:
                location = await until_stored(broker, renewed)
                if location is not None:
                    return location
            return await until_stored(broker, stored)
    except TimeoutError:
        raise ConnectFailed(
            "temporarily_unavailable", "evergrant could not store the connection. Start again."
        ) from None


async def _lock_offered_app(session: AsyncSession, authorization: Authorization) -> OutboundApp:
    request, app = authorization.request, authorization.app
    current = await lock_app(session, request.project_id, app.id)
    if owner_problems(current, ResourceOwner(request.user_id, request.tenant_id)):
        raise ConnectFailed("access_denied", f"{app.name} is not available to this tenant any more.")
    return current


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
    await record_connect(session, request, "grant.connected", data=data)
    return ending.location
