"""Approvals: requests of agents that wait for a yes, and what was said to them."""

from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field

from evergrant import clock
from evergrant.broker.calls.approval_decisions import (
    ApprovalFilter,
    OpenedApproval,
    decide_for_owner,
    list_approvals,
    load_approval,
)
from evergrant.broker.calls.approvals import status_of
from evergrant.broker.runtime.list_places import Place
from evergrant.db import Approval
from evergrant.web.api.wire import OptionalId, StrictWireModel, Text, WireModel, epoch, errors, example
from evergrant.web.deps import BrokerDep, SessionsKeeper
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["approvals"])

_APPROVAL = {
    "id": "4Kd8Rw2Lx7Tq9Vb3Nc6Hm1",
    "status": "pending",
    "appId": "google-contacts",
    "userId": "ada",
    "tenantId": "",
    "externalIdentifier": "",
    "agentId": "support-agent",
    "agentName": "Support agent",
    "sessionId": "7Yq2nWx5Tb9Lc4Vd8Rf1Hm",
    "method": "DELETE",
    "base": "",
    "rule": "session",
    "bodyBytes": 0,
    "decidedBy": "",
    "reason": "",
    "createdTime": "1741103514",
    "expiresTime": "1741104114",
    "decidedTime": "",
    "usedTime": "",
}
_OPENED = {**_APPROVAL, "path": "/v1/people/c42:deleteContact", "contentType": "", "body": ""}
ApprovalId = Annotated[Text, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9]+$")]


class ApprovalBody(WireModel):
    """An approval, without what it is about."""

    id: str
    status: str = Field(description="`pending`, `approved`, `refused`, `used`, or `expired`.")
    app_id: str
    user_id: str = Field(description="Whose connection it is; empty for a tenant's own.")
    tenant_id: str
    external_identifier: str
    agent_id: str
    agent_name: str
    session_id: str
    method: str
    base: str
    rule: str = Field(description="What wants it approved: a policy's id, or `session`.")
    body_bytes: int
    decided_by: str = Field(description="`user:<id>`, `key:<id>` or `operator:<who>`.")
    reason: str = Field(description="What was said with the decision.")
    created_time: str = Field(description="Epoch seconds as text, like the others.")
    expires_time: str = Field(
        description="Until when it can be decided; of an approved one, until when the request can be made."
    )
    decided_time: str
    used_time: str


class OpenedApprovalBody(ApprovalBody):
    """An approval with what it is about."""

    path: str = Field(description="Path and query.")
    content_type: str
    body: str = Field(
        description="The headers that can say what it does, a blank line, and the first 4 KiB of its body; what cannot "
        "be seen stands as a code like `\\u202e`."
    )


class ApprovalAnswer(WireModel):
    """One approval."""

    model_config = example({"approval": _OPENED})

    approval: OpenedApprovalBody


class DecidedAnswer(WireModel):
    """An approval that was decided."""

    model_config = example(
        {"approval": {**_APPROVAL, "status": "approved", "decidedBy": "key:agents", "decidedTime": "1741103530"}}
    )

    approval: ApprovalBody


class ApprovalsAnswer(WireModel):
    """Some approvals, newest first."""

    model_config = example({"approvals": [_APPROVAL], "nextCursor": ""})

    approvals: list[ApprovalBody]
    next_cursor: str = Field(description="`cursor` of the next page; empty on the last.")


class Decision(StrictWireModel):
    """What the owner, or you in their place, say to a request."""

    model_config = example({"id": "4Kd8Rw2Lx7Tq9Vb3Nc6Hm1", "decision": "refuse", "reason": "Not this contact."})

    id: ApprovalId
    decision: Literal["approve", "refuse"]
    reason: Text = Field(default="", max_length=500, description="The agent is told it where you refuse.")


def _members(row: Approval) -> dict[str, str | int]:
    return {
        "id": row.id,
        "status": status_of(row, now=clock.now()),
        "app_id": row.app_id,
        "user_id": row.user_id,
        "tenant_id": row.tenant_id,
        "external_identifier": row.external_identifier,
        "agent_id": row.agent_id,
        "agent_name": row.agent_name,
        "session_id": row.session_id,
        "method": row.method,
        "base": row.base,
        "rule": row.reason,
        "body_bytes": row.body_bytes,
        "decided_by": row.decided_by,
        "reason": row.decision_reason,
        "created_time": epoch(row.created_at),
        "expires_time": epoch(row.expires_at),
        "decided_time": epoch(row.decided_at),
        "used_time": epoch(row.used_at),
    }


def _opened(found: OpenedApproval) -> OpenedApprovalBody:
    more = {"path": found.target, "content_type": found.row.content_type, "body": found.body}
    return OpenedApprovalBody.model_validate({**_members(found.row), **more})


@router.get("/approvals", summary="List approvals", responses=errors(400))
async def get_approvals(
    broker: BrokerDep,
    principal: SessionsKeeper,
    status: Annotated[
        Literal["", "pending", "approved", "refused", "used", "expired"], Query(examples=["pending"])
    ] = "",
    user_id: Annotated[OptionalId, Query(alias="userId", examples=["ada"])] = "",
    cursor: Annotated[
        Text,
        Query(max_length=60, pattern=r"^[A-Za-z0-9.]*$", description="`nextCursor` of the page before.", examples=[""]),
    ] = "",
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.", examples=[50])] = 50,
) -> ApprovalsAnswer:
    """Return approvals of the last 30 days, newest first. What they are about, `approval` tells."""
    which = ApprovalFilter(status=status, user_id=user_id)
    after = Place.parse(cursor, field="cursor")
    rows, following = await list_approvals(broker, principal, which, after=after, limit=limit, now=clock.now())
    found = [ApprovalBody.model_validate(_members(row)) for row in rows]
    return ApprovalsAnswer(approvals=found, next_cursor=str(following or ""))


@router.get("/approval", summary="Load an approval", responses=errors(400, 404))
async def get_approval(
    broker: BrokerDep, principal: SessionsKeeper, id: Annotated[ApprovalId, Query(examples=[_APPROVAL["id"]])]
) -> ApprovalAnswer:
    """Return one approval, with the request that it is about."""
    return ApprovalAnswer(approval=_opened(await load_approval(broker, principal, id, now=clock.now())))


@router.post("/approval/decide", summary="Approve or refuse a request", responses=errors(400, 404, 409, 413))
async def decide_approval(body: Decision, broker: BrokerDep, principal: SessionsKeeper) -> DecidedAnswer:
    """Decide in the owner's place, within 10 minutes, once. An approved request can then be made within 10 minutes.

    A key cannot approve what it has asked for itself.
    """
    row = await decide_for_owner(
        broker, principal, body.id, approve=body.decision == "approve", reason=body.reason, now=clock.now()
    )
    return DecidedAnswer(approval=ApprovalBody.model_validate(_members(row)))
