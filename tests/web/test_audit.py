"""The audit log: every change and disclosure leaves a record of who did it, and nothing secret."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from evergrant import clock
from evergrant.broker.access.authentication import authenticate, write_key_uses
from evergrant.broker.audit.log import OWN_ACTIONS
from evergrant.broker.operations.key_rotation import start_new_data_keys
from evergrant.broker.runtime.broker import open_broker
from evergrant.db import AuditEvent
from tests.infra.installation import APP_ID, BACK, Backend, Installation, new_project
from tests.web.conftest import MakeBackend

SOURCE = Path(__file__).parents[2] / "src/evergrant"


def search(backend: Backend, **wanted: Any) -> httpx2.Response:
    return backend.http.post("/v1/mgmt/audit/search", json=wanted)


def audits(backend: Backend, **wanted: Any) -> list[dict[str, Any]]:
    answer = search(backend, **wanted)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["audits"]
    return found


def actions(backend: Backend, **wanted: Any) -> list[str]:
    return [record["action"] for record in audits(backend, **wanted)]


@pytest.fixture
def backend(here: Installation) -> Backend:
    return here.backend


@pytest.fixture
def app_id(backend: Backend, request: pytest.FixtureRequest) -> Iterator[str]:
    """An app of the test's own, which changes nothing else."""
    app_id = "own"
    backend.create_app({"id": app_id, "name": "Own", "clientId": "c", "clientSecret": "hidden-1"})
    yield app_id
    backend.post("app/delete", {"id": app_id})


def test_a_change_of_an_app_names_its_fields_and_who_changed_them(backend: Backend, app_id: str) -> None:
    update = {"id": app_id, "name": "Own", "clientId": "c", "clientSecret": "hidden-2", "pkce": False}
    assert backend.post("app/update", {"app": update}).status_code == 200
    newest = audits(backend, text=app_id, limit=1)[0]
    assert (newest["action"], newest["appId"]) == ("app.updated", app_id)
    assert newest["data"] == {"fields": ["clientSecret", "pkce"]}
    assert re.fullmatch(r"key:\w{12}", newest["actor"])
    assert newest["remoteAddress"] == "127.0.0.1"
    assert "hidden" not in search(backend).text


def test_an_app_that_is_made_and_deleted_is_recorded(backend: Backend) -> None:
    backend.create_app({"id": "brief", "name": "Brief"})
    backend.post("app/delete", {"id": "brief"})
    assert actions(backend, text="brief") == ["app.deleted", "app.created"]


def test_what_is_refused_leaves_no_record(backend: Backend, app_id: str) -> None:
    before = audits(backend)
    backend.post("app/create", {"id": app_id, "name": "Taken"})
    backend.post("app/create", {"name": "Bad", "tokenUrl": "ftp://x"})
    backend.post("app/delete", {"id": "unknown"})
    assert audits(backend) == before


def test_a_trip_is_recorded_from_its_start_to_the_connection(here: Installation, backend: Backend) -> None:
    here.connected("traveller", tenantId="acme", options={"redirectUrl": BACK, "externalIdentifier": "second"})
    connected, started = audits(backend, userIds=["traveller"])
    assert (started["action"], connected["action"]) == ("connect.started", "grant.connected")
    assert started["actor"].startswith("key:")
    assert connected["actor"] == "user:traveller"
    assert connected["appId"] == APP_ID
    assert (connected["tenants"], connected["externalIds"]) == (["acme"], ["traveller"])
    token = backend.token("traveller", tenantId="acme", externalIdentifier="second")
    assert connected["data"]["grantId"] == token["id"]
    assert sorted(connected["data"]["scopes"]) == sorted(token["scopes"])
    assert connected["data"]["externalIdentifier"] == "second"


def test_a_trip_that_fails_is_recorded_with_its_code(here: Installation, backend: Backend) -> None:
    denied = here.browser().connect(backend.connect_url("denier"), action="deny")
    assert denied["outboundStatus"] == "failed"
    cancelling, link = here.browser(), backend.connect_url("canceller")
    cancelling.open(link)
    cancelling.http.post(link, data={"decision": "cancel"})
    for user in ("denier", "canceller"):
        failed = audits(backend, userIds=[user])[0]
        assert (failed["action"], failed["data"], failed["actor"]) == (
            "grant.connect_failed",
            {"err": "access_denied"},
            f"user:{user}",
        )


def test_an_answer_in_another_browser_is_recorded(here: Installation, backend: Backend) -> None:
    browser = here.browser()
    callback = browser.allow(browser.agree(backend.connect_url("victim")))
    here.browser().open(callback)
    assert audits(backend, userIds=["victim"])[0]["data"] == {"err": "browser_mismatch"}


def test_confirmations_are_recorded_whether_they_are_good_or_not(here: Installation, backend: Backend) -> None:
    app = {**here.provider.registration, "id": "careful", "name": "Careful", "requireConfirmation": True}
    backend.create_app(app)
    for claimed, action in (("honest", "grant.confirmed"), ("mallory", "grant.confirmation_refused")):
        back = here.browser().connect(backend.connect_url("honest", appId="careful"))
        backend.post("app/connect/confirm", {"confirmation": back["confirmation"], "userId": claimed})
        newest = audits(backend, userIds=["honest"], limit=1)[0]
        assert (newest["action"], newest["data"]["confirmedFor"]) == (action, claimed)


