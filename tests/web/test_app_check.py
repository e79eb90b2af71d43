"""app/test: it tells what is wrong with a registration, without a user, and changes nothing."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.infra.installation import APP_ID, Installation
from tests.infra.registrar import Registrar
from tests.infra.scripted import serving
from tests.web.conftest import MakeBackend


@pytest.fixture
def server() -> Iterator[Registrar]:
    """A server that knows one client: client-0 with secret-0."""
    with serving(Registrar()) as running:
        running.registered.append({})
        yield running


def checks_of(here: Installation, server: Registrar, **fields: Any) -> dict[str, dict[str, Any]]:
    """Create an app and test it; returns the checks by name."""
    definition = {
        "name": f"Test {uuid.uuid4().hex[:8]}",
        "clientId": "client-0",
        "clientSecret": "secret-0",
        "discoveryUrl": server.url,
        **fields,
    }
    app = here.backend.create_app(definition)
    return look(here, app["id"])


def look(here: Installation, app_id: str) -> dict[str, dict[str, Any]]:
    answer = here.backend.post("app/test", {"id": app_id})
    assert answer.status_code == 200, answer.text
    return {check["name"]: check for check in answer.json()["checks"]}


def test_a_registration_that_is_right_is_good_throughout(here: Installation) -> None:
    checks = look(here, APP_ID)
    assert all(check["good"] for check in checks.values()), checks
    assert {"definition", "redirect URI", "metadata", "authorization endpoint", "token endpoint", "client"} == set(
        checks
    )
    assert f"Register {here.backend.app()['callbackUrl']} at the provider" in checks["redirect URI"]["text"]


@pytest.mark.parametrize("fields", [{"clientId": "client-9"}, {"clientSecret": "another"}])
def test_a_client_that_is_refused_is_told(here: Installation, server: Registrar, fields: dict[str, str]) -> None:
    checks = checks_of(here, server, **fields)
    assert checks["token endpoint"]["good"]
    assert not checks["client"]["good"]
    assert "invalid_client" in checks["client"]["text"]
    assert "set tokenEndpointAuthMethod to client_secret_basic" in checks["client"]["text"]


def test_a_server_that_complains_of_something_else_has_not_refused_the_client(
    here: Installation, server: Registrar
) -> None:
    server.token_answer = (400, {"error": "unsupported_grant_type"})
    checks = checks_of(here, server)
    assert checks["client"]["good"]
    assert "more cannot be told" in checks["client"]["text"]


def test_a_server_that_is_away_is_told_for_each_endpoint(here: Installation) -> None:
    with serving(Registrar()) as gone:
        definition = {"name": f"Gone {uuid.uuid4().hex[:8]}", "clientId": "client-0", "discoveryUrl": gone.url}
        app_id = here.backend.create_app(definition)["id"]
    checks = look(here, app_id)
    bad = {name for name, check in checks.items() if not check["good"]}
    assert bad == {"metadata", "authorization endpoint", "token endpoint"}


def test_metadata_that_has_changed_is_told_by_field(here: Installation, server: Registrar) -> None:
    app = here.backend.create_app(
        {"name": f"Moved {uuid.uuid4().hex[:8]}", "clientId": "a", "discoveryUrl": server.url}
    )
    server.metadata = {"token_endpoint": f"{server.url}/new-token"}
    check = look(here, app["id"])["metadata"]
    assert not check["good"]
    assert "tokenUrl" in check["text"]
    assert "authorizationUrl" not in check["text"]


def test_an_app_that_lacks_something_is_told_what(here: Installation) -> None:
    app = here.backend.create_app({"name": f"Half {uuid.uuid4().hex[:8]}", "clientId": "a"})
    check = look(here, app["id"])["definition"]
    assert not check["good"]
    assert "authorizationUrl, tokenUrl" in check["text"]


def test_an_app_that_registers_by_itself_is_told_where_and_is_not_registered(
    here: Installation, server: Registrar
) -> None:
    checks = checks_of(here, server, clientId="", clientSecret="", useDcr=True)
    assert f"{server.url}/register" in checks["registration"]["text"]
    assert len(server.registered) == 1
    assert server.forms_at("/token") == []


def test_the_refresh_token_that_it_shows_is_nobodys(here: Installation, server: Registrar) -> None:
    checks_of(here, server)
    checks_of(here, server)
    shown = [request["refresh_token"] for request in server.forms_at("/token")]
    assert len(set(shown)) == 2
    assert all(token.startswith("evergrant-test-") for token in shown)


def test_it_takes_the_permission_to_read_apps_and_only_the_keys_own_apps(
    here: Installation, backend_with: MakeBackend
) -> None:
    assert backend_with(permissions=["apps:read"]).post("app/test", {"id": APP_ID}).status_code == 200
    assert backend_with(permissions=["connect"]).post("app/test", {"id": APP_ID}).status_code == 403
    limited = backend_with(permissions=["apps:read"], app_ids=["another"])
    assert limited.post("app/test", {"id": APP_ID}).status_code in (403, 404)
    assert here.backend.post("app/test", {"id": "nothing"}).status_code == 404


def test_a_client_that_is_refused_by_basic_is_told_of_the_other_way(here: Installation, server: Registrar) -> None:
    checks = checks_of(here, server, tokenEndpointAuthMethod="client_secret_basic", clientSecret="a+b/c=d:e%")
    assert "set tokenEndpointAuthMethod to client_secret_post" in checks["client"]["text"]
    assert "a+b/c" not in checks["client"]["text"]
    public = checks_of(here, server, tokenEndpointAuthMethod="none", clientSecret="")
    assert "If the secret is right" not in public["client"]["text"], "nothing was sent"
