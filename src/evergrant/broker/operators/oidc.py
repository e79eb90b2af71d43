"""Operators who sign in at their own identity provider: OpenID Connect with code, PKCE, nonce, state and `iss`."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete

from evergrant import operator_rules
from evergrant.broker.audit.record import record
from evergrant.broker.operators.sessions import begin_session
from evergrant.broker.projects.projects import list_projects
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.opaque import derived, digest, new_opaque
from evergrant.db import ConsoleDeparture
from evergrant.errors import ConnectFailed, InvalidValue, NotFound, PermissionDenied, UpstreamUnavailable
from evergrant.oauth2.authorization import AuthorizationResponse, CodeVerifier, authorization_url, check_issuer
from evergrant.oauth2.discovery import discover
from evergrant.oauth2.provider_text import provider_text
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.sign_in import identity_of, sign_in_client
from evergrant.oauth2.token_endpoint import exchange_code

CALLBACK_PATH = "/console/oidc/callback"
TRIP = timedelta(minutes=10)
"""How long somebody may take at their provider."""
MAX_OPERATOR_LENGTH = 255

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Departure:
    """Where a browser goes, and what it keeps meanwhile."""

    url: str
    cookie: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """Somebody who has signed in."""

    cookie: str
    then: str
    """The console's page that was asked for."""


async def depart(broker: Broker, *, then: str, now: datetime) -> Departure:
    """Return the provider's address that signs somebody in.

    Raises:
        NotFound: no provider is set.
        UpstreamUnavailable: its metadata cannot be read.
    """
    server = await _server(broker)
    state, cookie = new_opaque(), new_opaque()
    row = ConsoleDeparture(
        state_digest=digest(state),
        browser_digest=digest(cookie),
        then=then[:2048],
        expires_at=now + TRIP,
    )
    async with broker.database.write() as session:
        await session.execute(delete(ConsoleDeparture).where(ConsoleDeparture.expires_at <= now))
        session.add(row)
    url = authorization_url(
        server,
        _client(broker, server),
        redirect_uri=_redirect_uri(broker),
        state=state,
        scopes=broker.settings.console_oidc_scopes.split(),
        code_verifier=_verifier(cookie),
        nonce=derived(cookie, "nonce"),
    )
    return Departure(url, cookie)


async def arrive(broker: Broker, params: Mapping[str, str], *, cookie: str, now: datetime) -> Arrival:
    """Begin the session of somebody who comes back from their provider.

    Raises:
        NotFound: no provider is set.
        ConnectFailed: the answer is not to a question of this browser's, or the provider or the person said no.
        PermissionDenied: it is somebody who may not be an operator.
        UpstreamError: the provider does not answer, or refuses the client.
    """
    server = await _server(broker)
    departure = await _departure(broker, params.get("state", ""), cookie, now=now)
    response = AuthorizationResponse.parse(params)
    check_issuer(response, server)
    if response.error:
        said = response.error_description or response.error
        raise ConnectFailed(response.error, f"Your provider did not sign you in. It says: \u201c{said}\u201d")
    tokens = await exchange_code(
        broker.http,
        server,
        _client(broker, server),
        code=response.code,
        redirect_uri=_redirect_uri(broker),
        code_verifier=_verifier(cookie),
    )
    client_id = broker.settings.console_oidc_client_id
    claims = await identity_of(broker.http, server, client_id, tokens, nonce=derived(cookie, "nonce"), now=now)
    operator = (operator_rules.verified_address(claims) or str(claims["sub"]))[:MAX_OPERATOR_LENGTH]
    if not operator_rules.is_allowed(broker.settings.console_oidc_allow, claims):
        await _refuse(broker, operator, claims)
    role = operator_rules.role_of(broker.settings.console_oidc_roles, claims)
    session = await begin_session(broker, operator=operator, way="oidc", role=role, now=now)
    return Arrival(session, departure.then)


async def _server(broker: Broker) -> ServerMetadata:
    """Return the provider's metadata, which is remembered for some minutes."""
    issuer = broker.settings.console_oidc_issuer
    if not issuer:
        raise NotFound
    server: ServerMetadata = await broker.operator_provider.get_or_read(issuer, lambda: _find_provider(broker, issuer))
    return server


async def _find_provider(broker: Broker, issuer: str) -> ServerMetadata:
    try:
        found = await discover(broker.http, issuer)
    except InvalidValue as error:
        log.warning("the operators' provider cannot be used", extra={"issuer": issuer, "why": error.message})
        raise UpstreamUnavailable("Your identity provider does not answer, or not as it should.") from None
    if not found.jwks_uri:
        log.warning("the operators' provider cannot be used", extra={"issuer": issuer, "why": "it has no jwks_uri"})
        raise UpstreamUnavailable("Your identity provider does not say where its keys are.")
    return found


def _client(broker: Broker, server: ServerMetadata) -> ClientRegistration:
    settings = broker.settings
    return sign_in_client(server, settings.console_oidc_client_id, settings.console_oidc_client_secret)


def _redirect_uri(broker: Broker) -> str:
    return broker.settings.public_url + CALLBACK_PATH


def _verifier(cookie: str) -> CodeVerifier:
    """Return the verifier that goes with a browser's cookie: whoever has only the database knows neither."""
    return CodeVerifier.from_secret(derived(cookie, "code_verifier"))


async def _departure(broker: Broker, state: str, cookie: str, *, now: datetime) -> ConsoleDeparture:
    """Use a departure up: it is good for one answer, in the browser that left."""
    statement = (
        delete(ConsoleDeparture)
        .where(
            ConsoleDeparture.state_digest == digest(state),
            ConsoleDeparture.browser_digest == digest(cookie),
            ConsoleDeparture.expires_at > now,
        )
        .returning(ConsoleDeparture)
    )
    async with broker.database.write() as session:
        found = (await session.execute(statement)).scalar_one_or_none()
    if found is None:
        raise ConnectFailed(
            "invalid_state",
            "This answer is not for this browser, was used already, or took longer than 10 minutes. Sign in again.",
        )
    return found


async def _refuse(broker: Broker, operator: str, claims: Mapping[str, Any]) -> None:
    """Tell the log of somebody who may not come in, and the audit log once a minute: a provider may know everybody."""
    subject = provider_text(claims["sub"])
    log.warning("somebody may not sign in at the console", extra={"operator": operator, "subject": subject})
    if broker.limits.denials.allows("console.sign_in_refused"):
        for project in await list_projects(broker):
            async with broker.database.write() as session:
                await record(session, project.id, "console.sign_in_refused", data={"operator": operator})
    raise PermissionDenied(
        f"Your provider says that you are {operator}, who may not sign in at this console. Whoever runs it decides "
        "that in EVERGRANT_CONSOLE_OIDC_ALLOW."
    )
