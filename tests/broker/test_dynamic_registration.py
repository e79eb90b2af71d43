"""Registering by ourselves: once over all replicas, never instead of an error, and not at all where a URL will do."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.infra.installation import Backend, Browser, new_project
from tests.infra.registrar import Registrar
from tests.infra.scripted import TOKENS, serving
from tests.infra.serving import LiveApp, free_port


@pytest.fixture
def server() -> Iterator[Registrar]:
    with serving(Registrar()) as running:
        yield running


@contextlib.contextmanager
def replicas(settings: Settings, count: int) -> Iterator[list[Backend]]:
    """Run several evergrants on one database, with a backend at each; the first is at the public URL's port."""
    settings = settings.model_copy(update={"refresher": False, "log_level": "error"})
    made = new_project(settings)
    with contextlib.ExitStack() as stack:
        ports = [urlsplit(settings.public_url).port or free_port(), *(free_port() for _ in range(count - 1))]
        # All before the first is started: FastAPI silences warnings while it builds, which no other thread may do then.
        apps = [create_app(settings) for _ in ports]
        backends = []
        for app, port in zip(apps, ports, strict=True):
            live = stack.enter_context(LiveApp(app, port=port))
            backends.append(Backend(live.url, made.project_id, made.management_key))
            stack.callback(backends[-1].http.close)
        yield backends


def app_at(server: Registrar, **fields: Any) -> dict[str, Any]:
    return {"id": "practice", "name": "Notes", "discoveryUrl": server.url, "useDcr": True, **fields}


def registrations(backend: Backend) -> list[dict[str, Any]]:
    """Return what the audit log has of registrations that were stored."""
    found = backend.http.post("/v1/mgmt/audit/search", json={"actions": ["app.registered"]})
    assert found.status_code == 200, found.text
    records: list[dict[str, Any]] = found.json()["audits"]
    return records


def test_of_replicas_that_register_together_one_counts_and_its_secret_with_it(
    settings: Settings, server: Registrar
) -> None:
    server.together = 3
    with replicas(settings, 3) as backends:
        backends[0].create_app(app_at(server))
        with ThreadPoolExecutor(3) as pool:
            links = list(pool.map(lambda backend: backend.connect_url(), backends))
        assert len(server.registered) == 3, "each replica asked before any had stored"
        app = backends[0].get("app/practice").json()["app"]
        browser = Browser()
        left = {parse_qs(urlsplit(browser.agree(link)).query)["client_id"][0] for link in links}
        browser.http.close()
        assert left == {app["clientId"]}
        checks = backends[1].post("app/test", {"id": "practice"}).json()["checks"]
        assert {"client": True}.items() <= {check["name"]: check["good"] for check in checks}.items()
        assert len(registrations(backends[0])) == 1, "what came second was dropped, and overwrote nothing"
        # and from then on nobody asks again
        for backend in backends:
            backend.connect_url()
        assert len(server.registered) == 3


def test_what_is_asked_for_is_what_the_trips_need(settings: Settings, server: Registrar) -> None:
    with replicas(settings, 1) as (backend,):
        app = backend.create_app(app_at(server, defaultScopes=["notes", "files"]))
        backend.connect_url()
    assert server.registered == [
        {
            "client_name": "Notes",
            "redirect_uris": [app["callbackUrl"]],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "client_secret_post",
            "scope": "notes files",
        }
    ]


def test_a_registration_that_is_refused_or_fails_is_the_connect_calls_error(
    settings: Settings, server: Registrar
) -> None:
    with replicas(settings, 1) as (backend,):
        backend.create_app(app_at(server))
        server.refusal = (400, {"error": "invalid_redirect_uri", "error_description": "loopback is not for us"})
        refused = backend.post("app/connect", {"appId": "practice", "userId": "alice"})
        assert refused.status_code == 502
        assert refused.json()["details"]["providerError"] == "invalid_redirect_uri"
        assert "loopback is not for us" in refused.json()["message"]
        server.refusal = (500, {})
        away = backend.post("app/connect", {"appId": "practice", "userId": "alice"})
        assert away.status_code == 503
        assert away.headers["retry-after"]
        server.refusal = None
        backend.connect_url()
        assert backend.get("app/practice").json()["app"]["clientId"] == "client-0"


