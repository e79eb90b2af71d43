"""The vendor's published Python SDK, unmodified, by base URL alone, against a real `evergrant serve`."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from descope import AuthException, DescopeClient
from descope.management.common import AccessType, PromptType, URLParam

from tests.infra.installation import APP_ID, Backend, Browser, Provider, new_project, practice_provider
from tests.infra.serving import ServerProcess, environment_of, free_port
from tests.web.conftest import settings_for

pytestmark = pytest.mark.xdist_group("sdk")  # one worker makes the module's installation, not each

SCOPES = ["contacts.readonly", "openid"]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Backend, Provider]]:
    """A served installation whose practice app has no user yet."""
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(settings_for(request, tmp_path_factory))
        made = new_project(settings)
        server = ServerProcess(environment_of(settings), port=free_port(), log=settings.data_dir / "log")
        provider = stack.enter_context(practice_provider(f"{server.url}/v1/outbound/oauth/callback"))
        stack.enter_context(server)
        backend = Backend(server.url, made.project_id, made.management_key)
        stack.callback(backend.http.close)
        backend.create_app(provider.registration)
        yield backend, provider


@pytest.fixture
def backend(installed: tuple[Backend, Provider]) -> Backend:
    return installed[0]


@pytest.fixture
def client(backend: Backend) -> DescopeClient:
    """The SDK as its documentation constructs it, but for the base URL."""
    return DescopeClient(project_id=backend.project_id, management_key=backend.management_key, base_url=backend.url)


def connect(backend: Backend, user_id: str, **fields: Any) -> None:
    browser = Browser()
    assert browser.connect(backend.connect_url(user_id, **fields))["outboundStatus"] == "connected"
    browser.http.close()


def test_constructing_the_client_finds_the_rate_limit_tier(client: DescopeClient) -> None:
    assert client._mgmt._http.rate_limit_tier == "tier4"


def test_the_base_url_may_come_from_the_environment(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESCOPE_BASE_URI", backend.url)
    monkeypatch.setenv("DESCOPE_MANAGEMENT_KEY", backend.management_key)
    client = DescopeClient(project_id=backend.project_id)
    assert APP_ID in [app["id"] for app in client.mgmt.outbound_application.load_all_applications()["apps"]]


def test_an_application_is_created_loaded_updated_and_deleted(client: DescopeClient) -> None:
    apps = client.mgmt.outbound_application
    fields: dict[str, Any] = {
        "description": "Made by the SDK",
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
    created = apps.create_application("SDK app", id="sdk-app", **fields)["app"]
    assert (created["id"], created["name"], created["clientId"]) == ("sdk-app", "SDK app", "client-1")
    assert created["authorizationUrlParams"] == [{"key": "audience", "name": "audience", "value": "api"}]
    assert (created["accessType"], created["prompt"], created["pkce"]) == ("offline", ["consent"], True)
    assert apps.load_application("sdk-app")["app"] == created
    assert "sdk-app" in [app["id"] for app in apps.load_all_applications()["apps"]]

    updated = apps.update_application("sdk-app", "SDK app, renamed", client_id="client-2")["app"]
    assert (updated["name"], updated["clientId"], updated["description"]) == ("SDK app, renamed", "client-2", "")
    assert updated["hasClientSecret"] is True

    apps.delete_application("sdk-app")
    with pytest.raises(AuthException) as gone:
        apps.load_application("sdk-app")
    assert gone.value.status_code == 404


def test_a_users_token_is_fetched(backend: Backend, client: DescopeClient) -> None:
    connect(backend, "alice")
    apps = client.mgmt.outbound_application
    by_scopes = apps.fetch_token_by_scopes(APP_ID, "alice", SCOPES)["token"]
    assert by_scopes["accessToken"]
    assert apps.fetch_token(APP_ID, "alice")["token"] == by_scopes
    forced = apps.fetch_token_by_scopes(APP_ID, "alice", SCOPES, {"withRefreshToken": True, "forceRefresh": True})[
        "token"
    ]
    assert forced["accessToken"] != by_scopes["accessToken"]
    assert forced["refreshToken"]


def test_a_users_token_in_a_tenant_and_a_tenants_own_are_fetched(backend: Backend, client: DescopeClient) -> None:
    connect(backend, "bob", tenantId="acme")
    connect(backend, "bob", tenantId="acme", tenantLevel=True)
    apps = client.mgmt.outbound_application
    in_tenant = apps.fetch_token_by_scopes(APP_ID, "bob", SCOPES, tenant_id="acme")["token"]
    tenants = apps.fetch_tenant_token_by_scopes(APP_ID, "acme", SCOPES)["token"]
    assert in_tenant["id"] != tenants["id"]
    assert apps.fetch_token(APP_ID, "bob", "acme")["token"] == in_tenant
    assert apps.fetch_tenant_token(APP_ID, "acme")["token"] == tenants


def test_who_is_not_connected_is_an_exception_with_status_404(client: DescopeClient) -> None:
    apps = client.mgmt.outbound_application
    fetches: list[Callable[[], Any]] = [
        lambda: apps.fetch_token_by_scopes(APP_ID, "stranger", SCOPES),
        lambda: apps.fetch_token(APP_ID, "stranger"),
        lambda: apps.fetch_tenant_token(APP_ID, "strangers"),
    ]
    for fetch in fetches:
        with pytest.raises(AuthException) as error:
            fetch()
        assert error.value.status_code == 404
        assert "E111504" in str(error.value)


def test_a_wrong_key_is_an_exception_with_status_401(backend: Backend) -> None:
    client = DescopeClient(project_id=backend.project_id, management_key="evg_wrong", base_url=backend.url)
    with pytest.raises(AuthException) as error:
        client.mgmt.outbound_application.load_all_applications()
    assert error.value.status_code == 401


def test_a_bad_argument_and_a_taken_id_are_exceptions_that_say_so(client: DescopeClient) -> None:
    apps = client.mgmt.outbound_application
    with pytest.raises(AuthException, match="tokenUrl") as invalid:
        apps.create_application("Bad", token_url="ftp://provider.example.com")
    assert invalid.value.status_code == 400
    with pytest.raises(AuthException) as taken:
        apps.create_application("Another name", id=APP_ID)
    assert taken.value.status_code == 409
