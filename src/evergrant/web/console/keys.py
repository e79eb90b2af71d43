"""Management keys: listed, made and shown once, replaced, disabled, deleted."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.access import management_keys
from evergrant.broker.access.management_keys import KeyChange, NewKey
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.runtime.principal import Permission
from evergrant.crypto.opaque import id_for
from evergrant.db import ManagementKey, OutboundApp
from evergrant.errors import AlreadyExists, InvalidRequest, InvalidValue
from evergrant.web.console.desk import Desk, DeskDep
from evergrant.web.console.fields import checked_once, day_end, new_once, problems_of
from evergrant.web.console.key_words import PRESETS, WORDS, givable, state_of, successors, words_of
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.forms import Form, read_form

router = APIRouter(route_class=ConsoleRoute)

MOST_LISTED = 500
KeyId = Annotated[str, Path(max_length=22, pattern=r"^[A-Za-z0-9_-]+$")]


@router.get("/console/{project}/keys")
async def show_keys(desk: DeskDep) -> Response:
    """List the keys that this operator manages."""
    desk.require(Permission.KEYS)
    keys = await _all_keys(desk)
    new, now = successors(keys), clock.now()
    rows = [(key, state_of(key, new.get(key.id), now), words_of(key.permissions)) for key in reversed(keys)]
    rows.sort(key=lambda row: row[1].word in ("Disabled", "Expired"))
    return desk.page("keys.html", rows=rows, successors=new, is_cut=len(keys) >= MOST_LISTED)


@router.get("/console/{project}/keys/new")
async def show_new_key(desk: DeskDep, preset: Annotated[str, Query(max_length=20)] = "agent") -> Response:
    """Show the form for a new key."""
    desk.require(Permission.KEYS)
    chosen = next((one for one in PRESETS if one.part == preset), PRESETS[-1])
    return await _form_page(desk, Form([("permissions", name) for name in chosen.permissions]), preset=chosen.part)


@router.post("/console/{project}/keys/new")
async def make_key(desk: DeskDep) -> Response:
    """Make a key and show it, this once."""
    desk.require(Permission.KEYS)
    desk.require_recent()
    form = await read_form(desk.request)
    key_id, now = id_for(checked_once(form.text("once"))), clock.now()
    try:
        made = await _make(
            desk,
            key_id,
            name=_name(form),
            description=form.text("description"),
            permissions=form.all("permissions"),
            app_ids=form.all("apps"),
            networks=form.lines("networks"),
            expires_at=day_end("expires", form.text("expires"), after=now),
            now=now,
        )
    except AlreadyExists:
        return desk.go(desk.path("keys", key_id))
    except InvalidRequest as error:
        return await _form_page(desk, form, problems=problems_of(error))
    return await _made_page(desk, made)


@router.get("/console/{project}/keys/{key_id}")
async def show_key(desk: DeskDep, key_id: KeyId) -> Response:
    """Show one key."""
    desk.require(Permission.KEYS)
    return await _key_page(desk, await management_keys.load_key(desk.broker, desk.principal, key_id))


@router.post("/console/{project}/keys/{key_id}")
async def change_key(desk: DeskDep, key_id: KeyId) -> Response:
    """Change a key's name, description and networks."""
    desk.require(Permission.KEYS)
    desk.require_recent()
    form = await read_form(desk.request)
    key = await management_keys.load_key(desk.broker, desk.principal, key_id)
    try:
        change = KeyChange(
            name=_name(form),
            description=form.text("description"),
            allowed_cidrs=form.lines("networks"),
            disabled=key.disabled,
        )
        await management_keys.update_key(desk.broker, desk.principal, key_id, change)
    except InvalidRequest as error:
        return await _key_page(desk, key, form=form, problems=problems_of(error))
    return desk.go(desk.path("keys", key_id))


@router.get("/console/{project}/keys/{key_id}/replace")
async def ask_replace(desk: DeskDep, key_id: KeyId) -> Response:
    """Ask before another key takes this one's place."""
    desk.require(Permission.KEYS)
    key = await management_keys.load_key(desk.broker, desk.principal, key_id)
    return _replace_page(desk, key, Form([("name", key.name)]))


@router.post("/console/{project}/keys/{key_id}/replace")
async def replace_key(desk: DeskDep, key_id: KeyId) -> Response:
    """Make a key with the same rights, and show it, this once. The old one goes on until it is disabled."""
    desk.require(Permission.KEYS)
    desk.require_recent()
    form = await read_form(desk.request)
    old = await management_keys.load_key(desk.broker, desk.principal, key_id)
    new_id, now = id_for(checked_once(form.text("once"))), clock.now()
    try:
        made = await _make(
            desk,
            new_id,
            name=_name(form),
            description=old.description,
            permissions=old.permissions,
            app_ids=old.app_ids,
            networks=old.allowed_cidrs,
            expires_at=day_end("expires", form.text("expires"), after=now),
            replaces=old.id,
            now=now,
        )
    except AlreadyExists:
        return desk.go(desk.path("keys", new_id))
    except InvalidRequest as error:
        return _replace_page(desk, old, form, problems=problems_of(error))
    return await _made_page(desk, made)


