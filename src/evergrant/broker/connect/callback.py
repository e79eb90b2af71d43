"""The second half of a connect trip: the provider's answer becomes a grant, which the application may confirm."""

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.broker.apps import dynamic_registration
from evergrant.broker.apps.provider_client import ProviderClient, provider_client, with_details
from evergrant.broker.apps.quirks import scope_words
from evergrant.broker.apps.variables import Values, allowed_captures, details_of_user, require_variables, template_of
from evergrant.broker.connect.authorization_requests import (
    Authorization,
    finish_request,
    load_authorization,
    record_connect,
    record_connect_failure,
    verifier_slot,
    with_params,
)
from evergrant.broker.grants.granted_scopes import GrantedScopes
from evergrant.broker.grants.grants import (
    Consent,
    ResourceOwner,
    SealedTokens,
    lock_app,
    new_grant_id,
    owner_problems,
    replace_earlier,
    save_tokens,
    seal_answer,
)
from evergrant.broker.grants.renewal import find_renewable, renew_grant
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.crypto.opaque import digest, equal, new_opaque
from evergrant.db import AuthorizationRequest, Grant, GrantStatus, OutboundApp
from evergrant.errors import ConnectFailed, EvergrantError, NotFound, UpstreamError, UpstreamRejected
from evergrant.oauth2 import follow_up, token_endpoint
from evergrant.oauth2.authorization import AuthorizationResponse, CodeVerifier, check_issuer
from evergrant.oauth2.id_token import Subject, identify
from evergrant.oauth2.quirks import Quirks
from evergrant.oauth2.scopes import Proofs
from evergrant.oauth2.token_response import TokenResponse
from evergrant.oauth2.userinfo import fetch_userinfo_subject

log = logging.getLogger(__name__)

RENEWAL_SECONDS = 15.0
"""How long a consent without a refresh token waits for a refresh of the earlier one that is under way."""
RENEWAL_PAUSE_SECONDS = 0.1
CONFIRMATION_LIFETIME = timedelta(minutes=15)
"""How long the application's backend may take to confirm who came back."""


async def find_by_state(broker: Broker, state: str, *, browser: str, now: datetime) -> Authorization:
    """Return the authorization that a callback belongs to, and use its state up.

    Raises:
        ConnectFailed: the state is unknown, used or expired, or this is not the browser that left. Nothing is used up
            by somebody else's browser.
    """
    query = select(AuthorizationRequest).where(AuthorizationRequest.state_digest == digest(state))
    async with broker.database.read() as session:
        request = (await session.execute(query)).scalar_one_or_none() if state else None
    if request is None:
        raise ConnectFailed("invalid_state", "This answer belongs to no connection that was started here.")
    if request.browser_digest is None or not equal(request.browser_digest, digest(browser)):
        await record_connect_failure(broker, request, "browser_mismatch")
        raise ConnectFailed(
            "browser_mismatch",
            "The connection was started in another browser. Start again in this one, with cookies on.",
        )
    if await finish_request(broker, request, now=now) is None:
        raise ConnectFailed("state_used", "This answer was used already.")
    return await load_authorization(broker, request)


async def complete_connect(
    broker: Broker, authorization: Authorization, params: Mapping[str, str], *, path: str, now: datetime
) -> str:
    """Redeem the provider's answer, store the grant and return where the browser goes; empty for our own page.

    `path` is that of the callback address to which the answer came.

    Raises:
        ConnectFailed: the provider or the user said no, or the answer is not what was asked for; no grant is stored.
    """
    try:
        return await _redeem_and_store(broker, authorization, params, path=path, now=now)
    except EvergrantError as error:
        await record_connect_failure(
            broker, authorization.request, error.error if isinstance(error, ConnectFailed) else "server_error"
        )
        raise


async def _redeem_and_store(
    broker: Broker, authorization: Authorization, params: Mapping[str, str], *, path: str, now: datetime
) -> str:
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
    provider = await provider_client(broker, app, request.variables)
    response = AuthorizationResponse.parse(params, provider.quirks)
    check_issuer(response, provider.server, provider.quirks)
    if response.error:
        await dynamic_registration.verify_registration(broker, app, response.error)
        raise ConnectFailed(response.error, response.error_description or f"{app.name} refused the connection.")
    template = template_of(broker, app)
    details = {**details_of_user(template, app, request.variables), **allowed_captures(template, response.captured)}
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
    return await _store_grant(broker, authorization, answer, subject, details, provider.quirks)