def test_a_wish_that_cannot_be_granted_registers_nothing(settings: Settings, server: Registrar) -> None:
    with replicas(settings, 1) as (backend,):
        backend.create_app(app_at(server))
        options = {"redirectUrl": "https://elsewhere.example/"}
        assert backend.post("app/connect", {"appId": "practice", "userId": "a", "options": options}).status_code == 400
    assert server.registered == []


def test_at_another_server_a_registration_is_worth_nothing_and_its_secret_stays_here(
    settings: Settings, server: Registrar
) -> None:
    with replicas(settings, 1) as (backend,), serving(Registrar()) as other:
        backend.create_app(app_at(server))
        backend.connect_url()
        moved = backend.get("app/practice").json()["app"]
        moved |= {"discoveryUrl": other.url, "authorizationUrl": "", "tokenUrl": "", "dcrUrl": "", "issuer": other.url}
        answer = backend.post("app/update", {"app": moved})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["app"]["clientId"], answer.json()["app"]["hasClientSecret"]) == ("", False)
        backend.connect_url()
        assert len(other.registered) == 1


def test_switched_off_and_on_an_app_registers_anew(settings: Settings, server: Registrar) -> None:
    with replicas(settings, 1) as (backend,):
        backend.create_app(app_at(server))
        backend.connect_url()
        app = backend.get("app/practice").json()["app"]
        off = backend.post("app/update", {"app": {**app, "useDcr": False, "clientId": ""}}).json()["app"]
        assert (off["clientId"], off["hasClientSecret"]) == ("", False)
        backend.post("app/update", {"app": {**off, "useDcr": True}})
        backend.connect_url()
        assert backend.get("app/practice").json()["app"]["clientId"] == "client-1"


def test_a_server_that_reads_client_metadata_gets_its_url_as_client_id_and_no_registration(
    settings: Settings, server: Registrar
) -> None:
    server.metadata = {"client_id_metadata_document_supported": True}
    public = settings.model_copy(update={"public_url": "https://evergrant.example.com"})
    with replicas(public, 1) as (backend,):
        backend.create_app(app_at(server, logo="https://example.com/logo.png"))
        url = f"https://evergrant.example.com/oauth-client/{backend.project_id}/practice.json"
        path = urlsplit(url).path
        assert backend.http.get(path).status_code == 404, "nothing to see before it is our name there"
        backend.connect_url()
        app = backend.get("app/practice").json()["app"]
        assert (app["clientId"], app["hasClientSecret"], app["tokenEndpointAuthMethod"]) == (url, False, "none")
        shown = httpx2.get(backend.url + path, trust_env=False)
        assert shown.headers["content-type"] == "application/json"
        assert shown.json() == {
            "client_id": url,
            "client_name": "Notes",
            "redirect_uris": [app["callbackUrl"]],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "logo_uri": "https://example.com/logo.png",
        }
        assert backend.http.get(path.replace("practice", "nothing")).status_code == 404
    assert server.registered == []


def test_a_loopback_trial_registers_because_no_server_can_read_its_metadata(
    settings: Settings, server: Registrar
) -> None:
    server.metadata = {"client_id_metadata_document_supported": True}
    with replicas(settings, 1) as (backend,):
        backend.create_app(app_at(server))
        backend.connect_url()
        assert backend.get("app/practice").json()["app"]["clientId"] == "client-0"


def test_a_registration_is_in_the_audit_log(settings: Settings, server: Registrar) -> None:
    with replicas(settings, 1) as (backend,):
        backend.create_app(app_at(server))
        backend.connect_url()
        (record,) = registrations(backend)
    assert (record["appId"], record["data"]["clientId"], record["data"]["again"]) == ("practice", "client-0", False)
    assert "secret-0" not in str(record)


# a server that forgets us and sends nobody back


def trip(backend: Backend, *, comes_back: bool) -> str:
    """Leave for the server, come back or not, and return the client id that it was shown."""
    browser = Browser()
    asked = parse_qs(urlsplit(browser.agree(backend.connect_url())).query)
    if comes_back:
        browser.open(f"{backend.app('practice')['callbackUrl']}?code=c&state={asked['state'][0]}")
    browser.http.close()
    return asked["client_id"][0]


