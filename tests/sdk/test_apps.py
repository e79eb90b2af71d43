"""Outbound applications and fetches through the SDK: what works, and what its users catch when it does not."""

from collections.abc import Callable
from typing import Any

import pytest
from descope.management.common import AccessType, PromptType, URLParam

from evergrant.practice.faults import instead
from tests.infra.installation import APP_ID, CLIENT_SECRET, SCOPES, Backend
from tests.sdk.conftest import RETRY_DELAYS, MakeClient, Served, Waiting, connect, refused

OwnApp = Callable[..., str]


def test_an_application_goes_through_its_life(apps: Waiting, user: str) -> None:
    app_id = f"life-of-{user}"
    fields: dict[str, Any] = {
        "description": "Made by the SDK",
        "logo": "https://app.example.com/logo.png",
        "client_id": "client-1",
        "client_secret": "secret-1",
        "authorization_url": "https://provider.example.com/authorize",
        "authorization_url_params": [URLParam("audience", "api")],
        "token_url": "https://provider.example.com/token",
        "token_url_params": [URLParam("format", "json")],
        "revocation_url": "https://provider.example.com/revoke",
        "default_scopes": ["contacts"],
        "default_redirect_url": "https://app.example.com/done",
        "callback_domain": "connect.example.com",
        "pkce": True,
        "access_type": AccessType.OFFLINE,
        "prompt": [PromptType.CONSENT],
    }
    created = apps.create_application(app_id, id=app_id, **fields)["app"]
    assert apps.load_application(app_id)["app"] == created
    assert app_id in [app["id"] for app in apps.load_all_applications()["apps"]]
    updated = apps.update_application(app_id, f"{app_id}, renamed", client_id="client-2")["app"]
    assert (updated["clientId"], updated["description"], updated["hasClientSecret"]) == ("client-2", "", True)
    apps.delete_application(app_id)
    refused(lambda: apps.load_application(app_id), 404, "E111503")


def test_a_users_token_is_fetched_with_and_without_scopes(backend: Backend, apps: Waiting, user: str) -> None:
    connect(backend, user)
    by_scopes = apps.fetch_token_by_scopes(APP_ID, user, SCOPES)["token"]
    assert by_scopes["accessToken"]
    assert apps.fetch_token(APP_ID, user)["token"] == by_scopes
    options = {"withRefreshToken": True, "forceRefresh": True}
    forced = apps.fetch_token_by_scopes(APP_ID, user, SCOPES, options)["token"]
    assert forced["accessToken"] != by_scopes["accessToken"]
    assert forced["refreshToken"]


def test_tokens_in_a_tenant_and_of_a_tenant_are_apart(backend: Backend, apps: Waiting, user: str) -> None:
    tenant = f"tenant-of-{user}"
    connect(backend, user, tenantId=tenant)
    connect(backend, user, tenantId=tenant, tenantLevel=True)
    in_tenant = apps.fetch_token_by_scopes(APP_ID, user, SCOPES, tenant_id=tenant)["token"]
    tenants = apps.fetch_tenant_token_by_scopes(APP_ID, tenant, SCOPES)["token"]
    assert in_tenant["id"] != tenants["id"]
    assert apps.fetch_token(APP_ID, user, tenant)["token"] == in_tenant
    assert apps.fetch_tenant_token(APP_ID, tenant)["token"] == tenants
    refused(lambda: apps.fetch_token(APP_ID, user), 404, "E111504")


def test_who_is_not_connected_is_a_404(apps: Waiting) -> None:
    refused(lambda: apps.fetch_token_by_scopes(APP_ID, "stranger", SCOPES), 404, "E111504")
    refused(lambda: apps.fetch_token(APP_ID, "stranger"), 404, "E111504")
    refused(lambda: apps.fetch_tenant_token_by_scopes(APP_ID, "strangers", SCOPES), 404, "E111504")
    refused(lambda: apps.fetch_tenant_token(APP_ID, "strangers"), 404, "E111504")


def test_an_unknown_application_is_a_404(apps: Waiting, user: str) -> None:
    refused(lambda: apps.fetch_token("unknown", user), 404, "E111503")
    refused(lambda: apps.update_application("unknown", "Unknown"), 404, "E111503")
    refused(lambda: apps.delete_application("unknown"), 404, "E111503")