async def _redeem(
    broker: Broker, authorization: Authorization, response: AuthorizationResponse, provider: ProviderClient
) -> TokenResponse:
    request = authorization.request
    verifier = None
    if request.code_verifier is not None:
        opened = await broker.vault.open(verifier_slot(request), request.code_verifier)
        verifier = CodeVerifier.from_secret(opened.get_secret_value())
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
            now=clock.utcnow(),
        )
    if not found.sub and app.userinfo_url:
        try:
            found = Subject(await fetch_userinfo_subject(broker.http, provider.server, answer.access_token))
        except EvergrantError as error:
            found = Subject(problem=f"{found.problem} {error.message}".strip())
    if found.problem:  # who the user is there is good to know, but the consent is real without it
        log.warning("it is not known who connected", extra={"app": app.id, "why": found.problem})
    return found


async def _store_grant(
    broker: Broker,
    authorization: Authorization,
    answer: TokenResponse,
    subject: Subject,
    details: Values,
    quirks: Quirks,
) -> str:
    request, app = authorization.request, authorization.app
    words, now = scope_words(broker, app), clock.utcnow()

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

    async def sealed(grant_id: str, *, earlier: Grant | None = None) -> SealedTokens:
        return await seal_answer(
            broker, request.project_id, grant_id, answer, quirks=quirks, refreshed=earlier, now=now
        )

    give_up_at = time.monotonic() + RENEWAL_SECONDS
    while answer.refresh_token is None and not app.require_confirmation and time.monotonic() < give_up_at:
        earlier = await find_renewable(broker, app, consent(renewed=True), words)
        if earlier is None:
            break
        tokens = await sealed(earlier.id, earlier=earlier)
        async with broker.database.write() as session:
            current = await _lock_offered_app(session, authorization)
            grant = await renew_grant(
                session, earlier, app=current, consent=consent(renewed=True), tokens=tokens, now=now
            )
            if grant is not None:
                return await _record_stored(session, authorization, grant, confirmation="", renewed=True)
        await asyncio.sleep(RENEWAL_PAUSE_SECONDS)  # it is being refreshed: that ends soon, one way or the other
    grant_id, confirmation = new_grant_id(), new_opaque() if app.require_confirmation else ""
    tokens = await sealed(grant_id)
    async with broker.database.write() as session:
        current = await _lock_offered_app(session, authorization)
        grant = await save_tokens(
            session,
            grant_id=grant_id,
            app=current,
            consent=consent(),
            tokens=tokens,
            pending=app.require_confirmation,
            now=now,
        )
        return await _record_stored(session, authorization, grant, confirmation=confirmation)


async def _lock_offered_app(session: AsyncSession, authorization: Authorization) -> OutboundApp:
    request, app = authorization.request, authorization.app
    current = await lock_app(session, request.project_id, app.id)
    if owner_problems(current, ResourceOwner(request.user_id, request.tenant_id)):
        raise ConnectFailed("access_denied", f"{app.name} is not available to this tenant any more.")
    return current


async def _record_stored(
    session: AsyncSession, authorization: Authorization, grant: Grant, *, confirmation: str, renewed: bool = False
) -> str:
    """Note on the request what came of it, and return where the browser goes."""
    request, app = authorization.request, authorization.app
    await session.execute(
        update(AuthorizationRequest)
        .where(AuthorizationRequest.project_id == request.project_id, AuthorizationRequest.id == request.id)
        .values(
            grant_id=grant.id,
            code_verifier=None,
            confirmation_digest=digest(confirmation) if confirmation else None,
            expires_at=grant.consented_at + CONFIRMATION_LIFETIME,
        )
    )
    data = {"grantId": grant.id, "scopes": grant.scopes, "pending": bool(confirmation)}
    if renewed:  # the provider gave none, so that the earlier one goes on
        data["keptRefreshToken"] = True
    if grant.token_sub_problem:
        data["tokenSubProblem"] = grant.token_sub_problem
    await record_connect(session, request, "grant.connected", data=data)
    extra = {"confirmation": confirmation} if confirmation else {}
    return with_params(request.redirect_url, {"outboundAppId": app.id, "outboundStatus": "connected", **extra})


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
        elif grant is not None and grant.status == GrantStatus.PENDING:
            await session.delete(grant)
        if request is not None and grant is not None:
            outcome = "grant.confirmed" if good else "grant.confirmation_refused"
            await record_connect(session, request, outcome, data={"grantId": grant.id, "confirmedFor": user_id})
    if not good:
        raise NotFound("This confirmation is not valid for this user: let the user connect again.")


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
