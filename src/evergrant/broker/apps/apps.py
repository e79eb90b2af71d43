"""Outbound apps: create, change and find them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from pydantic import SecretStr
from pydantic.alias_generators import to_camel
from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.apps.callbacks import taken
from evergrant.broker.apps.definition import (
    NOT_AS_IDS,
    PLAIN_FIELDS,
    SECRET_FIELDS,
    AppDefinition,
    CompleteDefinition,
    check_definition,
)
from evergrant.broker.apps.destinations import (
    Move,
    check_key_follows,
    check_may_move,
    check_secret_follows,
    check_secret_is_no_key,
    moved_for_audit,
    moves,
)
from evergrant.broker.apps.health import clear_unhealthy
from evergrant.broker.apps.kind_rules import kind_problems
from evergrant.broker.apps.merge import NOTHING_DISCOVERED, merge
from evergrant.broker.apps.provider_client import client_document_url, secret_slot, server_of
from evergrant.broker.apps.replanning import plan_anew, try_failing_again
from evergrant.broker.apps.retirements import why_ended
from evergrant.broker.apps.variables import tidied
from evergrant.broker.audit.record import record
from evergrant.broker.grants.schedule import PROACTIVE
from evergrant.broker.projects.projects import load_project
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.crypto.opaque import new_id
from evergrant.crypto.sealed import Sealed
from evergrant.db import AccessPolicy, Grant, OutboundApp, Project
from evergrant.errors import (
    AlreadyExists,
    AppNotFound,
    CannotOpenSealed,
    ChangedMeanwhile,
    InvalidValue,
    MissingArgument,
)
from evergrant.oauth2.protected_resource import Discovered, discover_either


async def create_app(
    broker: Broker, project_id: str, definition: AppDefinition, *, callback_id: str = "", now: datetime
) -> OutboundApp:
    """Create an app; a discovery URL fills the endpoints that are not given.

    `callback_id` is what `callbacks.proposed_id` made of a proposal, where somebody was shown the address beforehand.

    Raises:
        MissingArgument, InvalidValue: a field is wrong, or the discovery URL does not answer; nothing is written.
        AlreadyExists: naming each field that is taken: the id, the name, the callback address.
    """
    if definition.id in NOT_AS_IDS:
        raise InvalidValue.of(("id", f"'{definition.id}' is a page of the console: choose another"))
    app = OutboundApp(
        project_id=project_id,
        id=definition.id or f"app-{new_id(16)}",
        callback_id=callback_id or new_id(),
        created_at=now,
    )
    definition = _with_tidy_variables(broker, "", definition)
    nothing = CompleteDefinition(id=app.id, name="")
    found = await _learn(broker, app, nothing, definition, now=now)
    merged = merge(nothing, definition, found)
    check_secret_is_no_key(broker.catalogue, merged.client_secret, merged)
    _apply(broker, app, merged, sealed=await _sealed_secrets(broker, app, definition), now=now)
    try:
        async with broker.database.write() as session:
            session.add(app)
            await record(session, project_id, "app.created", app_id=app.id, data={"name": app.name})
    except IntegrityError:
        raise await taken(broker, app) from None
    return app


async def update_app(
    broker: Broker,
    project_id: str,
    definition: AppDefinition,
    *,
    by: Principal | None,
    as_of: datetime | None = None,
    now: datetime,
) -> OutboundApp:
    """Replace an app's definition. Its grants that waited for a correction are tried again at once.

    `by` is the key that asks; None is somebody at the machine itself, who may do everything. `as_of` is the app's
    `updated_at` as whoever edited it saw it; None overwrites whatever there is.

    Raises:
        ChangedMeanwhile: somebody else has updated it since `as_of`; nothing is written.
        MissingArgument, InvalidValue: a field is wrong, or does not fit the connections that there are, or a stored
            secret would go where it did not go before; nothing is written.
        PermissionDenied: tokens of connections would, and the key may not have them, or policies keep some from it.
        AppNotFound: there is no such app.
        AlreadyExists: the name is taken by another app.
    """
    if not definition.id:
        raise MissingArgument.of(("id", "say which app to update"))
    draft = await load_app(broker, project_id, definition.id)
    definition = _with_tidy_variables(broker, draft.template_id, definition)
    found = await _learn(broker, draft, _as_stored(draft), definition, now=now)
    drafted = merge(_as_stored(draft), definition, found)
    check_secret_is_no_key(broker.catalogue, await _secret_after(broker, draft, drafted), drafted)
    sealed = await _sealed_secrets(broker, draft, definition)
    try:
        async with broker.database.write() as session:
            app = await _lock(session, project_id, definition.id)
            if as_of is not None and app.updated_at != as_of:
                raise ChangedMeanwhile
            stored, had = _as_stored(app), {name: getattr(app, name) for name in SECRET_FIELDS}
            merged = merge(stored, definition, found)
            moved = moves(broker.catalogue, stored, merged)
            if had["client_secret"] is not None and merged.client_secret is None:
                check_secret_follows(broker.catalogue, moved, stored, merged)
            if had["signing_key"] is not None and merged.signing_key is None:
                check_key_follows(moved)
            await _check_move(session, app, by, moved)
            _apply(broker, app, merged, sealed=sealed, now=now)
            changed = [name for name in PLAIN_FIELDS if getattr(merged, name) != getattr(stored, name)]
            changed += [name for name in SECRET_FIELDS if getattr(app, name) != had[name]]
            await _check_connections(session, app, stored)
            await clear_unhealthy(session, project_id, app.id, reason="updated")
            app.unhealthy_since, app.unhealthy_reason = None, ""
            data: dict[str, Any] = {"fields": sorted(to_camel(name) for name in changed)}
            if moved:
                data["moved"] = moved_for_audit(moved)
            await record(session, project_id, "app.updated", app_id=app.id, data=data)
    except IntegrityError:
        raise AlreadyExists.of(("name", "another app has this name already")) from None
    broker.endpoints.of(app).forgive()
    await try_failing_again(broker, app)
    if _refreshes_earlier(merged, stored):
        await plan_anew(broker, app)
    return app


async def _lock(session: AsyncSession, project_id: str, app_id: str) -> OutboundApp:
    """Return an app as it is now. Nobody changes it, and nobody stores a grant of it, until the transaction ends."""
    app = await session.get(OutboundApp, (project_id, app_id), with_for_update=True, populate_existing=True)
    if app is None:
        raise AppNotFound
    return app


def _refreshes_earlier(merged: CompleteDefinition, stored: CompleteDefinition) -> bool:
    """Tell whether grants may fall due earlier than planned. Too early is harmless: the sweep looks again."""
    idle, was_idle = merged.refresh_token_idle_seconds, stored.refresh_token_idle_seconds
    to_proactive = merged.refresh_policy == PROACTIVE and stored.refresh_policy != PROACTIVE
    return to_proactive or (idle > 0 and (was_idle == 0 or idle < was_idle))


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


async def _learn(
    broker: Broker, app: OutboundApp, stored: CompleteDefinition, new: AppDefinition, *, now: datetime
) -> Discovered:
    """Check `new`, and look up what it leaves out. Nothing is written to the database, nor to `app`."""
    async with broker.database.read() as session:
        project = await load_project(session, app.project_id)
    undiscovered = merge(stored, new)
    _check_new_definition(broker, project, stored, new, undiscovered, today=now.date())
    return await _discover(broker, app, new, use_dcr=undiscovered.use_dcr)


def preview_app(
    broker: Broker, project: Project, definition: AppDefinition, *, stored: OutboundApp | None, today: date
) -> CompleteDefinition:
    """Return the definition that an app would have, but for what its provider would tell. Nothing is asked or written.

    `stored` is the app that would be updated; None for one that would be created.

    Raises:
        MissingArgument, InvalidValue: a field is wrong.
    """
    if stored is None and definition.id in NOT_AS_IDS:
        raise InvalidValue.of(("id", f"'{definition.id}' is a page of the console: choose another"))
    before = CompleteDefinition(id=definition.id, name="") if stored is None else _as_stored(stored)
    new = _with_tidy_variables(broker, before.template_id, definition)
    merged = merge(before, new)
    _check_new_definition(broker, project, before, new, merged, today=today)
    return merged


def _apply(
    broker: Broker, app: OutboundApp, merged: CompleteDefinition, *, sealed: Mapping[str, Sealed | None], now: datetime
) -> None:
    """Set all of `app` by a definition; `sealed` are the secrets that the definition brings."""
    for name in PLAIN_FIELDS:
        setattr(app, name, getattr(merged, name))
    app.callback_id = app.callback_id or new_id()  # an older version that still runs beside this one gives none
    if app.use_dcr and not (app.client_id or app.dcr_url or client_document_url(broker, app)):
        raise InvalidValue.of(("useDcr", "the server offers no registration: register there and enter clientId"))
    if merged.client_secret is not None:
        app.client_secret = sealed["client_secret"] if merged.client_secret.get_secret_value() else None
        app.client_secret_at = now if app.client_secret is not None else None
    if merged.signing_key is not None:
        app.signing_key = sealed["signing_key"] if merged.signing_key.get_secret_value() else None
    app.updated_at = now


def _as_stored(app: OutboundApp) -> CompleteDefinition:
    return CompleteDefinition(**{name: getattr(app, name) for name in PLAIN_FIELDS})


def _check_new_definition(
    broker: Broker,
    project: Project,
    stored: CompleteDefinition,
    new: AppDefinition,
    undiscovered: CompleteDefinition,
    *,
    today: date,
) -> None:
    if new.template_id and new.template_id != stored.template_id:
        if new.template_id not in broker.catalogue:
            raise InvalidValue.of(("templateId", "there is no such template: GET templates lists them"))
        if ended := why_ended(broker.catalogue[new.template_id], today=today):
            raise InvalidValue.of(("templateId", ended))
    if new.own_callback is False and stored.own_callback:
        raise InvalidValue.of(("ownCallback", "an app that has a callback address of its own keeps it: leave it out"))
    template = broker.catalogue.get(undiscovered.template_id)
    # Of a template that is gone, what is stored may stay: it counts for nothing until the template is back.
    idle = template is None and undiscovered.variables == stored.variables
    check_definition(broker, project, replace(new, variables={} if idle else undiscovered.variables), template)
    if problems := kind_problems(new, undiscovered, template):
        raise InvalidValue.of(*problems)


async def _secret_after(broker: Broker, app: OutboundApp, merged: CompleteDefinition) -> SecretStr | None:
    """Return the secret that an app will have. One that cannot be opened is none: nobody can send it either."""
    if merged.client_secret is not None or app.client_secret is None:
        return merged.client_secret
    try:
        return await broker.vault.open(secret_slot(app), app.client_secret)
    except CannotOpenSealed:
        return None


async def _check_move(session: AsyncSession, app: OutboundApp, by: Principal | None, moved: list[Move]) -> None:
    """Check that a key moves no tokens that it may not have. The app is locked, as in `_check_connections`."""
    if moved and by is not None and (await session.execute(_one_grant_of(app))).first():
        fetching = select(AccessPolicy).where(
            AccessPolicy.project_id == app.project_id, AccessPolicy.app_id == app.id, AccessPolicy.action == "fetch"
        )
        check_may_move(by, app.id, moved, fetching=(await session.scalars(fetching)).all())


def _one_grant_of(app: OutboundApp) -> Select[str]:
    return select(Grant.id).where(Grant.project_id == app.project_id, Grant.app_id == app.id).limit(1)


async def _check_connections(session: AsyncSession, app: OutboundApp, stored: CompleteDefinition) -> None:
    """Check that an update leaves no connection behind that could not have been made under it.

    The app is locked, and who stores a grant locks it too, so the answer stays true.
    """
    of_this_app = _one_grant_of(app)
    if stored.app_type != app.app_type and (await session.execute(of_this_app)).first():
        raise InvalidValue.of(("appType", "cannot be changed while there are connections: delete them first"))
    others = of_this_app.where(Grant.tenant_id != app.tenant_id)
    if app.tenant_id and stored.tenant_id != app.tenant_id and (await session.execute(others)).first():
        raise InvalidValue.of(("tenantId", "there are connections of other tenants, or of none: delete them first"))


async def _discover(broker: Broker, app: OutboundApp, new: AppDefinition, *, use_dcr: bool) -> Discovered:
    """Ask the provider only when there is something to learn: an edit must not depend on its being up."""
    if not new.discovery_url:
        return NOTHING_DISCOVERED
    unchanged = new.discovery_url == app.discovery_url and use_dcr == app.use_dcr
    if unchanged and new.authorization_url and new.token_url:
        return Discovered(server_of(app))
    return await discover_either(broker.http, new.discovery_url, resource_first=use_dcr)


async def _sealed_secrets(broker: Broker, app: OutboundApp, new: AppDefinition) -> dict[str, Sealed | None]:
    """Seal the secrets that a definition brings. Not inside a transaction: sealing may write."""
    found: dict[str, Sealed | None] = dict.fromkeys(SECRET_FIELDS)
    for name in SECRET_FIELDS:
        secret: SecretStr | None = getattr(new, name)
        if secret is not None and secret.get_secret_value():
            found[name] = await broker.vault.seal(secret_slot(app, name), secret)
    return found


def _with_tidy_variables(broker: Broker, stored_template_id: str, new: AppDefinition) -> AppDefinition:
    if new.variables is None:
        return new
    template = broker.catalogue.get(stored_template_id if new.template_id is None else new.template_id)
    return replace(new, variables=tidied(template, new.variables))
