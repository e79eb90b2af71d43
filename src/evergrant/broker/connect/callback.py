"""The second half of a connect trip: the provider's answer becomes a grant."""

import logging
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlsplit

from evergrant import clock
from evergrant.app_types import AppType
from evergrant.broker.apps import dynamic_registration
from evergrant.broker.apps.destinations import digest_of
from evergrant.broker.apps.provider_client import ProviderClient, provider_client, with_details
from evergrant.broker.apps.variables import allowed_captures, details_of_user, require_variables, template_of
from evergrant.broker.connect.authorization_requests import (
    Authorization,
    check_not_moved,
    open_verifier,
    values_of,
)
from evergrant.broker.connect.fresh_consent import FreshConsent, revoke_failed
from evergrant.broker.connect.installing import check_installed, failed_by, obtain_installation
from evergrant.broker.connect.stored_consents import SEALS_OF_CONSENT, store_consent
from evergrant.broker.connect.verification import require_proof
from evergrant.broker.grants.grants import new_grant_id
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.vault import Sealer
from evergrant.errors import ConnectFailed, EvergrantError, UpstreamError, UpstreamRejected
from evergrant.oauth2 import follow_up, token_endpoint
from evergrant.oauth2.authorization import AuthorizationResponse, check_issuer
from evergrant.oauth2.id_token import Subject, identify
from evergrant.oauth2.token_response import TokenResponse
from evergrant.oauth2.userinfo import fetch_account

log = logging.getLogger(__name__)


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
    await require_proof(broker, authorization, browser=request.browser_digest)
    if path != urlsplit(request.redirect_uri).path:
        # Mix-up: the answer is to another app's question (RFC 9700 section 4.4.2.2), or its provider ignores ours.
        raise ConnectFailed(
            "callback_mismatch",
            f"The answer came to another callback address than the one that was asked for. Register "
            f"{request.redirect_uri} at {app.name}, exactly so.",
        )
    check_not_moved(authorization, digest_of(broker.catalogue, app))
    provider = await provider_client(broker, app, values_of(request))
    response = AuthorizationResponse.parse(params, provider.quirks)
    if app.app_type == AppType.INSTALLATION:
        check_installed(app, response, provider.quirks)
    check_issuer(response, provider.server, provider.quirks)
    if response.error:
        await dynamic_registration.verify_registration(broker, app, response.error)
        raise ConnectFailed(response.error, response.error_description or f"{app.name} refused the connection.")
    sealer = await broker.vault.reserve(request.project_id, seals=SEALS_OF_CONSENT)
    template = template_of(broker, app)
    details = {**details_of_user(template, app, values_of(request)), **allowed_captures(template, response.captured)}
    require_variables(template, details, "callback")
    provider = with_details(broker, app, provider, details)
    fresh = FreshConsent(new_grant_id(), details)
    try:
        answer = await _redeem(broker, authorization, response, provider, fresh)
        if app.app_type == AppType.INSTALLATION:
            await obtain_installation(broker, authorization, provider, answer, fresh)
        return await _complete(broker, authorization, provider, fresh, answer, sealer)
    except Exception:
        await revoke_failed(broker, authorization, fresh)
        raise


async def _complete(
    broker: Broker,
    authorization: Authorization,
    provider: ProviderClient,
    fresh: FreshConsent,
    answer: TokenResponse,
    sealer: Sealer,
) -> str:
    """Find out what else is to be known about tokens that have just come, and store them.

    `answer` is what the code was redeemed for: it is that person's, whoever's the tokens are that are kept.
    """
    app = authorization.app
    template = template_of(broker, app)
    fresh.learn(allowed_captures(template, fresh.tokens.captured))
    require_variables(template, fresh.details, "token")
    provider = with_details(broker, app, provider, fresh.details)
    fresh.answer = await follow_up.with_lifetime(broker.http, provider.client, fresh.tokens, provider.quirks)
    learnt = await follow_up.context(broker.http, provider.client, fresh.tokens.access_token, provider.quirks)
    fresh.learn(allowed_captures(template, learnt))
    require_variables(template, fresh.details, "context")
    fresh.subject = await _subject(broker, authorization, provider, answer)
    fresh.details = {**fresh.subject.words, **fresh.details}
    return await store_consent(broker, authorization, fresh, provider.quirks, sealer)


async def _redeem(
    broker: Broker,
    authorization: Authorization,
    response: AuthorizationResponse,
    provider: ProviderClient,
    fresh: FreshConsent,
) -> TokenResponse:
    request = authorization.request
    verifier = await open_verifier(broker, request)
    try:
        fresh.answer = await token_endpoint.exchange_code(
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
            redeemed=fresh.take,
        )
    except UpstreamError as cause:
        error: UpstreamError = cause
        if isinstance(cause, UpstreamRejected):
            error = await dynamic_registration.note_refusal(broker, authorization.app, cause)
        log.warning("a code could not be redeemed", extra={"app": authorization.app.id, "error": error.message})
        raise failed_by(error) from cause
    return fresh.answer


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
            sub, words = await fetch_account(broker.http, provider.server, answer.access_token)
            found = Subject(sub, words=words)
        except EvergrantError as error:
            found = Subject(problem=f"{found.problem} {error.message}".strip())
    if found.problem:  # who the user is there is good to know, but the consent is real without it
        log.warning("it is not known who connected", extra={"app": app.id, "why": found.problem})
    return found
