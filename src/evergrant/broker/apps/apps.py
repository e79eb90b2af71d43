"""Outbound apps: making, changing and finding them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import SecretStr
from pydantic.alias_generators import to_camel
from sqlalchemy import Update, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.apps.definition import (
    AUTH_METHODS,
    AppDefinition,
    api_key_problems,
    check_definition,
    scope_problems,
    take_client,
)
from evergrant.broker.apps.health import clear_unhealthy
from evergrant.broker.apps.provider_client import client_document_url, secret_slot, server_of
from evergrant.broker.audit.record import record
from evergrant.broker.grants.schedule import PROACTIVE
from evergrant.broker.projects.projects import load_project
from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.opaque import new_id
from evergrant.crypto.sealed import Sealed
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.db.types import database_now
from evergrant.errors import AlreadyExists, AppNotFound, InvalidValue, MissingArgument
from evergrant.oauth2 import client_assertion
from evergrant.oauth2.protected_resource import Discovered, discover_either
from evergrant.oauth2.registration import ServerMetadata


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
            await record(session, project_id, "app.created", app_id=app.id, data={"name": app.name})
    except IntegrityError:
        raise AlreadyExists("An app with this id or this name exists already.") from None
    return app


async def update_app(broker: Broker, project_id: str, definition: AppDefinition, *, now: datetime) -> OutboundApp:
    """Replace an app's definition. Its grants that waited for a correction are tried again at once.

    Raises:
        MissingArgument, InvalidValue: a field is wrong, or does not fit the connections that there are; nothing is
            written.
        AppNotFound: there is no such app.
        AlreadyExists: the name is taken by another app.
    """
    if not definition.id:
        raise MissingArgument.of(("id", "say which app to update"))
    app = await load_app(broker, project_id, definition.id)
    before = _defined_values(app)
    await _apply(broker, app, definition, now=now)
    app.unhealthy_since, app.unhealthy_reason = None, ""
    try:
        async with broker.database.write() as session:
            await _check_connections(session, app)
            await clear_unhealthy(session, project_id, app.id, reason="updated")
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
            if _refreshes_more(app, before):
                await session.execute(_reschedule(app))
            changed = sorted(to_camel(name) for name, value in _defined_values(app).items() if value != before[name])
            await record(session, project_id, "app.updated", app_id=app.id, data={"fields": changed})
    except IntegrityError:
        raise AlreadyExists("Another app has this name already.") from None
    broker.endpoints.of(app).forgive()
    return app


def _refreshes_more(app: OutboundApp, before: Mapping[str, Any]) -> bool:
    """Tell whether grants may fall due earlier than planned. Too early is harmless: the sweep looks again."""
    idle, was_idle = app.refresh_token_idle_seconds, before["refresh_token_idle_seconds"]
    to_proactive = app.refresh_policy == PROACTIVE and before["refresh_policy"] != PROACTIVE
    return to_proactive or (idle > 0 and (was_idle == 0 or idle < was_idle))


def _reschedule(app: OutboundApp) -> Update:
    """Plan the refresh of every grant that can be refreshed for when its access token is no longer fresh."""
    fresh_until = func.coalesce(Grant.fresh_until, database_now())
    return (
        update(Grant)
        .where(
            Grant.project_id == app.project_id,
            Grant.app_id == app.id,
            Grant.status == GrantStatus.ACTIVE,
            Grant.refresh_token.is_not(None),
            Grant.refresh_failures == 0,
            or_(Grant.next_refresh_at.is_(None), Grant.next_refresh_at > fresh_until),
        )
        .values(next_refresh_at=fresh_until)
        .execution_options(synchronize_session=False)
    )


def _defined_values(app: OutboundApp) -> dict[str, Any]:
    """Return what an operator defines, by column: for telling what a change changed, never for its values."""
    own = {"project_id", "id", "created_at", "updated_at", "unhealthy_since", "unhealthy_reason"}
    names = {column.key for column in OutboundApp.__table__.columns} - own
    return {name: getattr(app, name) for name in names}


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


async def _apply(broker: Broker, app: OutboundApp, new: AppDefinition, *, now: datetime) -> None:
    async with broker.database.read() as session:
        project = await load_project(session, app.project_id)
    if new.template_id and new.template_id != app.template_id and new.template_id not in broker.catalogue:
        raise InvalidValue.of(("templateId", "there is no such template: GET templates lists them"))
    app.template_id = new.template_id if new.template_id is not None else app.template_id or ""
    template = broker.catalogue.get(app.template_id)
    stored = dict(app.variables or {})
    app.variables = {n: v for n, v in new.variables.items() if v} if new.variables is not None else stored
    # Of a template that is gone, what is stored may stay: it counts for nothing until the template is back.
    idle = template is None and app.variables == stored
    check_definition(broker, project, replace(new, variables={} if idle else app.variables), template)
    app.app_type = new.app_type or app.app_type or "oauth"
    app.tenant_id = new.tenant_id if new.tenant_id is not None else app.tenant_id or ""
    if app.app_type == "apikey":
        problems = api_key_problems(new)
        if problems:
            raise InvalidValue.of(*problems)
        app.client_secret = None
    new = replace(new, use_dcr=bool(app.use_dcr) if new.use_dcr is None else new.use_dcr)
    discovered = await _discover(broker, app, new)
    found, moved = discovered.server, new.discovery_url != app.discovery_url
    registration = found.registration_endpoint if new.use_dcr else ""
    kept = "" if moved or new.dcr_url is not None else app.dcr_url
    new = replace(
        new,
        token_url=new.token_url or found.token_endpoint,
        dcr_url=_first(new.dcr_url or None, registration, kept),
    )
    take_client(app, new)
    app.name, app.description, app.logo = new.name, new.description, new.logo
    app.discovery_url = new.discovery_url
    app.authorization_url = new.authorization_url or found.authorization_endpoint
    app.authorization_url_params = [list(pair) for pair in new.authorization_url_params]
    app.token_url = new.token_url
    app.token_url_params = [list(pair) for pair in new.token_url_params]
    app.revocation_url = new.revocation_url or found.revocation_endpoint
    # A resource knows which scopes it wants (RFC 9728); an authorization server's list is of all that there are.
    app.default_scopes = list(new.default_scopes or (s for s in discovered.scopes if not scope_problems("", [s])))
    app.default_redirect_url = new.default_redirect_url
    app.callback_domain = new.callback_domain.lower()
    app.pkce, app.access_type, app.prompt = new.pkce, new.access_type, list(new.prompt)
    app.issuer = _first(new.issuer, found.issuer, app.issuer)
    app.userinfo_url = _first(new.userinfo_url, found.userinfo_endpoint, app.userinfo_url)
    app.jwks_url = _first(new.jwks_url, found.jwks_uri, app.jwks_url)
    app.use_dcr, app.dcr_url = bool(new.use_dcr), new.dcr_url or ""
    app.resource = _first(new.resource, discovered.resource, "" if moved else app.resource)
    app.client_id_metadata = found.client_id_metadata_document_supported
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
    app.refresh_policy = new.refresh_policy or app.refresh_policy or PROACTIVE
    if new.refresh_token_idle_seconds is not None or app.refresh_token_idle_seconds is None:
        app.refresh_token_idle_seconds = new.refresh_token_idle_seconds or 0
    if new.client_secret is not None:
        app.client_secret = await _seal_secret(broker, app, new.client_secret)
    if app.use_dcr and not (app.client_id or app.dcr_url or client_document_url(broker, app)):
        raise InvalidValue.of(("useDcr", "the server offers no registration: register there and enter clientId"))
    app.unhealthy_reason = app.unhealthy_reason or ""
    app.updated_at = now


async def _check_connections(session: AsyncSession, app: OutboundApp) -> None:
    """Check that an update leaves no connection behind that could not have been made under it."""
    stored = (
        await session.execute(
            select(OutboundApp.app_type, OutboundApp.tenant_id)
            .where(OutboundApp.project_id == app.project_id, OutboundApp.id == app.id)
            .with_for_update()  # who stores a grant reads the row under a lock, so the answer stays true
        )
    ).one_or_none()
    if stored is None:
        raise AppNotFound
    of_this_app = select(Grant.id).where(Grant.project_id == app.project_id, Grant.app_id == app.id).limit(1)
    if stored.app_type != app.app_type and (await session.execute(of_this_app)).first():
        raise InvalidValue.of(("appType", "cannot be changed while there are connections: delete them first"))
    others = of_this_app.where(Grant.tenant_id != app.tenant_id)
    if app.tenant_id and stored.tenant_id != app.tenant_id and (await session.execute(others)).first():
        raise InvalidValue.of(("tenantId", "there are connections of other tenants, or of none: delete them first"))


async def _discover(broker: Broker, app: OutboundApp, new: AppDefinition) -> Discovered:
    """Ask the provider only when there is something to learn: an edit must not depend on its being up."""
    if not new.discovery_url:
        return Discovered(ServerMetadata())
    unchanged = new.discovery_url == app.discovery_url and new.use_dcr == bool(app.use_dcr)
    if unchanged and new.authorization_url and new.token_url:
        return Discovered(replace(server_of(app), token_endpoint_auth_methods_supported=()))
    return await discover_either(broker.http, new.discovery_url, resource_first=bool(new.use_dcr))


def _first(given: str | None, discovered: str, stored: str | None) -> str:
    return given if given is not None else discovered or stored or ""


def _auth_method(server: ServerMetadata) -> str:
    """Choose how to authenticate: most providers take the secret in the body, whatever RFC 6749 2.3.1 recommends.

    One that needs a key is never chosen: the operator has to give one.
    """
    supported = server.token_endpoint_auth_methods_supported
    usable = [method for method in AUTH_METHODS if method not in client_assertion.METHODS]
    return next((method for method in usable if method in supported), usable[0])


async def _seal_secret(broker: Broker, app: OutboundApp, secret: SecretStr) -> Sealed | None:
    return await broker.vault.seal(secret_slot(app), secret) if secret.get_secret_value() else None


def missing_for_connect(app: OutboundApp) -> list[str]:
    """Return the fields, by their names on the wire, that must be filled before anybody can connect."""
    known = app.client_id or app.use_dcr  # then evergrant gets the client id by itself
    needed = {"clientId": known, "authorizationUrl": app.authorization_url, "tokenUrl": app.token_url}
    return [name for name, value in needed.items() if not value]