def test_a_trip_that_never_came_back_is_a_reason_to_ask_whether_the_server_still_knows_us(
    settings: Settings, server: Registrar
) -> None:
    with replicas(settings, 1) as (backend,):
        backend.create_app(app_at(server))
        server.token_answer = (200, TOKENS)
        assert trip(backend, comes_back=True) == "client-0"
        asked = len(server.requests_to("/token"))
        server.forgotten = 1
        assert trip(backend, comes_back=False) == "client-0", "nothing has told us yet"
        assert len(server.requests_to("/token")) == asked, "and nobody asks without a reason"
        assert trip(backend, comes_back=True) == "client-1"
        assert (len(server.registered), registrations(backend)[0]["data"]["again"]) == (2, True)
        assert backend.app("practice")["health"]["status"] == "ok"
        assert trip(backend, comes_back=True) == "client-1"
        assert len(server.registered) == 2


def test_a_server_that_knows_us_is_asked_about_once_a_minute(settings: Settings, server: Registrar) -> None:
    with replicas(settings, 1) as (backend,):
        backend.create_app(app_at(server))
        assert [trip(backend, comes_back=False) for _ in range(4)] == ["client-0"] * 4
        (asked,) = server.forms_at("/token")
        assert asked["refresh_token"].startswith("evergrant-test-")
        assert len(server.registered) == 1


@pytest.mark.parametrize("answer", [(500, {}), (400, {"error": "invalid_request"}), (401, {"error": "access_denied"})])
def test_an_answer_that_does_not_say_that_we_are_forgotten_changes_nothing(
    settings: Settings, server: Registrar, answer: tuple[int, dict[str, Any]]
) -> None:
    with replicas(settings, 1) as (backend,):
        backend.create_app(app_at(server))
        server.token_answer = answer
        assert [trip(backend, comes_back=False) for _ in range(2)] == ["client-0"] * 2
        assert len(server.forms_at("/token")) == 1
        assert len(server.registered) == 1


def test_a_client_of_the_operators_own_is_not_asked_about(settings: Settings, server: Registrar) -> None:
    with replicas(settings, 1) as (backend,):
        backend.create_app(app_at(server, clientId="by-hand", clientSecret="s"))
        assert [trip(backend, comes_back=False) for _ in range(2)] == ["by-hand"] * 2
        assert server.requests_to("/token") == []


def test_a_server_that_no_longer_reads_our_metadata_gets_a_registration(settings: Settings, server: Registrar) -> None:
    server.metadata = {"client_id_metadata_document_supported": True}
    public = settings.model_copy(update={"public_url": "https://evergrant.example.com"})
    with replicas(public, 1) as (backend,):
        backend.create_app(app_at(server))
        backend.connect_url()
        assert backend.app("practice")["clientId"].startswith("https://evergrant.example.com/")
        path = urlsplit(backend.connect_url()).path
        browser = Browser()
        browser.http.headers["cookie"] = "__Host-evergrant-connect=a-browser"
        left = browser.http.post(backend.url + path, data={"decision": "connect"})
        browser.http.close()
        assert left.status_code == 303, left.text
        backend.connect_url()
        assert backend.app("practice")["clientId"] == "client-0"


def test_a_test_of_the_app_tells_it_and_the_next_connect_registers(settings: Settings, server: Registrar) -> None:
    with replicas(settings, 1) as (backend,):
        backend.create_app(app_at(server))
        backend.connect_url()
        server.forgotten = 1
        checks = {check["name"]: check for check in backend.post("app/test", {"id": "practice"}).json()["checks"]}
        assert checks["token endpoint"]["good"]
        assert not checks["registration"]["good"]
        assert "The next connect registers anew" in checks["registration"]["text"]
        assert backend.app("practice")["health"]["status"] == "unhealthy"
        again = {check["name"]: check for check in backend.post("app/test", {"id": "practice"}).json()["checks"]}
        assert "The next connect registers" in again["registration"]["text"]
        assert trip(backend, comes_back=False) == "client-1"
        assert backend.app("practice")["health"]["status"] == "ok"
