"""One connection: whether it works, the one thing to do, what is known of it, and what happened to it."""

from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.access.management_keys import list_keys
from evergrant.broker.apps.logos import list_apps_with_logos
from evergrant.broker.apps.variables import template_of
from evergrant.broker.connections import deletion, listing
from evergrant.broker.connections.credential_fields import fields_asked
from evergrant.broker.connections.metadata import GrantMetadata
from evergrant.broker.grants.events import GrantEventKind
from evergrant.broker.runtime.principal import Permission
from evergrant.db import GrantEvent, OutboundApp
from evergrant.errors import AppNotFound
from evergrant.oauth2.scopes import words_for
from evergrant.web.console.connection_actions import refreshed
from evergrant.web.console.connection_list import Line, line_of
from evergrant.web.console.desk import Desk, DeskDep, GrantId
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.timeline import days_of
from evergrant.web.logos import logo_source

router = APIRouter(route_class=ConsoleRoute)

DONE = frozenset({"refreshed", "failed", "under_way"})


@router.get("/console/{project}/connections/{grant_id}")
async def show(desk: DeskDep, request: Request, grant_id: GrantId) -> Response:
    """Show one connection, or what is left of one that is gone."""
    desk.require(Permission.CONNECTIONS_READ)
    grant, events = await listing.load_with_timeline(desk.broker, desk.principal, grant_id)
    fetches = request.query_params.get("fetches") != "no"
    names = await _names(desk, events)
    if grant is None:
        days = days_of(events, name_of=names, with_fetches=fetches)
        newer = next((event.data.get("by") for event in events if event.kind == GrantEventKind.REPLACED), None)
        return desk.page("connection_gone.html", grant_id=grant_id, newer=newer, days=days, fetches=fetches)
    line, app = await _line(desk, grant)
    days = days_of(events, name_of=names, with_fetches=fetches, obtains=line.kind.is_obtained)
    done = request.query_params.get("done", "")
    return desk.page(
        "connection.html",
        line=line,
        scopes=[(scope, words_for(scope, app.scope_descriptions)) for scope in grant.scopes],
        app=app,
        stored=[one.title for one in fields_asked(template_of(desk.broker, app), app).values() if one.required],
        days=days,
        fetches=fetches,
        done=done if done in DONE else "",
        rotates=any(event.data.get("rotated") for event in events),
        ended=next((event.at for event in events if event.kind == GrantEventKind.ENDED), None),
        is_over=grant.expires_at is not None and grant.expires_at <= clock.now(),
    )


@router.post("/console/{project}/connections/{grant_id}/refresh")
async def refresh(desk: DeskDep, grant_id: GrantId) -> Response:
    """Refresh a connection now, and show what came of it."""
    desk.require(Permission.TOKENS_WRITE)
    return desk.go(desk.path("connections", grant_id, done=await refreshed(desk, grant_id)))


@router.get("/console/{project}/connections/{grant_id}/revoke")
async def ask_to_revoke(desk: DeskDep, grant_id: GrantId) -> Response:
    """Ask whether a connection shall end."""
    desk.require(Permission.TOKENS_WRITE)
    line, app = await _line(desk, await listing.load_connection(desk.broker, desk.principal, grant_id))
    return desk.page("connection_revoke.html", line=line, app=app)


@router.post("/console/{project}/connections/{grant_id}/revoke")
async def revoke(desk: DeskDep, grant_id: GrantId) -> Response:
    """Revoke and delete a connection."""
    desk.require(Permission.TOKENS_WRITE)
    await deletion.delete_token(desk.broker, desk.principal, grant_id, now=clock.now())
    if desk.principal.app_ids:  # what is gone has no app any more by which such a session could see it
        return desk.go(desk.path("connections"))
    return desk.go(desk.path("connections", grant_id))


async def _line(desk: Desk, grant: GrantMetadata) -> tuple[Line, OutboundApp]:
    apps, versions = await list_apps_with_logos(desk.broker, desk.project.id, only=[grant.app_id])
    if not apps:
        raise AppNotFound
    app = apps[0]
    logos = {app.id: logo_source(app, versions.get(app.id, ""))}
    return line_of(grant, {app.id: app}, logos), app


async def _names(desk: Desk, events: list[GrantEvent]) -> Callable[[str], str]:
    """Return what turns who did something into words; keys have names for those who may see keys."""
    names: dict[str, str] = {}
    actors = {event.actor for event in events} | {str(event.data.get("madeBy", "")) for event in events}
    if desk.may(Permission.KEYS) and any(actor.startswith("key:") for actor in actors):
        keys = await list_keys(desk.broker, desk.project.id, reader=desk.principal)
        names = {f"key:{key.id}": f"key {key.name}" for key in keys}

    def name_of(actor: str) -> str:
        if actor in names:
            return names[actor]
        kind, _, who = actor.partition(":")
        match kind:
            case "user" | "operator":
                return who
            case "key" | "tenant":
                return f"{kind} {who}"
        return {"evergrant": "", "cli": "the command line"}.get(actor, actor)

    for event in events:
        if made := event.data.get("madeBy"):
            event.data = {**event.data, "madeBy": name_of(str(made))}
    return name_of
