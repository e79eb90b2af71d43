"""`management_key` and `audit` of the SDK."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from descope import AuthException
from descope.management.common import MgmtKeyProjectRole, MgmtKeyReBac, MgmtKeyStatus, MgmtKeyTagRole

from tests.infra.installation import APP_ID, Backend
from tests.sdk.conftest import MakeClient, Waiting, connect, refused

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")  # the SDK's own


@pytest.fixture
def keys(sdk: Waiting) -> Waiting:
    calls: Waiting = sdk.management_key
    return calls


def roles(backend: Backend, *names: str) -> MgmtKeyReBac:
    return MgmtKeyReBac(project_roles=[MgmtKeyProjectRole([backend.project_id], list(names))])


def test_a_key_goes_through_its_life(keys: Waiting, backend: Backend, make_client: MakeClient, user: str) -> None:
    made = keys.create(user, roles(backend, "apps:read"), "For a test", 3600, ["127.0.0.0/8"])
    key = made["key"]
    assert (key["name"], key["description"], key["status"]) == (user, "For a test", "active")
    assert key["permittedIps"] == ["127.0.0.0/8"]
    assert key["expireTime"] - key["createdTime"] == 3600
    assert keys.load(key["id"]) == {"key": key}
    assert key in keys.search()["keys"]

    holder = make_client(management_key=made["cleartext"]).mgmt.outbound_application
    assert holder.load_application(APP_ID)["app"]["id"] == APP_ID
    refused(lambda: holder.delete_application(APP_ID), 403, "E011006")

    changed = keys.update(key["id"], f"{user}, off", "", [], MgmtKeyStatus.INACTIVE)["key"]
    assert (changed["name"], changed["description"], changed["status"]) == (f"{user}, off", "", "inactive")
    assert changed["permittedIps"] == []
    refused(lambda: holder.load_application(APP_ID), 401, "E011005")
    keys.update(key["id"], user, "", [], MgmtKeyStatus.ACTIVE)
    assert holder.load_application(APP_ID)["app"]["id"] == APP_ID

    assert keys.delete([key["id"], "unknown"]) == {"total": 1}
    refused(lambda: keys.load(key["id"]), 404, "E011004")
    refused(lambda: holder.load_application(APP_ID), 401, "E011005")


def test_a_key_without_an_end_and_with_everything(keys: Waiting, user: str) -> None:
    key = keys.create(user, MgmtKeyReBac(company_roles=["admin"]))["key"]
    assert key["expireTime"] == 0
    assert "keys" in key["permissions"]


def test_what_evergrant_does_not_know_is_refused(keys: Waiting, user: str) -> None:
    refused(lambda: keys.create(user, MgmtKeyReBac()), 400, "E011002")
    refused(lambda: keys.create(user, MgmtKeyReBac(company_roles=["emperor"])), 400, "E011003")
    tags = MgmtKeyReBac(tag_roles=[MgmtKeyTagRole(["production"], ["admin"])])
    refused(lambda: keys.create(user, tags), 400, "E011003")
    elsewhere = MgmtKeyReBac(project_roles=[MgmtKeyProjectRole(["Pelsewhere"], ["apps:read"])])
    refused(lambda: keys.create(user, elsewhere), 400, "E011003")
    refused(lambda: keys.create(user, MgmtKeyReBac(["audit"]), permitted_ips=["home"]), 400, "E011003")
    refused(lambda: keys.update("unknown", user, "", [], MgmtKeyStatus.ACTIVE), 404, "E011004")
    assert keys.delete(["unknown"]) == {"total": 0}
    with pytest.raises(ValueError, match="name"):  # the SDK asks nobody
        keys.create("", MgmtKeyReBac(["audit"]))


def test_a_key_makes_no_stronger_one(keys: Waiting, backend: Backend, make_client: MakeClient, user: str) -> None:
    weak = keys.create(user, roles(backend, "keys"))
    holder = make_client(management_key=weak["cleartext"]).mgmt.management_key
    refused(lambda: holder.create(user, roles(backend, "tokens:fetch")), 403, "E011006")
    assert holder.create(user, roles(backend, "keys"))["key"]["permissions"] == ["keys"]


def test_what_happened_is_found(sdk: Waiting, backend: Backend, user: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    connect(backend, user, tenantId="acme")
    found = sdk.audit.search(
        user_ids=[user],
        login_ids=[user],
        actions=["grant.connected", "connect.started"],
        excluded_actions=["connect.started"],
        tenants=["acme"],
        no_tenants=True,
        remote_addresses=["127.0.0.1"],
        text="contacts",
        from_ts=before,
        to_ts=datetime.now(UTC) + timedelta(seconds=60),
    )
    (record,) = found["audits"]
    assert (record["projectId"], record["userId"], record["action"]) == (backend.project_id, user, "grant.connected")
    assert (record["loginIds"], record["tenants"], record["remoteAddress"]) == ([user], ["acme"], "127.0.0.1")
    assert abs(record["occurred"].replace(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    assert record["data"]["grantId"]


@pytest.mark.parametrize("unknown", [{"devices": ["Bot"]}, {"methods": ["otp"]}, {"geos": ["US"]}])
def test_what_evergrant_does_not_record_is_not_found(sdk: Waiting, unknown: dict[str, Any]) -> None:
    assert sdk.audit.search(**unknown) == {"audits": []}


def test_an_event_of_ones_own_is_recorded(sdk: Waiting, user: str) -> None:
    sdk.audit.create_event("invoice.sent", "info", "billing", "acme", user_id=user, data={"invoice": "4711"})
    (record,) = sdk.audit.search(user_ids=[user])["audits"]
    assert (record["action"], record["tenants"]) == ("invoice.sent", ["acme"])
    assert record["data"] == {"invoice": "4711", "type": "info", "actorId": "billing"}
    refused(lambda: sdk.audit.create_event("key.deleted", "info", "billing", "acme"), 400, "E011003")
    refused(lambda: sdk.audit.create_event("invoice.sent", "panic", "billing", "acme"), 400, "E011003")


def test_keys_and_the_log_need_their_permissions(
    backend: Backend, make_client: MakeClient, keys: Waiting, user: str
) -> None:
    made = keys.create(user, roles(backend, "apps:read"))
    limited = make_client(management_key=made["cleartext"]).mgmt
    refused(limited.management_key.search, 403, "E011006")
    refused(limited.audit.search, 403, "E011006")
    refused(lambda: limited.audit.create_event("a", "info", "b", "c"), 403, "E011006")


def test_a_client_without_a_key_asks_nobody(make_client: MakeClient) -> None:
    with pytest.raises(AuthException, match="Management key is required"):
        make_client(management_key=None).mgmt.audit.search()
