"""Steps for apps: made from a template or by their fields, changed in the fields that are named, deleted."""

from dataclasses import fields, replace
from datetime import date, datetime
from typing import Any

from evergrant.broker.apply.same_secret import is_the_same
from evergrant.broker.apply.step import PlanStep, all_new, change
from evergrant.broker.apply.wanted import WantedThing
from evergrant.broker.apps.apps import create_app, preview_app, update_app
from evergrant.broker.apps.definition import SECRET_FIELDS, AppDefinition, definition_as_stored
from evergrant.broker.apps.provider_client import secret_slot
from evergrant.broker.apps.templates import definition_of, find_template
from evergrant.broker.connections.deletion import count_connections, delete_app
from evergrant.broker.runtime.broker import Broker
from evergrant.db import OutboundApp, Project

_FOUND_BY_DISCOVERY = (
    *("authorization_url", "token_url", "revocation_url", "issuer", "userinfo_url", "jwks_url", "resource", "dcr_url"),
    "default_scopes",
)
_UNSAID: dict[str, Any] = {one.name: one.default for one in fields(AppDefinition)}


async def app_step(
    broker: Broker, project: Project, entry: WantedThing, stored: OutboundApp | None, *, today: date
) -> PlanStep | None:
    """Return what makes an app what is wanted; None when it is. `project` is as it will be.

    Raises:
        MissingArgument, InvalidValue: a field is wrong.
    """
    if stored is not None:
        return await _update_step(broker, project, entry, stored, today=today)
    template_id = entry.given.get("template_id")
    start = definition_of(find_template(broker.catalogue, template_id)) if template_id else AppDefinition(name="")
    definition = replace(start, **entry.given)
    preview_app(broker, project, definition, stored=None, today=today)

    async def create(now: datetime) -> str:
        await create_app(broker, project.id, definition, now=now)
        return ""

    changes = all_new(entry.given, but=["id"])
    return PlanStep(act="create", kind="app", name=definition.id, changes=changes, where=entry.where, do=create)


async def _update_step(
    broker: Broker, project: Project, entry: WantedThing, stored: OutboundApp, *, today: date
) -> PlanStep | None:
    given = entry.given
    definition = replace(definition_as_stored(stored), **given)
    if definition.discovery_url != stored.discovery_url:  # what the old address told is not true of the new one
        anew = {name: _UNSAID[name] for name in _FOUND_BY_DISCOVERY if name not in given}
        definition = replace(definition, **anew)
    merged = preview_app(broker, project, definition, stored=stored, today=today)
    changes = [
        change(name, getattr(merged, name), getattr(stored, name))
        for name in given
        if name not in SECRET_FIELDS and getattr(merged, name) != getattr(stored, name)
    ]
    for name in SECRET_FIELDS:
        place = secret_slot(stored, name)
        if name in given and not await is_the_same(broker, place, getattr(stored, name), given[name]):
            changes.append(change(name, None))
    if not changes:
        return None

    async def update(now: datetime) -> str:
        await update_app(broker, project.id, definition, by=None, as_of=stored.updated_at, now=now)
        return ""

    return PlanStep(act="update", kind="app", name=stored.id, changes=changes, where=entry.where, do=update)


async def app_deletion(broker: Broker, stored: OutboundApp) -> PlanStep:
    """Return the step that deletes an app, with how many connections end."""
    count, is_all = await count_connections(broker, stored.project_id, stored.id)

    async def delete(now: datetime) -> str:
        await delete_app(broker, stored.project_id, stored.id, by=None, now=now)
        return ""

    note = f"{count if is_all else f'more than {count}'} connections end and are revoked" if count else ""
    return PlanStep(act="delete", kind="app", name=stored.id, note=note, do=delete)


def app_id_of(entry: WantedThing) -> str:
    """Return the id of the app that an entry is about."""
    return str(entry.given["id"])
