"""The audit log over HTTP, as the SDKs' `audit` sends it."""

import json
import re
from typing import Annotated, Any, Literal

from fastapi import Query
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, Field

from evergrant.broker.audit import log as audit_log
from evergrant.broker.audit.browsing import AuditFilter, browse_records
from evergrant.broker.audit.chain import verify_chain_once
from evergrant.broker.audit.log import MAX_RECORDS, AuditQuery, ReportedEvent
from evergrant.db import AuditEvent
from evergrant.web.api.wire import (
    LAST_MILLISECOND,
    Flag,
    From,
    Nothing,
    OptionalId,
    OwnerId,
    Text,
    To,
    WireModel,
    epoch_milliseconds,
    errors,
    example,
    moment,
    storable_json,
)
from evergrant.web.deps import Auditor, BrokerDep
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/audit", tags=["audit"])

MAX_DATA = 10_000
MAX_ACTION = 64
_ACTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")

_RECORD = {
    "projectId": "P2nq5Jx8Vb",
    "userId": "",
    "action": "app.updated",
    "occurred": "1741103514000",
    "device": "",
    "method": "",
    "geo": "",
    "remoteAddress": "203.0.113.7",
    "externalIds": [],
    "tenants": [],
    "data": {"fields": ["clientSecret"]},
    "actor": "key:5yZ1cK8vQd3w",
    "appId": "google-contacts",
    "sequence": 42,
}
Values = Annotated[list[Annotated[Text, Field(max_length=255)]], Field(max_length=500)]
Milliseconds = Annotated[int, Field(le=LAST_MILLISECOND, strict=True)]


def _small_json(value: dict[str, Any]) -> dict[str, Any]:
    storable_json(value)
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError("must not contain NaN or infinity") from None
    if len(text) > MAX_DATA:
        raise ValueError(f"use at most {MAX_DATA:,} characters of JSON")
    return value


def _clear_action(value: str) -> str:
    """Let no letter in that looks like another: who reads the log takes an action for what it looks like."""
    if not _ACTION.fullmatch(value):
        raise ValueError("use letters a to z or A to Z, digits and . _ : -, beginning with a letter or digit")
    return value


class Search(WireModel):
    """What to look for: everything that is given must hold."""

    model_config = example({"actions": ["app.updated"], "from": 1741100000000, "noTenants": False, "limit": 100})

    user_ids: Values = Field(default_factory=list)
    actions: Values = Field(default_factory=list)
    excluded_actions: Values = Field(default_factory=list)
    devices: Values = Field(default_factory=list, description="evergrant records none, so none is found.")
    methods: Values = Field(default_factory=list, description="evergrant records none, so none is found.")
    geos: Values = Field(default_factory=list, description="evergrant records none, so none is found.")
    remote_addresses: Values = Field(default_factory=list)
    actors: Values = Field(default_factory=list, description="As the records have them: `key:<id>`, `operator:<who>`.")
    app_ids: Values = Field(default_factory=list)
    external_ids: Values = Field(default_factory=list, description="The same as `userIds`: your ids are the only ones.")
    tenants: Values = Field(default_factory=list)
    no_tenants: Flag = Field(default=False, description="With `tenants`: records without a tenant too.")
    text: Text = Field(default="", max_length=255, description="Anywhere in a record.")
    from_: Milliseconds = Field(default=0, alias="from", description="Epoch milliseconds; 0 or less for no limit.")
    to: Milliseconds = Field(default=0, description="Epoch milliseconds; 0 or less for no limit.")
    limit: int = Field(default=MAX_RECORDS, ge=1, le=MAX_RECORDS, strict=True, description="Records per page.")
    page: int = Field(default=0, ge=0, le=1_000_000, strict=True, description="0 for the newest records.")


class AuditRecord(WireModel):
    """One record."""

    project_id: str
    user_id: str = Field(description="Whom it is about; empty where it is about nobody in particular.")
    action: str
    occurred: str = Field(description="Epoch milliseconds as text.")
    device: str = Field(default="", description="Always empty.")
    method: str = Field(default="", description="Always empty.")
    geo: str = Field(default="", description="Always empty.")
    remote_address: str
    external_ids: list[str] = Field(description="The `userId`, if there is one.")
    tenants: list[str]
    data: dict[str, Any]
    actor: str = Field(
        description="Who did it: `key:<id>`, `operator:<who>`, `session:<id>`, `user:<id>`, `tenant:<id>`, `cli` or "
        "`evergrant`."
    )
    app_id: str
    sequence: int = Field(description="1, 2, 3 ... within the project, without gaps.")


class SearchAnswer(WireModel):
    """Records, newest first."""

    model_config = example({"audits": [_RECORD]})

    audits: list[AuditRecord]


class ChainAnswer(WireModel):
    """What a walk along the chain of records has found."""

    model_config = example(
        {"records": 4711, "calls": 190_204, "pruned": 0, "head": "5f1c...", "brokenAt": 0, "problem": ""}
    )

    records: int = Field(description="Records that are as they were written.")
    calls: int = Field(description="Calls of the call log that are as they were sealed.")
    pruned: int = Field(description="So many earlier records were pruned: the walk began after them.")
    head: str = Field(description="The hash of the last of them. Keep it elsewhere, and compare it with a later walk.")
    broken_at: int = Field(
        description="The first record that does not fit, or whose calls do not; 0 where all do, and where calls were "
        "added that no record seals."
    )
    problem: str = Field(description="What is wrong with it; empty where nothing is.")


class RecordsAnswer(SearchAnswer):
    """A page of records, newest first."""

    model_config = example({"audits": [_RECORD], "older": 41})

    older: int = Field(description="`before` of the next page; 0 on the last.")