def test_seeing_a_refresh_token_is_recorded_and_seeing_an_access_token_is_not(
    here: Installation, backend: Backend
) -> None:
    here.connected("seen")
    before = audits(backend)
    backend.token("seen")
    assert audits(backend) == before
    token = backend.token("seen", options={"withRefreshToken": True})
    newest = audits(backend, limit=1)[0]
    assert (newest["action"], newest["userId"]) == ("token.refresh_token_fetched", "seen")
    assert newest["data"] == {"grantId": token["id"]}
    assert token["refreshToken"] not in search(backend).text


def test_a_consent_that_dies_is_recorded(here: Installation, backend: Backend) -> None:
    here.connected("mortal")
    for family in here.provider.state.families:
        family.revoked_because = "the user's own wish"
    assert backend.fetch("mortal", options={"forceRefresh": True}).status_code == 404
    newest = audits(backend, userIds=["mortal"], limit=1)[0]
    assert newest["action"] == "grant.reauthorization_required"
    assert "invalid_grant" in newest["data"]["reason"]


def test_what_happens_to_keys_is_recorded_without_their_texts(backend: Backend) -> None:
    path = "/v1/mgmt/managementkey"
    made = backend.http.put(path, json={"name": "recorded", "permissions": ["audit"]}).json()
    key_id = made["key"]["id"]
    change = {"id": key_id, "name": "recorded", "status": "inactive"}
    backend.http.patch(path, json=change)
    backend.http.patch(path, json={**change, "status": "active"})
    backend.http.patch(path, json={**change, "status": "active", "name": "other", "permittedIps": ["10.0.0.0/8"]})
    backend.http.post(f"{path}/delete", json={"ids": [key_id]})
    found = audits(backend, text=key_id)
    assert [record["action"] for record in found] == [
        "key.deleted",
        "key.updated",
        "key.enabled",
        "key.disabled",
        "key.created",
    ]
    assert found[1]["data"]["fields"] == ["name", "permittedIps"]
    assert made["cleartext"] not in search(backend).text


def test_the_first_use_of_a_key_from_an_address_is_recorded_once(here: Installation, backend: Backend) -> None:
    made = backend.http.put("/v1/mgmt/managementkey", json={"name": "roaming", "permissions": ["audit"]}).json()
    header = f"Bearer {backend.project_id}:{made['cleartext']}"

    async def use(*addresses: str) -> None:
        async with open_broker(here.settings) as broker:  # as a process of its own: it remembers nothing
            for address in addresses:
                await authenticate(broker, header, client_address=address, now=clock.now())
            await write_key_uses(broker)
            await authenticate(broker, header, client_address=addresses[0], now=clock.now())
            await write_key_uses(broker)

    asyncio.run(use("198.51.100.1", "198.51.100.2", "198.51.100.1"))
    asyncio.run(use("198.51.100.2", "198.51.100.3"))
    found = audits(backend, actions=["key.used_from_new_address"], text=made["key"]["id"])
    assert sorted(record["remoteAddress"] for record in found) == ["198.51.100.1", "198.51.100.2", "198.51.100.3"]
    assert {record["actor"] for record in found} == {f"key:{made['key']['id']}"}


def test_new_data_keys_are_recorded(here: Installation, backend: Backend) -> None:
    async def rotate() -> None:
        async with open_broker(here.settings) as broker:
            await start_new_data_keys(broker, now=clock.now())

    asyncio.run(rotate())
    newest = audits(backend, limit=1)[0]
    assert (newest["action"], newest["actor"]) == ("keyring.rotated", "evergrant")


# -- searching


@pytest.fixture(scope="module")
def history(here: Installation) -> list[dict[str, Any]]:
    """Events of an application, newest first."""
    events: Sequence[dict[str, Any]] = [
        {"action": "invoice.sent", "tenantId": "acme", "userId": "ann", "data": {"text": "Grüße 100%"}},
        {"action": "invoice.sent", "tenantId": "umbrella", "userId": "ben", "data": {}},
        {"action": "invoice.paid", "tenantId": "acme", "userId": "ben"},
        {"action": "invoice.lost", "tenantId": "", "userId": "ann"},
    ]
    for event in events:
        body = {"type": "info", "actorId": "billing", **event}
        answer = here.backend.http.post("/v1/mgmt/audit/event", json=body)
        assert (answer.status_code, answer.json()) == (200, {})
    return audits(here.backend, text="billing")


