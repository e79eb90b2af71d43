"""Who may call what: credentials, permissions, limits of a key, and the walls between projects."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from evergrant.broker.access.management_keys import set_key_disabled
from evergrant.broker.runtime.broker import open_broker
from evergrant.broker.runtime.principal import Permission
from tests.conftest import Clock
from tests.infra.installation import APP_ID, BACK, SCOPES, Backend, Installation
from tests.infra.rows import dump
from tests.web.conftest import MakeBackend

UNKNOWN_KEY = "evg_nobody_" + "x" * 43

CALLS: dict[str, tuple[str, str, dict[str, Any] | None, Permission | None]] = {
    "create": ("POST", "outbound/app/create", {"id": "denied", "name": "Denied"}, Permission.APPS_WRITE),
    "update": ("POST", "outbound/app/update", {"app": {"id": APP_ID, "name": "Denied"}}, Permission.APPS_WRITE),
    "delete": ("POST", "outbound/app/delete", {"id": APP_ID}, Permission.APPS_WRITE),
    "load": ("GET", f"outbound/app/{APP_ID}", None, Permission.APPS_READ),
    "load all": ("GET", "outbound/apps", None, Permission.APPS_READ),
    "user": (
        "POST",
        "outbound/app/user/token",
        {"appId": APP_ID, "userId": "alice", "scopes": SCOPES},
        Permission.TOKENS_FETCH,
    ),
    "user latest": (
        "POST",
        "outbound/app/user/token/latest",
        {"appId": APP_ID, "userId": "alice"},
        Permission.TOKENS_FETCH,
    ),
    "tenant": (
        "POST",
        "outbound/app/tenant/token",
        {"appId": APP_ID, "tenantId": "acme", "scopes": SCOPES},
        Permission.TOKENS_FETCH,
    ),
    "tenant latest": (
        "POST",
        "outbound/app/tenant/token/latest",
        {"appId": APP_ID, "tenantId": "acme"},
        Permission.TOKENS_FETCH,
    ),
    "connect": (
        "POST",
        "outbound/app/connect",
        {"appId": APP_ID, "userId": "alice", "options": {"redirectUrl": BACK}},
        Permission.CONNECT,
    ),
    "confirm": ("POST", "outbound/app/connect/confirm", {"confirmation": "x", "userId": "alice"}, Permission.CONNECT),
    "license": ("GET", "license", None, None),
}


def call(http: httpx2.Client, name: str, **headers: str) -> httpx2.Response:
    method, path, body, _ = CALLS[name]
    return http.request(method, f"/v1/mgmt/{path}", json=body, headers=headers)


def rejected(answer: httpx2.Response) -> bool:
    """Whether it is a 401 of the documented form."""
    return (
        answer.status_code == 401
        and answer.json()["errorCode"] == "E011005"
        and answer.headers["www-authenticate"].startswith("Bearer")
    )


@pytest.mark.parametrize("name", CALLS)
def test_a_call_needs_a_credential_of_this_project(here: Installation, other: Backend, name: str) -> None:
    mine = here.backend
    before = dump(here.settings)
    with httpx2.Client(base_url=here.url, trust_env=False) as http:
        assert rejected(call(http, name))
        for wrong in (
            "",
            "Bearer",
            "Bearer :",
            f"Bearer {mine.project_id}",
            f"Bearer {mine.project_id}:",
            f"Bearer :{mine.management_key}",
            f"Bearer {mine.management_key}",
            f"Basic {mine.project_id}:{mine.management_key}",
            f"{mine.project_id}:{mine.management_key}",
            f"Bearer {mine.project_id}:{UNKNOWN_KEY}",
            f"Bearer {mine.project_id}:{mine.management_key}x",
            f"Bearer {mine.project_id}:{mine.management_key[:-1]}",
            f"Bearer Pnobody:{mine.management_key}",
            f"Bearer {other.project_id}:{mine.management_key}",
            f"Bearer {mine.project_id}:{other.management_key}",
            f"Bearer {mine.project_id}:' OR '1'='1",
        ):
            answer = call(http, name, Authorization=wrong)
            assert rejected(answer), (wrong, answer.text)
            assert mine.management_key not in answer.text
    assert dump(here.settings) == before


def test_the_scheme_is_read_without_regard_to_case(here: Installation) -> None:
    header = f"bearer {here.backend.project_id}:{here.backend.management_key}"
    assert call(here.backend.http, "license", Authorization=header).json() == {"rateLimitTier": "tier4"}


@pytest.mark.parametrize("name", CALLS)
def test_a_key_without_the_permission_is_refused_and_told_which_one(
    here: Installation, backend_with: MakeBackend, name: str
) -> None:
    permission = CALLS[name][3]
    before_key = [str(p) for p in Permission if p != permission]
    limited = backend_with(permissions=before_key)
    before = dump(here.settings)
    answer = call(limited.http, name)
    if permission is None:
        assert answer.status_code == 200
        return
    assert (answer.status_code, answer.json()["errorCode"]) == (403, "E011006")
    assert f"'{permission}'" in answer.json()["message"]
    assert dump(here.settings) == before


@pytest.mark.parametrize("name", [name for name, (*_, permission) in CALLS.items() if permission])
def test_the_one_permission_is_enough(here: Installation, backend_with: MakeBackend, name: str) -> None:
    if name in ("create", "update", "delete"):
        return_to = here.backend.create_app({"id": f"mine-{name}", "name": f"Mine {name}"})
        backend = backend_with(permissions=[str(Permission.APPS_WRITE)])
        bodies: dict[str, dict[str, Any]] = {
            "create": {"id": "mine", "name": "Mine"},
            "update": {"app": {"id": return_to["id"], "name": "Mine, changed"}},
            "delete": {"id": return_to["id"]},
        }
        assert backend.post(f"app/{name}", bodies[name]).status_code == 200
        return
    answer = call(backend_with(permissions=[str(CALLS[name][3])]).http, name)
    # nobody has connected, and the confirmation is unknown; but the call was let through
    assert answer.status_code == (200 if name in ("load", "load all", "connect") else 404), answer.text


def test_a_key_expires(here: Installation, backend_with: MakeBackend, clock: Clock) -> None:
    backend = backend_with(expires_at=clock.now + timedelta(hours=1))
    assert backend.get("apps").status_code == 200
    clock.advance(3600)
    answer = backend.get("apps")
    assert rejected(answer)
    assert "expired" in answer.json()["message"]


def test_a_disabled_key_is_as_unknown_as_any(here: Installation, backend_with: MakeBackend) -> None:
    backend = backend_with(key_id="off")

    async def disable() -> None:
        async with open_broker(here.settings) as broker:
            await set_key_disabled(broker, backend.project_id, "off", disabled=True)

    asyncio.run(disable())
    answer = backend.get("apps")
    assert rejected(answer)
    assert "disabled" not in answer.text


def test_a_key_works_from_its_networks_only(here: Installation, backend_with: MakeBackend) -> None:
    assert backend_with(allowed_cidrs=["203.0.113.0/24", "127.0.0.0/8"]).get("apps").status_code == 200
    elsewhere = backend_with(allowed_cidrs=["203.0.113.0/24", "2001:db8::/32"])
    answer = elsewhere.get("apps")
    assert rejected(answer)
    assert "address" in answer.json()["message"]


def test_a_key_for_named_apps_reaches_no_other(here: Installation, backend_with: MakeBackend) -> None:
    here.backend.create_app({"id": "named", "name": "Named"})
    limited = backend_with(app_ids=["named"])
    before = dump(here.settings)
    assert [app["id"] for app in limited.get("apps").json()["apps"]] == ["named"]
    assert limited.get("app/named").status_code == 200
    for name in CALLS.keys() - {"load all", "license", "confirm"}:
        answer = call(limited.http, name)
        assert (answer.status_code, answer.json()["errorCode"]) == (403, "E011006"), name
    assert dump(here.settings) == before


def test_a_refresh_token_needs_a_permission_of_its_own(here: Installation, backend_with: MakeBackend) -> None:
    here.connected("keeper")
    limited = backend_with(permissions=[str(Permission.TOKENS_FETCH)])
    assert "refreshToken" not in limited.token("keeper")
    answer = limited.fetch("keeper", options={"withRefreshToken": True})
    assert (answer.status_code, answer.json()["errorCode"]) == (403, "E011006")
    assert "'tokens:fetch:refresh_token'" in answer.json()["message"]
    assert here.backend.token("keeper", options={"withRefreshToken": True})["refreshToken"]


def test_another_projects_apps_and_grants_are_not_there(here: Installation, other: Backend) -> None:
    here.connected("alice")
    assert here.backend.fetch("alice").status_code == 200
    before = dump(here.settings)
    assert other.get("apps").json() == {"apps": []}
    for name in ("update", "delete", "load", "user", "user latest", "tenant", "tenant latest", "connect"):
        answer = call(other.http, name)
        assert (answer.status_code, answer.json()["errorCode"]) == (404, "E111503"), name
    assert dump(here.settings) == before


def test_the_same_ids_in_another_project_are_other_things(here: Installation, other: Backend) -> None:
    here.connected("alice")
    other.create_app(here.provider.registration)  # the same id and name: no conflict
    answer = other.fetch("alice")
    assert (answer.status_code, answer.json()["errorCode"]) == (404, "E111504")
    assert "missingScopes" not in answer.text
    mine = here.backend.token("alice")
    same = {"appId": APP_ID, "userId": "alice", "accessToken": "at-of-the-other", "scopes": SCOPES}
    assert other.post("app/user/oauthtoken/upload", same).status_code == 200
    assert (other.token("alice")["accessToken"], here.backend.token("alice")) == ("at-of-the-other", mine)
    assert other.post("app/delete", {"id": APP_ID}).status_code == 200
    assert here.backend.fetch("alice").status_code == 200


def to_confirm(here: Installation, app_id: str) -> dict[str, str]:
    """Connect carol through a new app, and return what her backend confirms that with."""
    here.backend.create_app({**here.provider.registration, "id": app_id, "name": app_id, "requireConfirmation": True})
    back = here.browser().connect(here.backend.connect_url("carol", appId=app_id))
    return {"confirmation": back["confirmation"], "userId": "carol"}


def test_a_key_for_named_apps_confirms_no_connection_of_others(here: Installation, backend_with: MakeBackend) -> None:
    body = to_confirm(here, "of-others")
    assert backend_with(app_ids=[APP_ID]).post("app/connect/confirm", body).status_code == 404
    assert backend_with(app_ids=["of-others"]).post("app/connect/confirm", body).status_code == 200


def test_a_confirmation_counts_in_its_own_project_only(here: Installation, other: Backend) -> None:
    body = to_confirm(here, "careful")
    assert other.post("app/connect/confirm", body).status_code == 404
    assert here.backend.post("app/connect/confirm", body).status_code == 200
