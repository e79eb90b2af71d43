"""Management keys over HTTP: what they can be given, and that no key makes a stronger one."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from evergrant import clock
from evergrant.broker.access.authentication import authenticate, write_key_uses
from evergrant.broker.operations.setup import initialise
from evergrant.broker.runtime.broker import open_broker
from tests.infra.installation import Backend, Installation
from tests.web.conftest import MakeBackend

PATH = "/v1/mgmt/managementkey"


@pytest.fixture
def backend(here: Installation) -> Backend:
    return here.backend


def create(backend: Backend, **fields: Any) -> httpx2.Response:
    return backend.http.put(PATH, json={"name": "made", "permissions": ["tokens:fetch"], **fields})


def created(backend: Backend, **fields: Any) -> dict[str, Any]:
    answer = create(backend, **fields)
    assert answer.status_code == 200, answer.text
    key: dict[str, Any] = answer.json()
    return key


@pytest.fixture
def holder(here: Installation) -> Iterator[Any]:
    """A backend that holds a key made over HTTP."""
    opened: list[Backend] = []

    def hold(made: dict[str, Any]) -> Backend:
        opened.append(Backend(here.url, here.backend.project_id, made["cleartext"]))
        return opened[-1]

    yield hold
    for backend in opened:
        backend.http.close()


def test_a_new_key_works_for_what_it_was_given_and_for_nothing_else(backend: Backend, holder: Any) -> None:
    limited = holder(created(backend, permissions=["apps:read"]))
    assert limited.get("apps").status_code == 200
    assert limited.post("app/create", {"name": "Not allowed"}).status_code == 403


def test_a_key_is_loaded_as_it_was_created_without_its_text(backend: Backend) -> None:
    made = created(
        backend,
        name="agents",
        description="The runner",
        expiresIn=3600,
        permittedIps=["127.0.0.1", "203.0.113.0/24"],
        appIds=["practice"],
    )
    loaded = backend.http.get(PATH, params={"id": made["key"]["id"]})
    assert loaded.json() == {"key": made["key"]}
    assert made["cleartext"] not in loaded.text
    key = made["key"]
    assert (key["name"], key["description"], key["status"]) == ("agents", "The runner", "active")
    assert key["expireTime"] - key["createdTime"] == 3600
    assert key["permittedIps"] == ["127.0.0.1", "203.0.113.0/24"]
    assert (key["permissions"], key["appIds"]) == (["tokens:fetch"], ["practice"])


@pytest.mark.parametrize(
    ("re_bac", "permissions"),
    [
        ({"companyRoles": ["auditor"]}, ["audit"]),
        ({"companyRoles": ["tokens:fetch", "connect"]}, ["connect", "tokens:fetch"]),
        ({"projectRoles": [{"projectIds": ["PROJECT"], "roles": ["apps:read"]}]}, ["apps:read"]),
    ],
)
def test_a_role_is_a_permission_or_one_of_the_vendors(
    backend: Backend, re_bac: dict[str, Any], permissions: list[str]
) -> None:
    for role in re_bac.get("projectRoles", []):
        role["projectIds"] = [backend.project_id]
    assert created(backend, permissions=None, reBac=re_bac)["key"]["permissions"] == permissions


def test_an_admin_key_may_do_everything_and_its_rebac_can_be_sent_back(backend: Backend, holder: Any) -> None:
    made = created(backend, permissions=None, reBac={"companyRoles": ["admin"]})
    again = created(holder(made), permissions=None, reBac=made["key"]["reBac"])
    assert set(again["key"]["permissions"]) == set(made["key"]["permissions"])
    assert "keys" in made["key"]["permissions"]


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"name": None}, "E011002", "name"),
        ({"permissions": None}, "E011002", "permissions"),
        ({"permissions": ["everything"]}, "E011003", "permissions[0]"),
        ({"permissions": ["admin"]}, "E011003", "permissions[0]"),
        ({"reBac": {"companyRoles": ["owner"]}}, "E011003", "reBac.companyRoles[0]"),
        ({"reBac": {"projectRoles": [{"projectIds": ["Pother"], "roles": []}]}}, "E011003", None),
        ({"reBac": {"tagRoles": [{"tags": ["x"], "roles": ["admin"]}]}}, "E011003", "reBac.tagRoles"),
        ({"permittedIps": ["the office"]}, "E011003", "permittedIps"),
        ({"expiresIn": -1}, "E011003", "expiresIn"),
    ],
)
def test_a_wrong_field_is_named_and_makes_no_key(
    backend: Backend, fields: dict[str, Any], code: str, field: str | None
) -> None:
    before = backend.http.get(f"{PATH}/search").json()
    answer = create(backend, **fields)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, code)
    named = answer.json()["details"]["fields"][0]["field"]
    assert named == (field or "reBac.projectRoles[0].projectIds")
    assert backend.http.get(f"{PATH}/search").json() == before


def test_a_key_makes_no_key_that_can_do_more(backend_with: MakeBackend) -> None:
    soon = clock.now() + timedelta(hours=1)
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"permissions": ["keys", "apps:read"]}, {"permissions": ["tokens:fetch"]}),
        ({"app_ids": ["practice"]}, {}),
        ({"app_ids": ["practice"]}, {"appIds": ["practice", "other"]}),
        ({"allowed_cidrs": ["127.0.0.0/8"]}, {}),
        ({"allowed_cidrs": ["127.0.0.0/8"]}, {"permittedIps": ["127.0.0.1", "::1"]}),
        ({"allowed_cidrs": ["127.0.0.0/8"]}, {"permittedIps": ["0.0.0.0/0"]}),
        ({"expires_at": soon}, {}),
        ({"expires_at": soon}, {"expiresIn": 7200}),
    ]
    for limits, wish in cases:
        answer = create(backend_with(**limits), **wish)
        assert (answer.status_code, answer.json()["errorCode"]) == (403, "E011006"), (limits, wish)


def test_a_limited_key_makes_keys_within_its_limits(backend_with: MakeBackend) -> None:
    soon = clock.now() + timedelta(hours=1)
    maker = backend_with(
        permissions=["keys", "tokens:fetch"], app_ids=["practice"], allowed_cidrs=["127.0.0.0/8"], expires_at=soon
    )
    made = created(maker, appIds=["practice"], permittedIps=["127.0.0.1"], expiresIn=60)
    assert made["key"]["appIds"] == ["practice"]


def test_a_key_neither_changes_nor_deletes_one_that_can_do_more(backend: Backend, backend_with: MakeBackend) -> None:
    stronger = created(backend, permissions=["tokens:fetch"], permittedIps=["203.0.113.0/24"])["key"]
    weak = backend_with(permissions=["keys"])
    change = {"id": stronger["id"], "name": "mine", "status": "active", "permittedIps": []}
    assert weak.http.patch(PATH, json=change).status_code == 403
    assert weak.http.post(f"{PATH}/delete", json={"ids": [stronger["id"]]}).status_code == 403
    assert backend.http.get(PATH, params={"id": stronger["id"]}).json()["key"] == stronger


def test_a_limited_key_does_not_widen_one_beyond_its_own_limits(backend: Backend, backend_with: MakeBackend) -> None:
    near = backend_with(permissions=["keys"], allowed_cidrs=["127.0.0.0/8"])
    made = created(near, permissions=["keys"], permittedIps=["127.0.0.1"])["key"]
    for networks in ([], ["0.0.0.0/0"]):
        change = {"id": made["id"], "name": "wider", "status": "active", "permittedIps": networks}
        assert near.http.patch(PATH, json=change).status_code == 403
    assert backend.http.get(PATH, params={"id": made["id"]}).json()["key"] == made


def test_a_key_does_not_narrow_one_that_reaches_further(backend: Backend, backend_with: MakeBackend) -> None:
    wide = created(backend, permissions=["keys"])["key"]
    near = backend_with(permissions=["keys"], allowed_cidrs=["127.0.0.0/8"])
    change = {"id": wide["id"], "name": "mine", "status": "active", "permittedIps": ["127.0.0.1"]}
    assert near.http.patch(PATH, json=change).status_code == 403
    assert backend.http.get(PATH, params={"id": wide["id"]}).json()["key"] == wide


def test_an_update_replaces_all_and_takes_effect(backend: Backend, holder: Any) -> None:
    made = created(backend, permissions=["apps:read"], description="old")
    user = holder(made)
    assert user.get("apps").status_code == 200
    change = {"id": made["key"]["id"], "name": "renamed", "permittedIps": ["127.0.0.0/8"], "status": "inactive"}
    key = backend.http.patch(PATH, json=change).json()["key"]
    assert (key["name"], key["description"], key["status"]) == ("renamed", "", "inactive")
    assert user.get("apps").status_code == 401
    backend.http.patch(PATH, json={**change, "status": "active", "permittedIps": ["203.0.113.0/24"]})
    assert "address" in user.get("apps").json()["message"]
    backend.http.patch(PATH, json={**change, "status": "active"})
    assert user.get("apps").status_code == 200


def test_deleted_keys_stop_working_and_unknown_ids_are_passed_over(backend: Backend, holder: Any) -> None:
    made = [created(backend, permissions=["apps:read"]) for _ in range(2)]
    user = holder(made[0])
    assert user.get("apps").status_code == 200
    ids = [key["key"]["id"] for key in made]
    assert backend.http.post(f"{PATH}/delete", json={"ids": [*ids, "unknown"]}).json() == {"total": 2}
    assert user.get("apps").status_code == 401
    left = [key["id"] for key in backend.http.get(f"{PATH}/search").json()["keys"]]
    assert not set(ids) & set(left)
    assert backend.http.get(PATH, params={"id": ids[0]}).status_code == 404


def test_a_key_may_delete_itself(backend: Backend, holder: Any) -> None:
    made = created(backend, permissions=["keys"])
    itself = holder(made)
    assert itself.http.post(f"{PATH}/delete", json={"ids": [made["key"]["id"]]}).json() == {"total": 1}
    assert itself.http.get(f"{PATH}/search").status_code == 401


def test_keys_need_the_permission_and_stay_in_their_project(here: Installation, backend_with: MakeBackend) -> None:
    outsider = backend_with(permissions=["apps:read", "apps:write", "audit"])
    assert create(outsider).status_code == 403
    assert outsider.http.get(f"{PATH}/search").status_code == 403
    other = Backend(here.url, "Pelsewhere", here.backend.management_key)
    assert other.http.get(f"{PATH}/search").status_code == 401
    other.http.close()


def test_another_projects_key_is_not_found(here: Installation, backend_with: MakeBackend) -> None:
    made = asyncio.run(initialise(here.settings, project_name="Other"))
    foreign = Backend(here.url, made.project_id, made.management_key)
    key_id = created(here.backend)["key"]["id"]
    assert foreign.http.get(PATH, params={"id": key_id}).status_code == 404
    assert [key["name"] for key in foreign.http.get(f"{PATH}/search").json()["keys"]] == ["admin"]
    change = {"id": key_id, "name": "mine", "status": "active"}
    assert foreign.http.patch(PATH, json=change).status_code == 404
    assert foreign.http.post(f"{PATH}/delete", json={"ids": [key_id]}).json() == {"total": 0}
    foreign.http.close()


def test_when_a_key_was_used_is_shown(here: Installation, backend: Backend, holder: Any) -> None:
    made = created(backend, permissions=["apps:read"])

    async def use() -> None:
        async with open_broker(here.settings) as broker:
            header = f"Bearer {backend.project_id}:{made['cleartext']}"
            await authenticate(broker, header, client_address="198.51.100.1", now=clock.now())
            await write_key_uses(broker)

    asyncio.run(use())
    assert backend.http.get(PATH, params={"id": made["key"]["id"]}).json()["key"]["lastUsedTime"] > 0
