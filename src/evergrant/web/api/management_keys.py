"""Management keys over HTTP, as the SDKs' `management_key` sends them."""

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field

from evergrant import clock
from evergrant.broker.access import management_keys
from evergrant.broker.access.management_keys import KeyChange
from evergrant.broker.runtime.principal import ALL_PERMISSIONS, Permission
from evergrant.db import ManagementKey
from evergrant.errors import InvalidRequest, InvalidValue, MissingArgument
from evergrant.web.api.wire import AppId, Text, WireModel, errors, example
from evergrant.web.deps import BrokerDep, KeysKeeper
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/managementkey", tags=["management keys"])

ROLES = {"admin": ALL_PERMISSIONS, "auditor": frozenset({Permission.AUDIT})}
"""The vendor's roles that have a meaning here; every permission is a role too."""
MAX_SECONDS = 100 * 365 * 86_400

KeyName = Annotated[Text, Field(min_length=1, max_length=200, description="What the key is for.")]
Description = Annotated[Text, Field(max_length=2_000)]
Networks = Annotated[
    list[Annotated[Text, Field(max_length=64)]],
    Field(max_length=100, description="Addresses and networks that the key works from; empty for anywhere."),
]
KeyId = Annotated[Text, Field(min_length=1, max_length=22)]
Names = Annotated[list[Annotated[Text, Field(max_length=100)]], Field(max_length=100)]
Status = Literal["active", "inactive"]


class ProjectRole(WireModel):
    """Roles in projects."""

    project_ids: Names = Field(default_factory=list, description="The project that the call is made for, and no other.")
    roles: Names = Field(default_factory=list)


class TagRole(WireModel):
    """Roles in tagged projects, which evergrant does not have."""

    tags: Names = Field(default_factory=list)
    roles: Names = Field(default_factory=list)


class ReBac(WireModel):
    """What a key may do, in the vendor's terms. A role is a permission's name, `admin` (all) or `auditor` (`audit`)."""

    company_roles: Names = Field(default_factory=list)
    project_roles: list[ProjectRole] = Field(default_factory=list, max_length=100)
    tag_roles: list[TagRole] = Field(default_factory=list, max_length=100, description="Must be empty.")


class CreateKey(WireModel):
    """A key to make. Say what it may do in `reBac` or in `permissions`."""

    model_config = example(
        {
            "name": "agents",
            "description": "The agent runner",
            "expiresIn": 7_776_000,
            "permittedIps": ["203.0.113.0/24"],
            "reBac": {},
            "permissions": ["tokens:fetch"],
            "appIds": ["google-contacts"],
        }
    )

    name: KeyName
    description: Description = ""
    expires_in: int = Field(default=0, ge=0, le=MAX_SECONDS, strict=True, description="Seconds; 0 for never.")
    permitted_ips: Networks = Field(default_factory=list)
    re_bac: ReBac = Field(default_factory=ReBac)
    permissions: Names = Field(default_factory=list, description="Instead of `reBac`.")
    app_ids: list[AppId] = Field(
        default_factory=list, max_length=500, description="Apps that the key is limited to; empty for all."
    )
    replaces: Annotated[Text, Field(max_length=22)] = Field(
        default="", description="The key whose place this one takes. It goes on working until you disable it."
    )


class UpdateKey(WireModel):
    """All of what can be changed about a key: a field that is left out is emptied."""

    model_config = example(
        {"id": "5yZ1cK8vQd3w", "name": "agents", "description": "", "permittedIps": [], "status": "inactive"}
    )

    id: KeyId
    name: KeyName
    description: Description = ""
    permitted_ips: Networks = Field(default_factory=list)
    status: Status


class DeleteKeys(WireModel):
    """Keys to delete."""

    model_config = example({"ids": ["5yZ1cK8vQd3w"]})

    ids: list[KeyId] = Field(min_length=1, max_length=100)


_STORED = {
    "id": "5yZ1cK8vQd3w",
    "name": "agents",
    "description": "The agent runner",
    "status": "active",
    "createdTime": 1741103514,
    "expireTime": 1748879514,
    "lastUsedTime": 0,
    "lastUsedAddress": "",
    "permittedIps": ["203.0.113.0/24"],
    "reBac": {
        "companyRoles": [],
        "projectRoles": [{"projectIds": ["P2nq5Jx8Vb"], "roles": ["tokens:fetch"]}],
        "tagRoles": [],
    },
    "permissions": ["tokens:fetch"],
    "appIds": ["google-contacts"],
    "replaces": "",
}


class KeyBody(WireModel):
    """A key as it is stored: without its text."""

    id: str
    name: str
    description: str
    status: Status
    created_time: int = Field(description="Epoch seconds.")
    expire_time: int = Field(description="Epoch seconds; 0 for never.")
    last_used_time: int = Field(description="Epoch seconds, accurate to a minute; 0 before the first use.")
    last_used_address: str = Field(description="Where it was used from then; empty before the first use.")
    permitted_ips: list[str]
    re_bac: ReBac
    permissions: list[str]
    app_ids: list[str]
    replaces: str = Field(description="The key whose place it takes; empty for none.")


class KeyAnswer(WireModel):
    """One key."""

    model_config = example({"key": _STORED})

    key: KeyBody


class NewKeyAnswer(KeyAnswer):
    """A key that was just made."""

    model_config = example({"key": _STORED, "cleartext": "evg_5yZ1cK8vQd3w_..."})

    cleartext: str = Field(description="The key itself: shown here and never again.")


