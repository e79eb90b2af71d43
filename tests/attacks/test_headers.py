"""What answers carry: nothing that a cache keeps, and nothing that was made of what a caller calls us."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.infra.installation import APP_ID, BACK, Installation, installation
from tests.infra.people import someone
from tests.infra.serving import LiveApp, ServerProcess, environment_of
from tests.infra.waiting import PATIENCE, wait_until

CALLBACK = "/v1/outbound/oauth/callback"
ODD_HOSTS = ["evil.example", "evil.example:8420", "h//evil.example/p#", "h/p?", "evil.example#", "[::1", ""]


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest) -> str:
    """These answers are the same on every database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def https(settings: Settings) -> Iterator[str]:
    """An evergrant whose browsers reach it by https, as it is behind its proxy."""
    behind_tls = settings.model_copy(update={"public_url": "https://evergrant.example.com", "refresher": False})
    with LiveApp(create_app(behind_tls)) as running:
        yield running.url


def answers_of(here: Installation) -> dict[str, httpx2.Response]:
    """Answers of every kind, by what they are."""
    link, http = here.backend.connect_url(someone()), here.backend.http
    kinds = {
        "a new key": http.put("/v1/mgmt/managementkey", json={"name": someone(), "permissions": ["apps:read"]}),
        "a connect link": here.backend.post("app/connect", {"appId": APP_ID, "userId": "alice"}),
        "a list": here.backend.get("apps"),
        "a new webhook": here.backend.post("webhook/create", {"url": "http://127.0.0.1:1/hook"}),
        "a fetch that finds nothing": here.backend.fetch(someone()),
        "a wrong body": here.backend.post("app/create", {}),
        "a token exchange that fails": httpx2.post(f"{here.url}/oauth2/v1/token", trust_env=False),
        "the consent page": httpx2.get(link, trust_env=False),
        "a wrong link": httpx2.get(f"{here.url}/connect/nobodys", trust_env=False),
        "a form that comes back": httpx2.post(here.url + CALLBACK, data={"state": "s"}, trust_env=False),
        "the preflight of a stranger": httpx2.options(
            f"{here.url}/v1/mgmt/outbound/tokens", headers={"Origin": "https://evil.example"}, trust_env=False
        ),
    }
    paths = ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/connect-result", "/nothing", "/static/no")
    return kinds | {path: httpx2.get(here.url + path, trust_env=False) for path in paths}


def test_an_attacker_who_reads_a_cache_afterwards_finds_no_answer_in_it(settings: Settings) -> None:
    """One-time secrets are in answers. Only what is anybody's may be kept, and no browser guesses what a thing is."""
    with installation(settings) as here:
        for kind, answer in answers_of(here).items():
            assert answer.headers["cache-control"] == "no-store", kind
            assert answer.headers["x-content-type-options"] == "nosniff", kind
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], kind
            assert "strict-transport-security" not in answer.headers, "browsers reach this one by plain http"
            for name in ("cache-control", "x-content-type-options", "content-security-policy", "x-request-id"):
                assert len(answer.headers.get_list(name)) == 1, (kind, name)
        css = httpx2.get(f"{here.url}/static/tokens.css", trust_env=False, timeout=PATIENCE)
        assert css.headers["cache-control"] == "public, max-age=300"
        assert css.headers["x-content-type-options"] == "nosniff"


