"""Uploading, listing and deleting tokens through the SDK."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.infra.installation import APP_ID, SCOPES, Backend
from tests.sdk.conftest import Served, Waiting, connect, refused

OwnApp = Callable[..., str]


@pytest.fixture
def key_app(backend: Backend) -> str:
    """An app that holds API keys."""
    backend.post("app/create", {"id": "keyed", "name": "Keyed", "appType": "apikey"})
    return "keyed"


def practice_refresh_token(backend: Backend, user: str) -> str:
    """Return a refresh token that the practice provider issued to the same client: what an export holds."""
    connect(backend, f"before-{user}")
    options = {"withRefreshToken": True}
    return str(backend.token(f"before-{user}", options=options)["refreshToken"])


def test_a_users_and_a_tenants_api_keys_are_uploaded_and_replaced(apps: Waiting, key_app: str, user: str) -> None:
    tenant = f"tenant-of-{user}"
    apps.upload_user_api_key(key_app, user, "key-of-the-user")
    apps.upload_user_api_key(key_app, user, "key-in-the-tenant", tenant_id=tenant)
    apps.upload_tenant_api_key(key_app, tenant, "key-of-the-tenant")
    assert apps.fetch_token(key_app, user)["token"]["accessToken"] == "key-of-the-user"
    assert apps.fetch_token(key_app, user, tenant)["token"]["accessToken"] == "key-in-the-tenant"
    assert apps.fetch_tenant_token(key_app, tenant)["token"]["accessToken"] == "key-of-the-tenant"
    apps.upload_user_api_key(key_app, user, "another-key")
    assert apps.fetch_token(key_app, user)["token"]["accessToken"] == "another-key"


def test_an_api_key_that_does_not_fit_is_refused(apps: Waiting, key_app: str, user: str) -> None:
    refused(lambda: apps.upload_user_api_key("unknown", user, "k"), 404, "E111503")
    refused(lambda: apps.upload_user_api_key(APP_ID, user, "k"), 400, "E011003")
    refused(lambda: apps.upload_user_api_key(key_app, user, ""), 400, "E011002")
    refused(lambda: apps.upload_tenant_api_key(APP_ID, "acme", "k"), 400, "E011003")
    refused(lambda: apps.upload_tenant_api_key(key_app, "", "k"), 400, "E011002")
    refused(lambda: apps.fetch_token(key_app, user), 404, "E111504")


def test_an_uploaded_refresh_token_gets_access_tokens(backend: Backend, apps: Waiting, user: str) -> None:
    token = practice_refresh_token(backend, user)
    apps.upload_user_token(APP_ID, user, refresh_token=token, scopes=SCOPES)
    fetched = apps.fetch_token_by_scopes(APP_ID, user, SCOPES)["token"]
    assert fetched["accessToken"]
    assert fetched["hasRefreshToken"] is True


def test_everything_about_an_uploaded_token_comes_back(apps: Waiting, user: str) -> None:
    expiry = int(time.time()) + 7200
    apps.upload_user_token(
        APP_ID,
        user,
        tenant_id="acme",
        access_token="from-elsewhere",
        access_token_expiry=expiry,
        access_token_type="Bearer",
        scopes=["contacts"],
        granted_by="admin",
    )
    token = apps.fetch_token(APP_ID, user, "acme")["token"]
    assert (token["accessToken"], token["accessTokenExpiry"]) == ("from-elsewhere", str(expiry))
    assert (token["scopes"], token["grantedBy"], token["tenantId"]) == (["contacts"], "admin", "acme")


def test_a_tenants_token_is_uploaded(apps: Waiting, user: str) -> None:
    tenant = f"tenant-of-{user}"
    apps.upload_tenant_token(APP_ID, tenant, access_token="the-tenants", scopes=["contacts"], granted_by=user)
    token = apps.fetch_tenant_token_by_scopes(APP_ID, tenant, ["contacts"])["token"]
    assert (token["accessToken"], token["grantedBy"]) == ("the-tenants", user)


def test_a_token_is_verified_before_it_is_stored(backend: Backend, apps: Waiting, user: str) -> None:
    token = practice_refresh_token(backend, user)
    apps.upload_user_token(APP_ID, user, refresh_token=token, scopes=SCOPES, verify_refresh=True)
    assert apps.fetch_token(APP_ID, user)["token"]["accessToken"]


def test_a_token_that_the_provider_refuses_is_not_stored(apps: Waiting, user: str) -> None:
    def upload() -> Any:
        return apps.upload_user_token(APP_ID, user, refresh_token="nonsense", verify_refresh=True)

    error = refused(upload, 400, "E111508")
    assert "invalid_grant" in str(error.error_message)
    refused(lambda: apps.fetch_token(APP_ID, user), 404, "E111504")


def test_a_token_that_does_not_fit_is_refused(apps: Waiting, key_app: str, user: str) -> None:
    refused(lambda: apps.upload_user_token(APP_ID, user), 400, "E011002")
    refused(lambda: apps.upload_user_token("unknown", user, refresh_token="r"), 404, "E111503")
    refused(lambda: apps.upload_user_token(key_app, user, refresh_token="r"), 400, "E011003")
    refused(lambda: apps.upload_user_token(APP_ID, user, access_token="a", scopes=["two words"]), 400, "E011003")
    refused(lambda: apps.upload_tenant_token(APP_ID, "", refresh_token="r"), 400, "E011002")
    refused(lambda: apps.fetch_token(APP_ID, user), 404, "E111504")


def test_many_users_tokens_are_uploaded_at_once(apps: Waiting, user: str) -> None:
    users = [f"{user}-{number}" for number in range(20)]
    tokens = [{"appId": APP_ID, "userId": one, "accessToken": f"of-{one}", "scopes": ["x"]} for one in users]
    assert apps.batch_upload_user_tokens(tokens) == {"failures": []}
    assert [apps.fetch_token(APP_ID, one)["token"]["accessToken"] for one in users] == [f"of-{one}" for one in users]


def test_many_tenants_tokens_are_uploaded_at_once(apps: Waiting, user: str) -> None:
    tenants = [f"{user}-{number}" for number in range(3)]
    tokens = [{"appId": APP_ID, "tenantId": one, "accessToken": f"of-{one}"} for one in tenants]
    assert apps.batch_upload_tenant_tokens(tokens) == {"failures": []}
    assert apps.fetch_tenant_token(APP_ID, tenants[2])["token"]["accessToken"] == f"of-{tenants[2]}"


def test_a_batch_with_one_bad_item_stores_nothing_and_names_it(apps: Waiting, user: str) -> None:
    good = {"appId": APP_ID, "userId": user, "accessToken": "a"}
    bad = {"appId": "unknown", "userId": f"{user}-2", "accessToken": "a"}
    (failure,) = apps.batch_upload_user_tokens([good, bad])["failures"]
    assert (failure["appId"], failure["userId"], failure["errorCode"]) == ("unknown", f"{user}-2", "E111503")
    assert failure["reason"]
    refused(lambda: apps.fetch_token(APP_ID, user), 404, "E111504")
    tenants = [{"appId": APP_ID, "tenantId": f"tenant-of-{user}"}]
    (failure,) = apps.batch_upload_tenant_tokens(tenants)["failures"]
    assert (failure["tenantId"], failure["errorCode"]) == (f"tenant-of-{user}", "E011002")


def test_connected_apps_are_listed(served: Served, apps: Waiting, own_app: OwnApp, key_app: str, user: str) -> None:
    assert apps.list_apps_with_user_token(user) == {"appIds": []}
    connect(served.backend, user)
    apps.upload_user_api_key(key_app, user, "k", tenant_id="acme")
    own_app()
    assert apps.list_apps_with_user_token(user) == {"appIds": [APP_ID]}
    assert apps.list_apps_with_user_token(user, tenant_id="acme") == {"appIds": [key_app]}
    refused(lambda: apps.list_apps_with_user_token(""), 400, "E011002")


def test_a_token_is_deleted_by_its_id(backend: Backend, apps: Waiting, user: str) -> None:
    connect(backend, user)
    token_id = apps.fetch_token(APP_ID, user)["token"]["id"]
    apps.delete_token(token_id)
    refused(lambda: apps.fetch_token(APP_ID, user), 404, "E111504")
    refused(lambda: apps.delete_token(token_id), 404, "E111504")
    refused(lambda: apps.delete_token(""), 400, "E011002")


def test_tokens_are_deleted_by_user_by_app_and_by_both(apps: Waiting, own_app: OwnApp, user: str) -> None:
    one, two, friend = own_app(), own_app(), f"friend-of-{user}"

    def upload() -> None:
        batch = [{"appId": app, "userId": who, "accessToken": "a"} for app in (one, two) for who in (user, friend)]
        assert apps.batch_upload_user_tokens(batch) == {"failures": []}

    def left() -> set[tuple[str, str]]:
        return {(who, app) for who in (user, friend) for app in apps.list_apps_with_user_token(who)["appIds"]}

    everything = {(who, app) for who in (user, friend) for app in (one, two)}
    upload()
    assert left() == everything
    apps.delete_user_tokens(app_id=one, user_id=user)
    assert left() == everything - {(user, one)}
    upload()
    apps.delete_user_tokens(app_id=one)
    assert left() == {(user, two), (friend, two)}
    upload()
    apps.delete_user_tokens(user_id=user)
    assert left() == {(friend, one), (friend, two)}
    refused(apps.delete_user_tokens, 400, "E011002")
