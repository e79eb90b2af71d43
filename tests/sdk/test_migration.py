"""The script of docs/migrate-from-descope.md, as it stands there, from one installation to another."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from descope import DescopeClient

from tests.infra.databases import settings_for
from tests.infra.installation import APP_ID, SCOPES, Backend, new_project
from tests.infra.serving import ServerProcess, environment_of
from tests.sdk.conftest import Served, connect

PAGE = Path(__file__).parents[2] / "docs/migrate-from-descope.md"


@pytest.fixture(params=["sqlite", "postgresql"])
def new_home(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, served: Served
) -> Iterator[Backend]:
    """A second installation, with the same app at the same provider."""
    with settings_for(request, tmp_path_factory) as settings:
        made = new_project(settings)
        with ServerProcess(environment_of(settings), log=settings.data_dir / "log") as server:
            backend = Backend(server.url, made.project_id, made.management_key)
            backend.create_app(served.provider.registration)
            yield backend
            backend.http.close()


def client(backend: Backend) -> DescopeClient:
    return DescopeClient(project_id=backend.project_id, management_key=backend.management_key, base_url=backend.url)


def test_connections_move_and_go_on_refreshing(served: Served, new_home: Backend, user: str) -> None:
    connect(served.backend, user)
    connect(served.backend, user, tenantId="acme")
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(script, names)
    owners = [(user, None), (user, "acme"), (f"stranger-to-{user}", None)]
    old, new = client(served.backend), client(new_home)
    before = old.mgmt.outbound_application.fetch_token(APP_ID, user)["token"]

    assert names["move"](old, new, APP_ID, owners) == []

    after = new.mgmt.outbound_application.fetch_token_by_scopes(APP_ID, user, SCOPES)["token"]
    for field in ("accessToken", "accessTokenExpiry", "accessTokenType", "scopes"):
        assert after[field] == before[field], field
    refreshed = new.mgmt.outbound_application.fetch_token(APP_ID, user, "acme", {"forceRefresh": True})["token"]
    assert refreshed["accessToken"] != after["accessToken"]
    assert new.mgmt.outbound_application.list_apps_with_user_token(f"stranger-to-{user}")["appIds"] == []
