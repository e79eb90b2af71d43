"""Apps that register by themselves: at the first connect, and again when their registration ended or was forgotten.

A registration cannot be taken back, and tokens are bound to the client that got them. So one is made only when somebody
connects and there is none that counts, and what a browser brings never decides that one has ended.
"""

import asyncio
import logging
import secrets
from datetime import datetime
from typing import Any

from pydantic import SecretStr
from sqlalchemy import select, update

from evergrant import clock
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.destinations import destinations_of
from evergrant.broker.apps.health import clear_unhealthy
from evergrant.broker.apps.provider_client import callback_url, client_document_url, provider_client, secret_slot
from evergrant.broker.audit.record import record
from evergrant.broker.runtime.broker import Broker
from evergrant.db import AuthorizationRequest, OutboundApp
from evergrant.errors import (
    AppNotFound,
    NotFound,
    ReauthorizationRequired,
    Refusal,
    UpstreamRejected,
    UpstreamUnavailable,
)
from evergrant.oauth2 import token_endpoint
from evergrant.oauth2.dynamic_registration import RegisteredClient, metadata_document, register

log = logging.getLogger(__name__)

GONE_AT_AUTHORIZATION = frozenset({"invalid_client", "unauthorized_client"})
"""What a browser brings back from a server that may not, or no longer, know the client."""
ASK_SECONDS = 5.0
"""How long a connect waits for what the token endpoint says about our registration."""


def needs_registration(broker: Broker, app: OutboundApp, *, now: datetime) -> bool:
    """Tell whether the next connect registers: for the first time, for a new callback address, or after an end."""
    if not app.use_dcr:
        return False
    if not app.registered_redirect_uri:
        return not app.client_id
    ended = app.client_secret_expires_at is not None and app.client_secret_expires_at <= now
    return ended or app.registered_redirect_uri != callback_url(broker, app)


async def ensure_registered(broker: Broker, app: OutboundApp, *, now: datetime) -> OutboundApp:
    """Return the app with a client id that counts, registering where needed.

    Connects that come together share one registration in a process; between processes the first to store wins.

    Raises:
        UpstreamRejected: the server refuses to register us.
        UpstreamUnavailable: later.
    """
    key = (app.project_id, app.id)
    if not needs_registration(broker, app, now=now):
        if not await _may_be_forgotten(broker, app):
            return app
        await _ask_whether_known(broker, app)
        app, now = await load_app(broker, *key), clock.now()
        if not needs_registration(broker, app, now=now):
            return app
    # Shielded: the server has made a client by the time that a caller hangs up.
    await asyncio.shield(broker.registrations.start(key, lambda: _register(broker, key, now=now)))
    return await load_app(broker, *key)


async def _may_be_forgotten(broker: Broker, app: OutboundApp) -> bool:
    """Tell whether there is reason to ask: a browser left for the provider, and has not come back.

    A server that has forgotten us shows the person an error and sends nobody back, so nothing else would ever tell.
    Most browsers that are away only take their time, which is why each process asks about once a minute at most.
    """
    key = (app.project_id, app.id)
    if not app.registered_redirect_uri or broker.registration_checks.get(key):
        return False
    away = (
        select(AuthorizationRequest.id)
        .where(
            AuthorizationRequest.project_id == app.project_id,
            AuthorizationRequest.app_id == app.id,
            AuthorizationRequest.state_digest.is_not(None),
            AuthorizationRequest.finished_at.is_(None),
        )
        .limit(1)
    )
    async with broker.database.read() as session:
        if (await session.execute(away)).one_or_none() is None:
            return False
    broker.registration_checks.put(key, True)
    return True


async def _register(broker: Broker, key: tuple[str, str], *, now: datetime) -> None:
    app = await load_app(broker, *key)
    if not needs_registration(broker, app, now=now):
        return  # done between the caller's look and now
    redirect_uri = callback_url(broker, app)
    client = await _identity(broker, app, redirect_uri)
    # Sealing may write, so it comes before the transaction.
    sealed = await broker.vault.seal(secret_slot(app), client.client_secret) if client.client_secret else None
    async with broker.database.write() as session:
        current = await session.get(OutboundApp, key, with_for_update=True)
        if current is None or _what_counts(broker, current) != _what_counts(broker, app):
            log.info("a registration came second and was dropped", extra={"app": app.id, "project": app.project_id})
            return
        current.client_id = client.client_id
        current.client_secret = sealed
        current.client_secret_at = now if sealed is not None else None
        current.client_secret_expires_at = client.expires_at
        current.token_endpoint_auth_method = client.auth_method
        current.registered_redirect_uri = redirect_uri
        await clear_unhealthy(session, app.project_id, app.id, reason="registered")
        data = {"clientId": client.client_id, "redirectUri": redirect_uri, "again": bool(app.registered_redirect_uri)}
        await record(session, app.project_id, "app.registered", app_id=app.id, data=data)