class KeysAnswer(WireModel):
    """Keys, oldest first."""

    model_config = example({"keys": [_STORED]})

    keys: list[KeyBody]


class DeletedAnswer(WireModel):
    """How many keys were deleted."""

    model_config = example({"total": 1})

    total: int


def key_body(key: ManagementKey) -> KeyBody:
    """Write a key for the wire."""
    return KeyBody(
        id=key.id,
        name=key.name,
        description=key.description,
        status="inactive" if key.disabled else "active",
        created_time=int(key.created_at.timestamp()),
        expire_time=int(key.expires_at.timestamp()) if key.expires_at else 0,
        last_used_time=int(key.last_used_at.timestamp()) if key.last_used_at else 0,
        last_used_address=key.last_used_address,
        permitted_ips=key.allowed_cidrs,
        re_bac=ReBac(project_roles=[ProjectRole(project_ids=[key.project_id], roles=key.permissions)]),
        permissions=key.permissions,
        app_ids=key.app_ids,
        replaces=key.replaces,
    )


def permissions_of(body: CreateKey, project_id: str) -> frozenset[str]:
    """Return the permissions that a key is asked for with.

    Raises:
        MissingArgument: none are.
        InvalidValue: there is no such role or permission, or the role is for another project.
    """
    granted: set[str] = set()
    problems: list[tuple[str, str]] = []
    wanted = [(f"permissions[{i}]", name) for i, name in enumerate(body.permissions)]
    wanted += [(f"reBac.companyRoles[{i}]", name) for i, name in enumerate(body.re_bac.company_roles)]
    for i, role in enumerate(body.re_bac.project_roles):
        if role.project_ids != [project_id]:
            problems.append((f"reBac.projectRoles[{i}].projectIds", "keys belong to one project: give its id alone"))
        wanted += [(f"reBac.projectRoles[{i}].roles[{j}]", name) for j, name in enumerate(role.roles)]
    if body.re_bac.tag_roles:
        problems.append(("reBac.tagRoles", "projects have no tags: leave it empty"))
    for field, name in wanted:
        if name in ALL_PERMISSIONS:
            granted.add(name)
        elif name in ROLES and not field.startswith("permissions"):
            granted |= ROLES[name]
        else:
            problems.append((field, f"use one of {', '.join([*Permission, *ROLES])}"))
    if problems:
        raise InvalidValue.of(*problems)
    if not granted:
        raise MissingArgument.of(("permissions", "say what the key may do, here or in reBac"))
    return frozenset(granted)


@router.put("", summary="Make a management key", responses=errors(400, 413))
async def create_key(body: CreateKey, broker: BrokerDep, principal: KeysKeeper) -> NewKeyAnswer:
    """Make a key, which can do no more than the one that asks. Its text is in the answer and never again."""
    now = clock.now()
    permissions = permissions_of(body, principal.project_id)
    try:
        async with broker.database.write() as session:
            made = await management_keys.create_key(
                session,
                principal.project_id,
                name=body.name,
                description=body.description,
                now=now,
                permissions=permissions,
                app_ids=body.app_ids,
                allowed_cidrs=body.permitted_ips,
                expires_at=now + timedelta(seconds=body.expires_in) if body.expires_in else None,
                replaces=body.replaces,
                maker=principal,
            )
    except InvalidRequest as error:
        raise _in_our_words(error) from None
    key = await management_keys.load_key(broker, principal, made.id)
    return NewKeyAnswer(key=key_body(key), cleartext=made.text)


def _in_our_words(error: InvalidRequest) -> InvalidRequest:
    names = {"allowedCidrs": "permittedIps"}
    return error.of(*((names.get(e["field"], e["field"]), e["problem"]) for e in error.details["fields"]))


@router.patch("", summary="Change a management key", responses=errors(400, 404, 413))
async def update_key(body: UpdateKey, broker: BrokerDep, principal: KeysKeeper) -> KeyAnswer:
    """Replace name, description, networks and status. It takes effect everywhere within 5 seconds."""
    change = KeyChange(
        name=body.name,
        description=body.description,
        allowed_cidrs=body.permitted_ips,
        disabled=body.status == "inactive",
    )
    return KeyAnswer(key=key_body(await management_keys.update_key(broker, principal, body.id, change)))


@router.get("", summary="Load a management key", responses=errors(400, 404))
async def load_key(
    key_id: Annotated[KeyId, Query(alias="id", examples=["5yZ1cK8vQd3w"])], broker: BrokerDep, principal: KeysKeeper
) -> KeyAnswer:
    """Return one key, which can do no more than the one that asks."""
    return KeyAnswer(key=key_body(await management_keys.load_key(broker, principal, key_id)))


@router.post("/delete", summary="Delete management keys", responses=errors(400, 413))
async def delete_keys(body: DeleteKeys, broker: BrokerDep, principal: KeysKeeper) -> DeletedAnswer:
    """Delete keys, within 5 seconds everywhere. Ids that there are no keys for are passed over."""
    return DeletedAnswer(total=await management_keys.delete_keys(broker, principal, body.ids))


@router.get("/search", summary="Load all management keys", responses=errors())
async def search_keys(broker: BrokerDep, principal: KeysKeeper) -> KeysAnswer:
    """Return the project's keys, oldest first: those that can do no more than the one that asks."""
    keys = await management_keys.list_keys(broker, principal.project_id, reader=principal)
    return KeysAnswer(keys=[key_body(key) for key in keys])
