"""Outbound apps: their definition, its rules, and what the protocol floor needs of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from urllib.parse import urlsplit

from pydantic import SecretStr
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from evergrant.broker.app_definition import AUTH_METHODS, AppDefinition, check_definition
from evergrant.broker.projects import load_project
from evergrant.broker.runtime import Broker
from evergrant.crypto.opaque import new_id
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.db.types import database_now
from evergrant.errors import AlreadyExists, AppNotFound, MissingArgument
from evergrant.oauth2.discovery import discover
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata

CALLBACK_PATH = "/v1/outbound/oauth/callback"


@dataclass(frozen=True, slots=True)
class ProviderClient:
    """An app as the protocol floor sees it: the server, and us as its client, secret opened."""

    server: ServerMetadata
    client: ClientRegistration = field(repr=False)


async def create_app(broker: Broker, project_id: str, definition: AppDefinition, *, now: datetime) -> OutboundApp:
    """Create an app; a discovery URL fills the endpoints that are not given.

    Raises:
        MissingArgument, InvalidValue: a field is wrong, or the discovery URL does not answer; nothing is written.
        AlreadyExists: the id or the name is taken.
    """
    app = OutboundApp(project_id=project_id, id=definition.id or f"app-{new_id(16)}", created_at=now)
    await _apply(broker, app, definition, now=now)
    try:
        async with broker.database.write() as session:
            session.add(app)
    except IntegrityError:
        raise AlreadyExists("An app with this id or this name exists already.") from None
    return app


async def update_app(broker: Broker, project_id: str, definition: AppDefinition, *, now: datetime) -> OutboundApp:
    """Replace an app's definition. Its grants that waited for a correction are tried again at once.

    Raises:
        MissingArgument, InvalidValue: a field is wrong; nothing is written.
        AppNotFound: there is no such app.
        AlreadyExists: the name is taken by another app.
    """
    if not definition.id:
        raise MissingArgument.of(("id", "say which app to update"))
    app = await load_app(broker, project_id, definition.id)
    await _apply(broker, app, definition, now=now)
    app.unhealthy_since, app.unhealthy_reason = None, ""
    try:
        async with broker.database.write() as session:
            await session.merge(app)
            await session.execute(
                update(Grant)
                .where(
                    Grant.project_id == project_id,
                    Grant.app_id == app.id,
                    Grant.status == GrantStatus.ACTIVE,
                    Grant.refresh_failures > 0,
                )
                .values(refresh_not_before=None, refresh_failures=0, next_refresh_at=database_now())
            )
    except IntegrityError:
        raise AlreadyExists("Another app has this name already.") from None
    return app


async def delete_app(broker: Broker, project_id: str, app_id: str) -> None:
    """Delete an app and everything that was connected through it.

    Raises:
        AppNotFound: there is no such app.
    """
    statement = delete(OutboundApp).where(OutboundApp.project_id == project_id, OutboundApp.id == app_id)
    async with broker.database.write() as session:
        if not (await session.execute(statement.returning(OutboundApp.id))).all():
            raise AppNotFound


async def load_app(broker: Broker, project_id: str, app_id: str) -> OutboundApp:
    """Return an app.

    Raises:
        AppNotFound: there is none with this id.
    """
    async with broker.database.read() as session:
        app = await session.get(OutboundApp, (project_id, app_id))
    if app is None:
        raise AppNotFound
    return app


async def list_apps(broker: Broker, project_id: str, *, only: Sequence[str] = ()) -> list[OutboundApp]:
    """Return a project's apps by name; `only` these ids, if any are given."""
    query = select(OutboundApp).where(OutboundApp.project_id == project_id)
    if only:
        query = query.where(OutboundApp.id.in_(only))
    async with broker.database.read() as session:
        return list(await session.scalars(query.order_by(OutboundApp.name)))


def public_origin(broker: Broker, app: OutboundApp) -> str:
    """Return the origin under which browsers make this app's trips."""
    return f"https://{app.callback_domain}" if app.callback_domain else broker.settings.public_url


def callback_url(broker: Broker, app: OutboundApp) -> str:
    """Return the redirect URI to register with the provider."""
    return public_origin(broker, app) + CALLBACK_PATH


def server_of(app: OutboundApp) -> ServerMetadata:
    """Return the provider's metadata as the app records it."""
    return ServerMetadata(
        issuer=app.issuer,
        authorization_endpoint=app.authorization_url,
        token_endpoint=app.token_url,
        revocation_endpoint=app.revocation_url,
        userinfo_endpoint=app.userinfo_url,
        jwks_uri=app.jwks_url,
        authorization_response_iss_parameter_supported=app.iss_required,
    )