def _what_counts(broker: Broker, app: OutboundApp) -> tuple[object, ...]:
    """Return what another replica or the operator may have changed since we asked, so that the answer is of no use."""
    destinations = destinations_of(broker.catalogue, app)
    return app.use_dcr, app.client_id, app.registered_redirect_uri, destinations


async def _identity(broker: Broker, app: OutboundApp, redirect_uri: str) -> RegisteredClient:
    """Choose the URL of our own metadata where the server reads it, as MCP's authorization does; else register."""
    document = client_document_url(broker, app)
    # A server that refused it could not read it, behind a firewall for example: then registering is left.
    if document and not (document == app.client_id and app.dcr_url):
        return RegisteredClient(document, None, None, "none")
    if not app.dcr_url:
        raise UpstreamRejected(
            f"{app.name} offers no registration any more. Register evergrant there yourself and enter clientId."
        )
    return await register(
        broker.http,
        app.dcr_url,
        redirect_uri=redirect_uri,
        client_name=app.name,
        scopes=app.default_scopes,
        auth_method=app.token_endpoint_auth_method,
    )


async def note_refusal(broker: Broker, app: OutboundApp, error: UpstreamRejected) -> UpstreamRejected:
    """Note that the token endpoint no longer knows our registration, and return the error for the operator.

    The next connect registers anew; a refresh never does, because a new client cannot use the old one's tokens.
    """
    if error.refusal is not Refusal.CLIENT_UNKNOWN or not app.registered_redirect_uri:
        return error
    statement = (
        update(OutboundApp)
        .where(
            OutboundApp.project_id == app.project_id,
            OutboundApp.id == app.id,
            OutboundApp.client_id == app.client_id,
            OutboundApp.registered_redirect_uri == app.registered_redirect_uri,
        )
        .values(client_secret_expires_at=clock.now())
        .execution_options(synchronize_session=False)
    )
    async with broker.database.write() as session:
        await session.execute(statement)
    log.warning("a server has forgotten our registration", extra={"app": app.id, "project": app.project_id})
    return error.reworded(
        f"{app.name} no longer knows the registration that evergrant made there. The next connect registers anew; "
        "a new registration cannot use the tokens of the old one, so each user must connect again.",
        UpstreamRejected,
    )


async def verify_registration(broker: Broker, app: OutboundApp, authorization_error: str) -> None:
    """Ask the server whether it knows us, when a browser says that it does not: browsers can be made to say that."""
    if authorization_error not in GONE_AT_AUTHORIZATION or not app.registered_redirect_uri:
        return
    await _ask_whether_known(broker, app)


async def _ask_whether_known(broker: Broker, app: OutboundApp) -> None:
    """Ask the token endpoint whether it knows our registration, and note it where it does not."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            await try_client(broker, app)
    except UpstreamRejected as error:
        await note_refusal(broker, app, error)
    except (UpstreamUnavailable, TimeoutError):
        log.info("could not ask whether a registration still counts", extra={"app": app.id})


async def try_client(broker: Broker, app: OutboundApp) -> None:
    """Show the app's client id and secret to the token endpoint, with a refresh token that nobody has issued.

    A server looks at the client first (RFC 6749 section 5.2), so that `invalid_grant` means: accepted.

    Raises:
        UpstreamRejected: `refusal` tells whether it is the client that was refused.
        UpstreamUnavailable: later.
    """
    provider = await provider_client(broker, app)
    try:
        await token_endpoint.refresh(
            broker.http,
            provider.server,
            provider.client,
            refresh_token=made_up_token(),
            granted=app.default_scopes,
            redirect_uri=callback_url(broker, app),
            quirks=provider.quirks,
        )
    except ReauthorizationRequired:
        return


def made_up_token() -> SecretStr:
    """Return a refresh token that nobody has issued, another one each time."""
    return SecretStr(f"evergrant-test-{secrets.token_urlsafe(24)}")


async def client_metadata(broker: Broker, project_id: str, app_id: str) -> dict[str, Any]:
    """Return the document at the URL that is an app's client id.

    Raises:
        NotFound: there is no such app, or its client id is another: neither tells more than the other.
    """
    try:
        app = await load_app(broker, project_id, app_id)
    except AppNotFound:
        raise NotFound from None
    if not app.use_dcr or app.client_id != client_document_url(broker, app):
        raise NotFound
    return metadata_document(
        client_id=app.client_id,
        client_name=app.name,
        redirect_uri=callback_url(broker, app),
        logo_uri=app.logo if app.logo.startswith("https://") else "",
    )