INVOICES = ["invoice.sent", "invoice.paid", "invoice.lost"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"actions": INVOICES}, [3, 2, 1, 0]),
        ({"actions": INVOICES, "excludedActions": ["invoice.sent"]}, [3, 2]),
        ({"actions": INVOICES, "userIds": ["ann"]}, [3, 0]),
        ({"actions": INVOICES, "externalIds": ["ben"]}, [2, 1]),
        ({"actions": INVOICES, "userIds": ["ann"], "externalIds": ["ben"]}, []),
        ({"actions": INVOICES, "tenants": ["acme"]}, [2, 0]),
        ({"actions": INVOICES, "tenants": ["acme"], "noTenants": True}, [3, 2, 0]),
        ({"actions": INVOICES, "noTenants": True}, [3, 2, 1, 0]),
        ({"actions": INVOICES, "remoteAddresses": ["127.0.0.1"]}, [3, 2, 1, 0]),
        ({"actions": INVOICES, "remoteAddresses": ["198.51.100.9"]}, []),
        ({"actions": INVOICES, "devices": ["Bot"]}, []),
        ({"actions": INVOICES, "methods": ["otp"]}, []),
        ({"actions": INVOICES, "geos": ["DE"]}, []),
        ({"text": "GRÜSSE"}, []),
        ({"text": "grüße 100%"}, [0]),
        ({"text": "INVOICE.P"}, [2]),
        ({"text": "_nvoice"}, []),
        ({"actions": INVOICES, "limit": 3}, [3, 2, 1]),
        ({"actions": INVOICES, "limit": 3, "page": 1}, [0]),
        ({"actions": INVOICES, "from": -62135596800000, "to": -62135596800000}, [3, 2, 1, 0]),
        ({"actions": INVOICES, "to": 1}, []),
        ({"actions": INVOICES, "from": 4_000_000_000_000}, []),
    ],
)
def test_a_search_returns_what_fits_all_of_it_newest_first(
    backend: Backend, history: list[dict[str, Any]], wanted: dict[str, Any], expected: list[int]
) -> None:
    by_age = history[::-1]
    assert audits(backend, **wanted) == [by_age[i] for i in expected]


def test_a_search_keeps_to_its_times(backend: Backend, history: list[dict[str, Any]]) -> None:
    newest, oldest = history[0], history[-1]
    at = int(newest["occurred"])
    assert newest in audits(backend, **{"from": at, "to": at + 1})
    later = audits(backend, **{"from": int(oldest["occurred"]) + 1, "actions": INVOICES})
    assert oldest not in later


def test_an_event_says_who_sent_it_and_what_it_was(history: list[dict[str, Any]]) -> None:
    event = history[-1]
    assert event["data"] == {"text": "Grüße 100%", "type": "info", "actorId": "billing"}
    assert event["actor"].startswith("key:")
    assert (event["userId"], event["tenants"]) == ("ann", ["acme"])


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({"action": ""}, "action"),
        ({"action": "key.deleted"}, "action"),
        ({"type": "panic"}, "type"),
        ({"actorId": None}, "actorId"),
        ({"data": {"much": "x" * 10_000}}, "data"),
    ],
)
def test_a_wrong_event_is_refused_and_not_recorded(backend: Backend, event: dict[str, Any], field: str) -> None:
    before = audits(backend)
    body = {"action": "invoice.sent", "type": "info", "actorId": "billing", "tenantId": "acme", **event}
    answer = backend.http.post("/v1/mgmt/audit/event", json=body)
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == field
    assert audits(backend) == before


def test_numbers_that_are_none_are_refused(backend: Backend) -> None:
    body = b'{"action": "a", "type": "info", "actorId": "b", "tenantId": "", "data": {"n": NaN}}'
    answer = backend.http.post("/v1/mgmt/audit/event", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


@pytest.mark.parametrize("wanted", [{"limit": 0}, {"limit": 1001}, {"page": -1}, {"from": "yesterday"}, {"text": 5}])
def test_a_wrong_search_is_refused(backend: Backend, wanted: dict[str, Any]) -> None:
    answer = search(backend, **wanted)
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == next(iter(wanted))


def test_the_log_needs_the_permission_and_stays_in_its_project(here: Installation, backend_with: MakeBackend) -> None:
    unable = backend_with(permissions=["apps:read", "keys"])
    assert search(unable).status_code == 403
    event = {"action": "a", "type": "info", "actorId": "b", "tenantId": "c"}
    assert unable.http.post("/v1/mgmt/audit/event", json=event).status_code == 403
    other = backend_with(new_project(here.settings).project_id)  # whose log tells at least of this key
    for each in (here.backend, other):
        assert {record["projectId"] for record in audits(each)} == {each.project_id}


# -- shape


def test_every_action_in_the_source_is_one_that_nobody_else_can_write() -> None:
    found = set()
    for path in (SOURCE / "broker").rglob("*.py"):
        if "record" in (text := path.read_text()):
            found |= set(re.findall(r'"([a-z_]+\.[a-z_]+)"', text))
    recorded = {action for action in found if not action.startswith(("evergrant.", "options."))}
    assert len(recorded) > 15
    assert {action for action in recorded if not action.startswith(OWN_ACTIONS)} == set()


def test_a_record_holds_nothing_that_is_sealed() -> None:
    assert not [column for column in AuditEvent.__table__.columns if "Sealed" in type(column.type).__name__]