def test_missing_scopes_are_named(backend: Backend, apps: Waiting, user: str) -> None:
    connect(backend, user)
    error = refused(lambda: apps.fetch_token_by_scopes(APP_ID, user, ["contacts.write"]), 404, "E111504")
    assert '"missingScopes":["contacts.write"]' in str(error.error_message).replace(": ", ":")


def test_a_dead_consent_is_a_404_that_says_to_connect_again(
    served: Served, apps: Waiting, own_app: OwnApp, user: str
) -> None:
    app_id = own_app()
    connect(served.backend, user, appId=app_id)
    served.provider.state.next_token_answers.append(instead(400, {"error": "invalid_grant"}))
    error = refused(lambda: apps.fetch_token(app_id, user, options={"forceRefresh": True}), 404, "E111504")
    assert "reauthorization_required" in str(error.error_message)


def test_a_refused_registration_is_a_502(served: Served, apps: Waiting, own_app: OwnApp, user: str) -> None:
    app_id = own_app()
    connect(served.backend, user, appId=app_id)
    wrong = {**served.provider.registration, "id": app_id, "name": app_id, "clientSecret": "wrong"}
    assert served.backend.post("app/update", {"app": wrong}).status_code == 200
    forced = {"forceRefresh": True}
    error = refused(lambda: apps.fetch_token(app_id, user, options=forced), 502, "E111506")
    assert "invalid_client" in str(error.error_message)
    right = {**wrong, "clientSecret": CLIENT_SECRET}
    assert served.backend.post("app/update", {"app": right}).status_code == 200
    assert apps.fetch_token(app_id, user, options=forced)["token"]["accessToken"]


def test_a_providers_bad_moment_is_outlived_by_the_sdks_own_retries(
    served: Served, apps: Waiting, own_app: OwnApp, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in RETRY_DELAYS:
        monkeypatch.setattr(name, [0.1, 2.0, 2.0])  # as published, but 2 s for 5
    app_id = own_app()
    connect(served.backend, user, appId=app_id)
    served.provider.state.next_token_answers.append(instead(503))
    assert apps.fetch_token(app_id, user, options={"forceRefresh": True})["token"]["accessToken"]


def test_a_provider_that_stays_down_is_a_503(
    served: Served, apps: Waiting, own_app: OwnApp, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in RETRY_DELAYS:
        monkeypatch.setattr(name, [0.01])
    app_id = own_app()
    connect(served.backend, user, appId=app_id)
    served.provider.state.next_token_answers.append(instead(503))
    refused(lambda: apps.fetch_token(app_id, user, options={"forceRefresh": True}), 503, "E111505")


def test_bad_arguments_and_taken_names_say_so(apps: Waiting) -> None:
    error = refused(lambda: apps.create_application("Bad", token_url="ftp://provider.example.com"), 400, "E011003")
    assert "tokenUrl" in str(error.error_message)
    refused(lambda: apps.create_application(""), 400, "E011002")
    refused(lambda: apps.create_application("Another name", id=APP_ID), 409, "E111507")
    refused(lambda: apps.fetch_token(APP_ID, ""), 400, "E011002")


def test_a_wrong_key_is_a_401_for_every_kind_of_call(make_client: MakeClient) -> None:
    sdk = make_client(management_key="evg_wrong").mgmt
    for call in (
        sdk.outbound_application.load_all_applications,
        lambda: sdk.outbound_application.fetch_token(APP_ID, "anybody"),
        sdk.management_key.search,
        sdk.audit.search,
    ):
        refused(call, 401, "E011005")


def test_a_key_that_lacks_the_permission_is_a_403(make_client: MakeClient, backend: Backend) -> None:
    made = backend.http.put("/v1/mgmt/managementkey", json={"name": "readers", "permissions": ["apps:read"]}).json()
    apps = make_client(management_key=made["cleartext"]).mgmt.outbound_application
    assert apps.load_application(APP_ID)["app"]["id"] == APP_ID
    for call in (
        lambda: apps.create_application("Not allowed"),
        lambda: apps.delete_application(APP_ID),
        lambda: apps.fetch_token(APP_ID, "anybody"),
        lambda: apps.delete_user_tokens(user_id="anybody"),
        lambda: apps.upload_user_token(APP_ID, "anybody", refresh_token="r"),
        lambda: apps.list_apps_with_user_token("anybody"),
    ):
        refused(call, 403, "E011006")