@router.get("/console/{project}/keys/{key_id}/disable")
async def ask_disable(desk: DeskDep, key_id: KeyId) -> Response:
    """Ask before a key is disabled."""
    return await _ask(desk, key_id, "disable")


@router.post("/console/{project}/keys/{key_id}/disable")
async def disable_key(desk: DeskDep, key_id: KeyId) -> Response:
    """Disable a key, within 5 seconds everywhere."""
    return await _set_disabled(desk, key_id, disabled=True)


@router.post("/console/{project}/keys/{key_id}/enable")
async def enable_key(desk: DeskDep, key_id: KeyId) -> Response:
    """Let a disabled key in again."""
    return await _set_disabled(desk, key_id, disabled=False)


@router.get("/console/{project}/keys/{key_id}/delete")
async def ask_delete(desk: DeskDep, key_id: KeyId) -> Response:
    """Ask before a key is deleted."""
    return await _ask(desk, key_id, "delete")


@router.post("/console/{project}/keys/{key_id}/delete")
async def delete_key(desk: DeskDep, key_id: KeyId) -> Response:
    """Delete a key, within 5 seconds everywhere."""
    desk.require(Permission.KEYS)
    desk.require_recent()
    await management_keys.delete_keys(desk.broker, desk.principal, [key_id])
    return desk.go(desk.path("keys"))


async def _set_disabled(desk: Desk, key_id: str, *, disabled: bool) -> Response:
    desk.require(Permission.KEYS)
    desk.require_recent()
    key = await management_keys.load_key(desk.broker, desk.principal, key_id)
    change = KeyChange(name=key.name, description=key.description, allowed_cidrs=key.allowed_cidrs, disabled=disabled)
    await management_keys.update_key(desk.broker, desk.principal, key_id, change)
    return desk.go(desk.path("keys", key_id))


async def _make(
    desk: Desk,
    key_id: str,
    *,
    name: str,
    description: str,
    permissions: Sequence[str],
    app_ids: Sequence[str],
    networks: Sequence[str],
    expires_at: datetime | None,
    replaces: str = "",
    now: datetime,
) -> NewKey:
    async with desk.broker.database.write() as session:
        return await management_keys.create_key(
            session,
            desk.project.id,
            name=name,
            description=description,
            key_id=key_id,
            permissions=permissions,
            app_ids=app_ids,
            allowed_cidrs=networks,
            expires_at=expires_at,
            replaces=replaces,
            maker=desk.principal,
            now=now,
        )


def _name(form: Form) -> str:
    name = form.text("name")
    if not 1 <= len(name) <= 200:
        raise InvalidValue.of(("name", "say in 1 to 200 characters what the key is for"))
    return name


async def _all_keys(desk: Desk) -> list[ManagementKey]:
    return await management_keys.list_keys(desk.broker, desk.project.id, reader=desk.principal, most=MOST_LISTED)


async def _apps(desk: Desk) -> list[OutboundApp]:
    return await list_apps(desk.broker, desk.project.id, only=sorted(desk.principal.app_ids))


async def _form_page(desk: Desk, form: Form, *, preset: str = "", problems: dict[str, str] | None = None) -> Response:
    return desk.page(
        "key_new.html",
        status=400 if problems else 200,
        form=form,
        preset=preset,
        presets=[one for one in PRESETS if one.permissions <= givable(desk.principal)],
        permissions=[(name, *said) for name, said in WORDS.items() if name in givable(desk.principal)],
        apps=await _apps(desk),
        once=new_once(),
        problems=problems or {},
    )


async def _key_page(
    desk: Desk, key: ManagementKey, *, form: Form | None = None, problems: dict[str, str] | None = None
) -> Response:
    keys = await _all_keys(desk)
    successor = successors(keys).get(key.id)
    return desk.page(
        "key.html",
        status=400 if problems else 200,
        key=key,
        state=state_of(key, successor, clock.now()),
        words=[(words, hint) for name, (words, hint) in WORDS.items() if name in key.permissions],
        successor=successor,
        replaced=next((one for one in keys if one.id == key.replaces), None),
        form=form,
        problems=problems or {},
    )


def _replace_page(desk: Desk, key: ManagementKey, form: Form, *, problems: dict[str, str] | None = None) -> Response:
    return desk.page(
        "key_replace.html",
        status=400 if problems else 200,
        key=key,
        words=words_of(key.permissions),
        form=form,
        once=new_once(),
        problems=problems or {},
    )


async def _made_page(desk: Desk, made: NewKey) -> Response:
    key = await management_keys.load_key(desk.broker, desk.principal, made.id)
    app_id = key.app_ids[0] if key.app_ids else next((app.id for app in await _apps(desk)), "APP_ID")
    return desk.page("key_made.html", key=key, text=made.text, app_id=app_id)


async def _ask(desk: Desk, key_id: str, action: str) -> Response:
    desk.require(Permission.KEYS)
    key = await management_keys.load_key(desk.broker, desk.principal, key_id)
    return desk.page("key_ask.html", key=key, action=action)
