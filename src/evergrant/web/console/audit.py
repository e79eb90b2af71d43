"""The audit log: who did what, filtered, verified and exported."""

import json
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from evergrant import clock
from evergrant.broker.access.management_keys import list_keys
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.audit.browsing import STRETCH, AuditFilter, browse_records
from evergrant.broker.audit.chain import ChainVerification, verify_chain_once
from evergrant.broker.audit.log import export_lines
from evergrant.broker.runtime.principal import Permission
from evergrant.errors import InvalidRequest
from evergrant.web.console.desk import HEADERS, Desk, DeskDep
from evergrant.web.console.fields import day_end, day_start, problems_of
from evergrant.web.console.route import ConsoleRoute
from evergrant.web.console.sentences import TELLINGS, sentence_of

router = APIRouter(route_class=ConsoleRoute)

MOST_SHOWN = 4_000
"""Characters of one record."""

Text = Annotated[str, Query(max_length=300)]
Day = Annotated[str, Query(max_length=10)]


@router.get("/console/{project}/audit")
async def show_log(
    desk: DeskDep,
    action: Text = "",
    actor: Text = "",
    user: Text = "",
    app: Text = "",
    since: Annotated[str, Query(max_length=10, alias="from")] = "",
    until: Annotated[str, Query(max_length=10, alias="to")] = "",
    at: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> Response:
    """Show records, newest first."""
    _require(desk)
    asked = {"action": action.strip(), "actor": actor.strip(), "user": user.strip(), "app": app.strip()}
    asked |= {"from": since, "to": until}
    try:
        wanted = _wanted(asked)
    except InvalidRequest as error:
        return await _page(desk, asked, problems=problems_of(error))
    return await _page(desk, asked, wanted, at=at)


@router.post("/console/{project}/audit/verify")
async def verify(desk: DeskDep) -> Response:
    """Walk along the chain, and say what was found."""
    _require(desk)
    return await _page(desk, {}, AuditFilter(), verified=await verify_chain_once(desk.broker, desk.project.id))


@router.get("/console/{project}/audit/export")
async def export(
    desk: DeskDep,
    since: Annotated[Day, Query(alias="from")] = "",
    until: Annotated[Day, Query(alias="to")] = "",
) -> Response:
    """Send the records of a period as JSON, one a line, oldest first."""
    _require(desk)
    wanted = _wanted({"from": since, "to": until})
    lines = export_lines(desk.broker, desk.project.id, since=wanted.since, until=wanted.until)
    name = f"audit-{desk.project.id}-{clock.now():%Y-%m-%d}.jsonl"
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, headers=headers, media_type="application/jsonl")


def _require(desk: Desk) -> None:
    desk.require(Permission.AUDIT)
    desk.principal.require_every_app()


def _wanted(asked: dict[str, str]) -> AuditFilter:
    return AuditFilter(
        action=asked.get("action", ""),
        actor=asked.get("actor", ""),
        user_id=asked.get("user", ""),
        app_id=asked.get("app", ""),
        since=day_start("from", asked.get("from", "")),
        until=day_end("to", asked.get("to", "")),
    )


def _shown(data: object) -> str:
    """Return what a record holds; of the large ones that backends may report, the beginning: the export has all."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}\n\u2026 ({len(text):,} characters; export them)"


async def _page(
    desk: Desk,
    asked: dict[str, str],
    wanted: AuditFilter | None = None,
    *,
    at: int = 0,
    verified: ChainVerification | None = None,
    problems: dict[str, str] | None = None,
) -> Response:
    found = await browse_records(desk.broker, desk.project.id, wanted, before=at) if wanted else None
    apps = await list_apps(desk.broker, desk.project.id)
    keys = []
    if desk.may(Permission.KEYS):
        keys = await list_keys(desk.broker, desk.project.id, reader=desk.principal, most=500)
    names = {f"app:{app.id}": app.name for app in apps} | {f"key:{key.id}": key.name for key in keys}
    return desk.page(
        "audit.html",
        status=400 if problems else 200,
        asked=asked,
        is_filtered=any(asked.values()),
        found=found,
        rows=[(one, sentence_of(one, names), _shown(one.data)) for one in found.events] if found else [],
        names=names,
        apps=apps,
        keys=keys,
        actions=TELLINGS,
        stretch=STRETCH,
        verified=verified,
        at=at,
        problems=problems or {},
    )