def test_an_attacker_between_a_browser_and_its_first_page_is_there_once_at_most(https: str) -> None:
    """Where browsers use https, each answer tells them to insist on it: pages, errors, redirects, bare 404s."""
    with httpx2.Client(base_url=https, trust_env=False) as http:
        for answer in (
            http.get("/healthz"),
            http.get("/nothing"),
            http.get("/connect/nobodys"),
            http.get("/v1/mgmt/outbound/apps"),
            http.post(CALLBACK, data={"state": "s"}),
            http.get("/static/tokens.css"),
            http.options("/v1/mgmt/outbound/tokens"),
            http.request("DELETE", "/healthz"),
        ):
            assert answer.headers["strict-transport-security"] == "max-age=31536000", answer.request.url


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_an_attacker_who_calls_us_by_another_name_is_led_nowhere_else(settings: Settings, host: str) -> None:
    """The Host header is the caller's. No redirect, link or error is made of it."""
    with installation(settings) as here, httpx2.Client(base_url=here.url, trust_env=False) as http:
        headers = {"Host": host}
        for path in ("/docs/", "/healthz/", "/static", "/static/", "/connect-result/", "/v1/mgmt/outbound/apps/"):
            answer = http.get(path, headers=headers)
            assert answer.status_code in (400, 401, 404, 405), path
            assert "location" not in answer.headers
        assert http.get("/", headers=headers).headers.get("location", "/console") == "/console"
        posted = http.post(CALLBACK, data={"state": "s", "code": "c"}, headers=headers)
        assert posted.headers.get("location", f"{CALLBACK}?state=s&code=c") == f"{CALLBACK}?state=s&code=c"
        if host:  # without one, the server refuses what is no request
            assert posted.status_code == 303
            preflight = {**headers, "Origin": "https://app.example.com", "Access-Control-Request-Method": "GET"}
            assert http.options("/v1/mgmt/outbound/tokens", headers=preflight).status_code == 204
            asked = {"appId": APP_ID, "userId": "alice", "options": {"redirectUrl": BACK}}
            link = here.backend.http.post("/v1/mgmt/outbound/app/connect", json=asked, headers=headers).json()["url"]
            assert link.startswith(f"{here.url}/connect/")
            left = here.browser().http.get(link, headers=headers)
            assert left.status_code == 200
            assert "evil" not in left.text
            error = http.get("/v1/nothing", headers=headers)
            assert (error.status_code, error.json()["errorCode"]) == (404, "E011004"), "JSON, whatever we are called"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evergrant.example.com"},
        {"Host": "localhost.evil.example"},
        {"Host": "127.0.0.1.evil.example:8420"},
        {"Host": "10.0.0.7:8420"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "localhost"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Real-IP": "127.0.0.1"},
        {"CF-Connecting-IP": "127.0.0.1"},
        {"True-Client-IP": "127.0.0.1"},
        {"X-Client-IP": "127.0.0.1"},
        {"X-Amzn-Trace-Id": "Root=1"},
    ],
)
def test_an_attacker_who_comes_through_a_proxy_reads_no_numbers(settings: Settings, headers: dict[str, str]) -> None:
    """Without a token, only this machine itself reads /metrics: a proxy on it asks for anybody."""
    with installation(settings) as here, httpx2.Client(base_url=here.url, trust_env=False) as http:
        refused = http.get("/metrics", headers=headers)
        assert refused.status_code == 403
        assert here.backend.project_id not in refused.text
        port = here.url.rpartition(":")[2]
        for own in (f"127.0.0.1:{port}", "127.0.0.1", f"localhost:{port}", "LOCALHOST", f"[::1]:{port}", "[::1]"):
            scraped = http.get("/metrics", headers={"Host": own, "X-Prometheus-Scrape-Timeout-Seconds": "10"})
            assert scraped.status_code == 200, own


def test_an_attacker_behind_a_proxy_that_is_not_named_is_told_of_once(settings: Settings, tmp_path: Path) -> None:
    """Then everybody has the proxy's address, and its limits: the log says so, and how to end it."""
    environment = environment_of(settings) | {"EVERGRANT_REFRESHER": "false"}
    words = "is not in EVERGRANT_TRUSTED_PROXIES"
    with contextlib.ExitStack() as stack:
        servers = [
            ServerProcess(environment | {"EVERGRANT_TRUSTED_PROXIES": trusted}, log=tmp_path / name)
            for name, trusted in (("not-named", "192.0.2.1"), ("named", "127.0.0.1"))
        ]
        for server in servers:
            stack.enter_context(server)
            for number in range(5):
                headers = {"X-Forwarded-For": f"203.0.113.{number}"}
                assert httpx2.get(f"{server.url}/connect/nobodys", headers=headers, trust_env=False).status_code == 400
        not_named, named = servers
        wait_until(lambda: words in not_named.output(), "the log says so")
        assert not_named.output().count(words) == 1
        assert '"address": "127.0.0.1"' in not_named.output()
        assert words not in named.output()
        wait_until(lambda: '"address": "203.0.113.4"' in named.output(), "the log has the last caller's own address")