class Event(WireModel):
    """Something that happened in your own application."""

    model_config = example(
        {"action": "invoice.sent", "type": "info", "actorId": "alice", "tenantId": "acme", "data": {"invoice": "4711"}}
    )

    action: Annotated[Text, AfterValidator(_clear_action)] = Field(
        min_length=1,
        max_length=MAX_ACTION,
        description="Letters a to z, digits and `. _ : -`, at most 64; anything but evergrant's own actions.",
    )
    type: Literal["info", "warn", "error"]
    actor_id: OwnerId
    tenant_id: OptionalId = ""
    user_id: OptionalId = ""
    data: Annotated[dict[str, Any], AfterValidator(_small_json)] = Field(default_factory=dict)


def record_body(event: AuditEvent) -> AuditRecord:
    """Write a record for the wire."""
    return AuditRecord(
        project_id=event.project_id,
        user_id=event.user_id,
        action=event.action,
        occurred=epoch_milliseconds(event.occurred_at),
        remote_address=event.remote_address,
        external_ids=[event.user_id] if event.user_id else [],
        tenants=[event.tenant_id] if event.tenant_id else [],
        data=event.data,
        actor=event.actor,
        app_id=event.app_id,
        sequence=event.sequence,
    )


@router.post("/search", summary="Search the audit log", responses=errors(400, 413))
async def search(body: Search, broker: BrokerDep, principal: Auditor) -> SearchAnswer:
    """Return the records that fit, newest first. The key must not be limited to some apps: the log tells of all."""
    principal.require_every_app()
    if body.devices or body.methods or body.geos:
        return SearchAnswer(audits=[])
    users = set(body.user_ids)
    if body.external_ids:
        users = users & set(body.external_ids) if users else set(body.external_ids)
        if not users:
            return SearchAnswer(audits=[])
    found = await audit_log.search_records(
        broker,
        principal.project_id,
        AuditQuery(
            user_ids=sorted(users),
            actions=body.actions,
            excluded_actions=body.excluded_actions,
            actors=body.actors,
            app_ids=body.app_ids,
            remote_addresses=body.remote_addresses,
            tenant_ids=body.tenants,
            also_without_tenant=body.no_tenants,
            text=body.text,
            since=moment(body.from_),
            until=moment(body.to),
            limit=body.limit,
            offset=body.page * body.limit,
        ),
    )
    return SearchAnswer(audits=[record_body(event) for event in found])


@router.get("/verify", summary="Verify the audit log", responses=errors())
async def verify_records(broker: BrokerDep, principal: Auditor) -> ChainAnswer:
    """Walk along the chain from its beginning to the first record that does not fit, or to its end.

    It reads every record: a million take about a minute.
    """
    principal.require_every_app()
    found = await verify_chain_once(broker, principal.project_id)
    return ChainAnswer(
        records=found.records,
        calls=found.calls,
        pruned=found.pruned,
        head=found.head.hex(),
        broken_at=found.broken_at or 0,
        problem=found.problem,
    )


@router.get(
    "/export",
    summary="Export the audit log",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                "application/jsonl": {
                    "schema": {"type": "string"},
                    "example": '{"sequence": 1, "action": "project.created", "hash": "5f1c..."}\n',
                }
            }
        },
        **errors(400),
    },
)
async def export_records(
    broker: BrokerDep,
    principal: Auditor,
    from_: From = 0,
    to: To = 0,
) -> StreamingResponse:
    """Return the records of a period, oldest first, as JSON, one a line, each with its hash. 0 does not limit."""
    principal.require_every_app()
    lines = audit_log.export_lines(broker, principal.project_id, since=moment(from_), until=moment(to))
    return StreamingResponse(lines, media_type="application/jsonl")


@router.get("/records", summary="Leaf through the audit log", responses=errors(400))
async def list_records(
    broker: BrokerDep,
    principal: Auditor,
    action: Annotated[Text, Query(max_length=MAX_ACTION, description="Only this.", examples=["key.created"])] = "",
    actor: Annotated[Text, Query(max_length=300, description="Only by them.", examples=["key:5yZ1cK8vQd3w"])] = "",
    user_id: Annotated[Text, Query(alias="userId", max_length=255, examples=["alice"])] = "",
    app_id: Annotated[Text, Query(alias="appId", max_length=64, examples=["google-contacts"])] = "",
    from_: From = 0,
    to: To = 0,
    before: Annotated[int, Query(ge=0, le=2**62, description="`older` of the page before.", examples=[0])] = 0,
) -> RecordsAnswer:
    """Return a page of records, newest first. Every filter is optional, and a page costs the same however long the log.

    Seals of the call log, of which there may be one a second, are shown where `action` is `calls.sealed`.

    With several filters a page looks at 50,000 records at most, so it may be empty and still have an `older`.
    """
    principal.require_every_app()
    wanted = AuditFilter(
        action=action, actor=actor, user_id=user_id, app_id=app_id, since=moment(from_), until=moment(to)
    )
    page = await browse_records(broker, principal.project_id, wanted, before=before)
    return RecordsAnswer(audits=[record_body(event) for event in page.events], older=page.older)


@router.post("/event", summary="Record an event of your own", responses=errors(400, 413))
async def create_event(body: Event, broker: BrokerDep, principal: Auditor) -> Nothing:
    """Add a record to the log. Its `actor` is the key that sent it; `actorId` and `type` are in its `data`."""
    reported = ReportedEvent(
        action=body.action,
        type=body.type,
        actor_id=body.actor_id,
        tenant_id=body.tenant_id,
        user_id=body.user_id,
        data=body.data,
    )
    await audit_log.record_report(broker, principal.project_id, reported)
    return Nothing()
