"""Outbound apps: their definition, its rules, and what the protocol floor needs of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from urllib.parse import urlsplit

from pydantic import SecretStr
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from evergrant.broker.projects import check_redirect_url, load_project
from evergrant.broker.runtime import Broker
from evergrant.crypto.opaque import new_id
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.db import Grant, GrantStatus, OutboundApp, Project
from evergrant.db.types import database_now
from evergrant.errors import AlreadyExists, AppNotFound, InvalidValue, MissingArgument
from evergrant.oauth2.discovery import discover
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.transport import check_url

CALLBACK_PATH = "/v1/outbound/oauth/callback"
AUTH_METHODS = ("client_secret_post", "client_secret_basic", "none")
PROMPTS = ("none", "login", "consent", "select_account")
ACCESS_TYPES = ("offline", "online")
RESERVED_PARAMS = frozenset(
    {"client_id", "client_secret", "redirect_uri", "response_type", "state", "code", "code_challenge"}
    | {"code_challenge_method", "code_verifier", "grant_type", "refresh_token", "nonce", "scope"}
)
"""Parameters that the protocol sets itself; an app's extra ones may not stand in for them."""

Params = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class AppDefinition:
    """What an operator says about an app. Fields that may be None are kept on an update that leaves them out."""

    name: str
    id: str = ""
    description: str = ""
    logo: str = ""
    client_id: str = ""
    client_secret: SecretStr | None = None
    discovery_url: str = ""
    authorization_url: str = ""
    authorization_url_params: Params = ()
    token_url: str = ""
    token_url_params: Params = ()
    revocation_url: str = ""
    default_scopes: tuple[str, ...] = ()
    default_redirect_url: str = ""
    callback_domain: str = ""
    pkce: bool = True
    access_type: str = ""
    prompt: tuple[str, ...] = ()
    # ours
    issuer: str | None = None
    userinfo_url: str | None = None
    jwks_url: str | None = None
    token_endpoint_auth_method: str | None = None
    scope_descriptions: dict[str, str] | None = None
    skip_consent_page: bool | None = None
    require_confirmation: bool | None = None


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
        raise AlreadyExists(f"An app with the id '{app.id}' or the name '{app.name}' exists already.") from None
    return app


async def update_app(broker: Broker, project_id: str, definition: AppDefinition, *, now: datetime) -> OutboundApp:
    """Replace an app's definition. Its grants that waited for a correction are tried again at once.

    Raises:
        MissingArgument, InvalidValue: a field is wrong; nothing is written.
        AppNotFound: there is no such app.
        AlreadyExists: the name is taken by another app.
    """
    if not definition.id:
        raise MissingArgument.of(("app.id", "say which app to update"))
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
        raise AlreadyExists(f"An app with the name '{app.name}' exists already.") from None
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
        raise AppNotFound(f"There is no outbound app '{app_id}' in this project.")
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
    _check(broker, project, new)
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


def _check(broker: Broker, project: Project, new: AppDefinition) -> None:
    """Raise one error that names every wrong field, or none."""
    if not new.name.strip():
        raise MissingArgument.of(("name", "give the app a name"))
    problems: list[tuple[str, str]] = []
    if len(new.name) > 200:
        problems.append(("name", "use at most 200 characters"))
    if new.id and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", new.id):
        problems.append(("id", "use letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit"))
    for name, url in (
        ("discoveryUrl", new.discovery_url),
        ("authorizationUrl", new.authorization_url),
        ("tokenUrl", new.token_url),
        ("revocationUrl", new.revocation_url),
        ("userinfoUrl", new.userinfo_url),
        ("jwksUrl", new.jwks_url),
    ):
        if url:
            try:
                check_url(url, what=name, egress_allow=broker.settings.egress_allow)
            except ValueError as error:
                problems.append((name, str(error)))
    if new.logo and not re.match(r"(https://[^\s]+|data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+)\Z", new.logo):
        problems.append(("logo", "use an https URL or a data:image URL (png, jpeg, gif, webp)"))
    if len(new.logo) > 100_000:
        problems.append(("logo", "use at most 100,000 characters; link to larger pictures"))
    if new.callback_domain and not re.fullmatch(r"(?i)[a-z0-9-]+(\.[a-z0-9-]+)+(:\d{1,5})?", new.callback_domain):
        problems.append(("callbackDomain", "use a host name like connect.example.com, without https://"))
    problems += _param_problems("authorizationUrlParams", new.authorization_url_params)
    problems += _param_problems("tokenUrlParams", new.token_url_params)
    if new.access_type and new.access_type not in ACCESS_TYPES:
        problems.append(("accessType", f"use one of {', '.join(ACCESS_TYPES)}"))
    problems += prompt_problems("prompt", new.prompt)
    if new.token_endpoint_auth_method and new.token_endpoint_auth_method not in AUTH_METHODS:
        problems.append(("tokenEndpointAuthMethod", f"use one of {', '.join(AUTH_METHODS)}"))
    problems += scope_problems("defaultScopes", new.default_scopes)
    if new.default_redirect_url:
        try:
            check_redirect_url(broker, project, new.default_redirect_url, field="defaultRedirectUrl")
        except InvalidValue as error:
            problems += [(e["field"], e["problem"]) for e in error.details["fields"]]
    if problems:
        raise InvalidValue.of(*problems)


def _param_problems(name: str, params: Params) -> list[tuple[str, str]]:
    return [
        (
            name,
            f"'{key}' is set by the protocol itself and cannot be given here" if key else "every key needs a name",
        )
        for key, _ in params
        if not key or key in RESERVED_PARAMS
    ]


def prompt_problems(name: str, prompt: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is wrong with `prompt` values (OpenID Connect Core 3.1.2.1)."""
    if any(value not in PROMPTS for value in prompt):
        return [(name, f"use values from {', '.join(PROMPTS)}")]
    if "none" in prompt and len(prompt) > 1:
        return [(name, "'none' cannot be combined with other values")]
    return []


def scope_problems(name: str, scopes: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is wrong with scope tokens (RFC 6749 section 3.3: visible ASCII but quote and backslash)."""
    bad = any(not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", scope) for scope in scopes)
    return [(name, "each scope is one word of visible ASCII, without spaces, quotes and backslashes")] if bad else []


def missing_for_connect(app: OutboundApp) -> list[str]:
    """Return the fields, by their names on the wire, that must be filled before anybody can connect."""
    needed = {"clientId": app.client_id, "authorizationUrl": app.authorization_url, "tokenUrl": app.token_url}
    return [name for name, value in needed.items() if not value]


def token_host(app: OutboundApp) -> str:
    """Return the host of the token endpoint, for messages and logs."""
    return urlsplit(app.token_url).hostname or ""
