"""Access policies: who may fetch, connect or call an app."""

from typing import Annotated, Literal

from fastapi import Query
from pydantic import ConfigDict, Field, JsonValue

from evergrant import clock
from evergrant.broker.access import policies
from evergrant.db import AccessPolicy
from evergrant.web.api.wire import AppId, Nothing, ShortText, StrictWireModel, Text, WireModel, errors, example
from evergrant.web.deps import BrokerDep, PoliciesKeeper
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["policies"])

_POLICY: dict[str, JsonValue] = {
    "appId": "google-contacts",
    "action": "fetch",
    "claims": {"roles": ["support", "sales"]},
    "keyIds": [],
    "scopes": ["https://www.googleapis.com/auth/contacts.readonly"],
    "levels": [],
    "methods": [],
    "paths": [],
    "agents": [],
    "via": [],
    "effect": "allow",
}
_STORED = {"id": "7Yq2nWx5Tb9Lc4Vd8Rf1Hm", **_POLICY, "createdTime": "1741103514"}
_CALLS: dict[str, JsonValue] = {
    "appId": "google-contacts",
    "action": "call",
    "agents": ["support-agent"],
    "methods": ["POST", "PATCH", "DELETE"],
    "paths": ["/v1/people/**"],
    "effect": "approve",
}
Few = Annotated[list[ShortText], Field(max_length=100)]
Values = Annotated[list[Annotated[Text, Field(max_length=2_000)]], Field(max_length=100)]
"""Exactly as the claim has them."""


class CreatePolicy(StrictWireModel):
    """A policy. What is left out is not limited by it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_POLICY, _CALLS]})

    app_id: AppId
    action: Literal["fetch", "connect", "call"]
    claims: dict[ShortText, Values] = Field(
        default_factory=dict,
        max_length=20,
        description="About users: each of these claims has one of the values listed for it.",
    )
    key_ids: Few = Field(default_factory=list, description="About management keys: one of these, by id.")
    scopes: list[ShortText] = Field(default_factory=list, max_length=500, description="At most these scopes.")
    levels: list[Literal["user", "tenant"]] = Field(
        default_factory=list,
        max_length=2,
        description="Whose connections: users' (`user`), tenants' own (`tenant`); empty for both. But a user's JWT "
        "connects a tenant's own only where a policy names `tenant`.",
    )
    agents: list[Annotated[Text, Field(min_length=1, max_length=255)]] = Field(
        default_factory=list, max_length=100, description="About agents: one of these, by id; empty for anybody."
    )
    methods: list[Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]] = Field(
        default_factory=list, max_length=7, description="Of calls: one of these."
    )
    paths: list[Annotated[Text, Field(min_length=1, max_length=500, pattern="^/")]] = Field(
        default_factory=list,
        max_length=100,
        description="Of calls: below the app's base, decoded; `*` stands for one segment or a part of one, "
        "`**` for any number of segments.",
    )
    via: list[Literal["proxy", "mcp"]] = Field(
        default_factory=list, max_length=2, description="Of calls: how they come; empty for any way."
    )
    effect: Literal["allow", "deny", "approve"] = Field(
        default="allow",
        description="What becomes of calls: `deny` goes before `approve`, and that before `allow`. With `approve`, "
        "the owner approves each request.",
    )


class PolicyBody(WireModel):
    """A policy as it is stored."""

    id: str
    app_id: str
    action: str
    claims: dict[str, list[str]]
    key_ids: list[str]
    scopes: list[str]
    levels: list[str]
    agents: list[str]
    methods: list[str]
    paths: list[str]
    via: list[str]
    effect: str
    created_time: str = Field(description="Epoch seconds as text.")


class PolicyAnswer(WireModel):
    """One policy."""

    model_config = example({"policy": _STORED})

    policy: PolicyBody


class PoliciesAnswer(WireModel):
    """The project's policies."""

    model_config = example({"policies": [_STORED]})

    policies: list[PolicyBody]


def _body(row: AccessPolicy) -> PolicyBody:
    return PolicyBody(
        id=row.id,
        app_id=row.app_id,
        action=row.action,
        claims=row.claims,
        key_ids=row.key_ids,
        scopes=row.scopes,
        levels=row.levels,
        agents=row.agents,
        methods=row.methods,
        paths=row.paths,
        via=row.via,
        effect=row.effect,
        created_time=str(int(row.created_at.timestamp())),
    )


@router.post("/policies", summary="Make a policy", responses=errors(400, 404, 413))
async def create_policy(body: CreatePolicy, broker: BrokerDep, principal: PoliciesKeeper) -> PolicyAnswer:
    """Limit who may do this with the app. With the first one, everybody whom none allows is refused.

    Without the permission `policies`, a key that has `keys` allows others no more than the policies allow the key.
    """
    row = await policies.create_policy(
        broker,
        principal.project_id,
        app_id=body.app_id,
        action=body.action,
        claims=body.claims,
        key_ids=body.key_ids,
        scopes=body.scopes,
        levels=body.levels,
        agents=body.agents,
        methods=body.methods,
        paths=body.paths,
        via=body.via,
        effect=body.effect,
        maker=principal,
        now=clock.now(),
    )
    return PolicyAnswer(policy=_body(row))


@router.get("/policies", summary="List the policies", responses=errors())
async def load_policies(broker: BrokerDep, principal: PoliciesKeeper) -> PoliciesAnswer:
    """Return the policies, oldest first; those of the apps that the key is limited to."""
    rows = await policies.list_policies(broker, principal.project_id)
    return PoliciesAnswer(
        policies=[_body(row) for row in rows if not principal.app_ids or row.app_id in principal.app_ids]
    )


@router.delete("/policies", summary="Delete a policy", responses=errors(400, 404))
async def delete_policy(
    broker: BrokerDep,
    principal: PoliciesKeeper,
    id: Annotated[Text, Query(min_length=1, max_length=64, examples=[_STORED["id"]])],
) -> Nothing:
    """Delete a policy, within 5 seconds everywhere. Without any other for its app and action, these are open again."""
    await policies.delete_policy(broker, principal.project_id, id, principal=principal)
    return Nothing()
