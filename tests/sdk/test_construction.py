"""Constructing the published SDK's client: the base URL is all that changes."""

import pytest
from descope import DescopeClient

from tests.infra.installation import APP_ID, Backend


def test_constructing_the_client_finds_the_rate_limit_tier(backend: Backend) -> None:
    client = DescopeClient(project_id=backend.project_id, management_key=backend.management_key, base_url=backend.url)
    assert client._mgmt._http.rate_limit_tier == "tier4"


def test_the_base_url_may_come_from_the_environment(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESCOPE_BASE_URI", backend.url)
    monkeypatch.setenv("DESCOPE_MANAGEMENT_KEY", backend.management_key)
    client = DescopeClient(project_id=backend.project_id)
    assert APP_ID in [app["id"] for app in client.mgmt.outbound_application.load_all_applications()["apps"]]