async def provider_client(broker: Broker, app: OutboundApp) -> ProviderClient:
    """Open the app's secret and return what a call to its token endpoint needs."""
    secret = None
    if app.client_secret is not None:
        secret = await broker.vault.open(secret_slot(app), app.client_secret)
    client = ClientRegistration(
        client_id=app.client_id,
        client_secret=secret,
        auth_method=app.token_endpoint_auth_method if secret is not None else "none",
        authorization_params=tuple((key, value) for key, value in app.authorization_url_params),
        token_params=tuple((key, value) for key, value in app.token_url_params),
        pkce=app.pkce,
        access_type=app.access_type,
        name=app.name,
    )
    return ProviderClient(server_of(app), client)


def secret_slot(app: OutboundApp) -> Slot:
    """Return the place that an app's client secret is sealed for."""
    return Slot(app.project_id, "outbound_apps", "client_secret", app.id)


async def _apply(broker: Broker, app: OutboundApp, new: AppDefinition, *, now: datetime) -> None:
    async with broker.database.read() as session:
        project = await load_project(session, app.project_id)
    check_definition(broker, project, new)
    found = await _discover(broker, app, new)
    app.name, app.description, app.logo = new.name, new.description, new.logo
    app.client_id = new.client_id
    app.discovery_url = new.discovery_url
    app.authorization_url = new.authorization_url or found.authorization_endpoint
    app.authorization_url_params = [list(pair) for pair in new.authorization_url_params]
    app.token_url = new.token_url or found.token_endpoint
    app.token_url_params = [list(pair) for pair in new.token_url_params]
    app.revocation_url = new.revocation_url or found.revocation_endpoint
    app.default_scopes = list(new.default_scopes)
    app.default_redirect_url = new.default_redirect_url
    app.callback_domain = new.callback_domain.lower()
    app.pkce, app.access_type, app.prompt = new.pkce, new.access_type, list(new.prompt)
    app.issuer = _first(new.issuer, found.issuer, app.issuer)
    app.userinfo_url = _first(new.userinfo_url, found.userinfo_endpoint, app.userinfo_url)
    app.jwks_url = _first(new.jwks_url, found.jwks_uri, app.jwks_url)
    app.iss_required = found.authorization_response_iss_parameter_supported
    app.token_endpoint_auth_method = (
        new.token_endpoint_auth_method or app.token_endpoint_auth_method or _auth_method(found)
    )
    if new.scope_descriptions is not None or app.scope_descriptions is None:
        app.scope_descriptions = dict(new.scope_descriptions or {})
    if new.skip_consent_page is not None or app.skip_consent_page is None:
        app.skip_consent_page = bool(new.skip_consent_page)
    if new.require_confirmation is not None or app.require_confirmation is None:
        app.require_confirmation = bool(new.require_confirmation)
    if new.client_secret is not None:
        app.client_secret = await _seal_secret(broker, app, new.client_secret)
    app.unhealthy_reason = app.unhealthy_reason or ""
    app.updated_at = now


async def _discover(broker: Broker, app: OutboundApp, new: AppDefinition) -> ServerMetadata:
    """Ask the provider only when there is something to learn: an edit must not depend on its being up."""
    if not new.discovery_url:
        return ServerMetadata()
    if new.discovery_url == app.discovery_url and new.authorization_url and new.token_url:
        return replace(server_of(app), token_endpoint_auth_methods_supported=())
    return await discover(broker.http, new.discovery_url)


def _first(given: str | None, discovered: str, stored: str | None) -> str:
    return given if given is not None else discovered or stored or ""


def _auth_method(server: ServerMetadata) -> str:
    """Choose how to authenticate: most providers take the secret in the body, whatever RFC 6749 2.3.1 recommends."""
    supported = server.token_endpoint_auth_methods_supported
    return next((method for method in AUTH_METHODS if method in supported), AUTH_METHODS[0])


async def _seal_secret(broker: Broker, app: OutboundApp, secret: SecretStr) -> Sealed | None:
    return await broker.vault.seal(secret_slot(app), secret) if secret.get_secret_value() else None


def missing_for_connect(app: OutboundApp) -> list[str]:
    """Return the fields, by their names on the wire, that must be filled before anybody can connect."""
    needed = {"clientId": app.client_id, "authorizationUrl": app.authorization_url, "tokenUrl": app.token_url}
    return [name for name, value in needed.items() if not value]


def token_host(app: OutboundApp) -> str:
    """Return the host of the token endpoint, for messages and logs."""
    return urlsplit(app.token_url).hostname or ""
