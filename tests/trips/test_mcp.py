"""MCP servers: their URL is all that an operator enters, and a token for them works in a tool call."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.conftest import Clock
from tests.infra.installation import BACK, Browser, Installation, came_back
from tests.infra.mcp_server import SCOPE, McpServer, mcp_server
from tests.infra.scripted import ScriptedProvider
from tests.trips.conftest import CreateApp


@pytest.fixture(scope="module")
def mcp() -> Iterator[McpServer]:
    """A server whose registrations last an hour."""
    with mcp_server(client_secret_seconds=3600) as server:
        yield server


@pytest.fixture
def app_id(here: Installation, mcp: McpServer) -> str:
    """An app of which the operator said the server's URL and nothing else."""
    mcp.provider.clients.clear()
    app = here.backend.create_app({"name": f"Notes {len(all_apps(here))}", "discoveryUrl": mcp.url, "useDcr": True})
    return str(app["id"])


def all_apps(here: Installation) -> list[dict[str, Any]]:
    apps: list[dict[str, Any]] = here.backend.get("apps").json()["apps"]
    return apps


def connect(browser: Browser, link: str) -> dict[str, str]:
    """Make the whole trip: the MCP server asks nothing and sends the browser straight back."""
    authorized = browser.open(browser.agree(link))
    assert authorized.status_code == 302, authorized.text
    return came_back(browser.open(authorized.headers["location"]))


def call_tool(url: str, token: str) -> str:
    """Call the tool as an agent does, with the token in the header and nothing else."""
    answer = httpx2.post(
        url,
        headers={
            "Authorization": f"Bearer {token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-06-18",
        },
        json={
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "shout", "arguments": {"text": "hello"}},
        },
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    return str(json.loads(answer.text)["result"]["content"][0]["text"])


def test_the_url_of_an_mcp_server_is_all_that_an_app_needs(here: Installation, mcp: McpServer, app_id: str) -> None:
    app = here.backend.app(app_id)
    assert app["resource"] == mcp.url
    assert app["dcrUrl"] == mcp.url.replace("/mcp", "/register")
    assert app["tokenUrl"] == mcp.url.replace("/mcp", "/token")
    assert app["defaultScopes"] == [SCOPE]
    assert app["clientId"] == ""
    assert mcp.provider.clients == {}, "nothing is registered before somebody connects"


def test_an_agent_connects_fetches_and_calls_a_tool_and_again_after_a_refresh(
    here: Installation, mcp: McpServer, app_id: str, user: str
) -> None:
    link = here.backend.connect_url(user, appId=app_id)
    assert connect(here.browser(), link)["outboundStatus"] == "connected"
    first = here.backend.token(user, appId=app_id, scopes=[SCOPE])
    assert call_tool(mcp.url, first["accessToken"]) == "HELLO"
    second = here.backend.token(user, appId=app_id, scopes=[SCOPE], options={"forceRefresh": True})
    assert second["accessToken"] != first["accessToken"]
    assert call_tool(mcp.url, second["accessToken"]) == "HELLO"


def test_the_first_connect_registers_and_the_next_ones_use_that(
    here: Installation, mcp: McpServer, app_id: str, user: str
) -> None:
    here.backend.connect_url(user, appId=app_id)
    app = here.backend.app(app_id)
    (client,) = mcp.provider.clients.values()
    assert app["clientId"] == client.client_id
    assert app["hasClientSecret"] is True
    assert client.client_name == app["name"]
    assert [str(uri) for uri in client.redirect_uris or []] == [app["callbackUrl"]]
    assert client.scope == SCOPE
    assert app["registrationExpiresAt"] == str(client.client_secret_expires_at)
    here.backend.connect_url(user, appId=app_id)
    assert len(mcp.provider.clients) == 1


def test_connects_that_come_together_end_up_with_one_registration(
    here: Installation, mcp: McpServer, app_id: str
) -> None:
    with ThreadPoolExecutor(8) as pool:
        links = list(pool.map(lambda n: here.backend.connect_url(f"crowd-{n}", appId=app_id), range(8)))
    assert len(mcp.provider.clients) == 1
    browser = here.browser()
    ids = {parse_qs(urlsplit(browser.agree(link)).query)["client_id"][0] for link in links}
    assert ids == {here.backend.app(app_id)["clientId"]}


def test_what_a_load_returns_and_what_an_sdk_leaves_out_keep_the_registration(
    here: Installation, mcp: McpServer, app_id: str, user: str
) -> None:
    here.backend.connect_url(user, appId=app_id)
    before = here.backend.app(app_id)
    assert here.backend.post("app/update", {"app": before}).json()["app"] | {"updatedTime": ""} == before | {
        "updatedTime": ""
    }
    known_to_sdks = {k: before[k] for k in ("id", "name", "discoveryUrl", "authorizationUrl", "tokenUrl")}
    after = here.backend.post("app/update", {"app": known_to_sdks}).json()["app"]
    assert (after["clientId"], after["hasClientSecret"]) == (before["clientId"], True)
    here.backend.connect_url(user, appId=app_id)
    assert len(mcp.provider.clients) == 1


def test_a_client_of_the_operators_own_is_never_registered(
    here: Installation, mcp: McpServer, app_id: str, user: str
) -> None:
    app = here.backend.app(app_id)
    assert here.backend.post("app/update", {"app": {**app, "clientId": "by-hand"}}).status_code == 200
    here.backend.connect_url(user, appId=app_id)
    assert mcp.provider.clients == {}
    assert here.backend.app(app_id)["clientId"] == "by-hand"


def test_a_registration_that_has_ended_is_made_again_at_the_next_connect(
    here: Installation, mcp: McpServer, app_id: str, user: str, clock: Clock
) -> None:
    connect(here.browser(), here.backend.connect_url(user, appId=app_id))
    first = here.backend.app(app_id)["clientId"]
    clock.advance(3700)
    link = here.backend.connect_url(user, appId=app_id)
    assert here.backend.app(app_id)["clientId"] != first
    assert connect(here.browser(), link)["outboundStatus"] == "connected"
    token = here.backend.token(user, appId=app_id, scopes=[SCOPE])
    assert call_tool(mcp.url, token["accessToken"]) == "HELLO"


def test_a_server_that_forgot_us_is_told_of_and_the_next_connect_registers_anew(
    here: Installation, mcp: McpServer, app_id: str, user: str
) -> None:
    connect(here.browser(), here.backend.connect_url(user, appId=app_id))
    first = here.backend.app(app_id)["clientId"]
    mcp.provider.clients.clear()
    for _ in range(2):
        refused = here.backend.fetch(user, appId=app_id, scopes=[SCOPE], options={"forceRefresh": True})
        assert refused.status_code in (502, 503), refused.text
    told = here.backend.app(app_id)
    assert told["clientId"] == first, "a refresh never registers: a new client could not use the old tokens"
    assert told["health"]["status"] == "unhealthy"
    assert "each user must connect again" in told["health"]["reason"]

    assert connect(here.browser(), here.backend.connect_url(user, appId=app_id))["outboundStatus"] == "connected"
    mended = here.backend.app(app_id)
    assert mended["clientId"] in mcp.provider.clients
    assert mended["health"]["status"] == "ok"
    token = here.backend.token(user, appId=app_id, scopes=[SCOPE], options={"forceRefresh": True})
    assert call_tool(mcp.url, token["accessToken"]) == "HELLO"


def test_a_browser_that_says_we_were_forgotten_is_not_believed(
    here: Installation, mcp: McpServer, app_id: str, user: str
) -> None:
    browser = here.browser()
    departure = browser.agree(here.backend.connect_url(user, appId=app_id))
    state = parse_qs(urlsplit(departure).query)["state"][0]
    callback = here.backend.app(app_id)["callbackUrl"]
    assert came_back(browser.open(f"{callback}?error=invalid_client&state={state}"))["err"] == "invalid_client"
    here.backend.connect_url(user, appId=app_id)
    assert len(mcp.provider.clients) == 1


def test_a_browser_that_says_so_rightly_is(here: Installation, mcp: McpServer, app_id: str, user: str) -> None:
    browser = here.browser()
    departure = browser.agree(here.backend.connect_url(user, appId=app_id))
    mcp.provider.clients.clear()
    state = parse_qs(urlsplit(departure).query)["state"][0]
    browser.open(f"{here.backend.app(app_id)['callbackUrl']}?error=unauthorized_client&state={state}")
    here.backend.connect_url(user, appId=app_id)
    assert len(mcp.provider.clients) == 1


def test_a_server_that_forgot_us_and_sends_nobody_back_gets_a_new_registration(
    here: Installation, mcp: McpServer, app_id: str, user: str
) -> None:
    connect(here.browser(), here.backend.connect_url(user, appId=app_id))
    first = here.backend.app(app_id)["clientId"]
    mcp.provider.clients.clear()
    browser = here.browser()
    stranded = browser.open(browser.agree(here.backend.connect_url(user, appId=app_id)))
    assert (stranded.status_code, "location" in stranded.headers) == (400, False), "the person sees the server's error"
    assert connect(here.browser(), here.backend.connect_url(user, appId=app_id))["outboundStatus"] == "connected"
    assert here.backend.app(app_id)["clientId"] != first
    token = here.backend.token(user, appId=app_id, scopes=[SCOPE])
    assert call_tool(mcp.url, token["accessToken"]) == "HELLO"


def test_a_new_callback_address_is_registered_anew(here: Installation, mcp: McpServer, app_id: str, user: str) -> None:
    here.backend.connect_url(user, appId=app_id)
    app = here.backend.app(app_id)
    here.backend.post("app/update", {"app": {**app, "callbackDomain": "connect.example.com"}})
    here.backend.connect_url(user, appId=app_id)
    newest = list(mcp.provider.clients.values())[-1]
    moved = here.backend.app(app_id)
    assert moved["callbackUrl"].startswith("https://connect.example.com/")
    assert [str(uri) for uri in newest.redirect_uris or []] == [moved["callbackUrl"]]
    assert moved["clientId"] == newest.client_id != app["clientId"]


def test_a_token_names_the_resource_that_the_trip_asked_for(
    here: Installation, mcp: McpServer, app_id: str, user: str
) -> None:
    departure = here.browser().agree(here.backend.connect_url(user, appId=app_id))
    assert parse_qs(urlsplit(departure).query)["resource"] == [mcp.url]
    other = {"redirectUrl": BACK, "resources": ["https://files.example.com"]}
    departure = here.browser().agree(here.backend.connect_url(user, appId=app_id, options=other))
    assert parse_qs(urlsplit(departure).query)["resource"] == ["https://files.example.com"]


def test_registering_is_refused_where_the_server_offers_none(here: Installation, create_app: CreateApp) -> None:
    answer = here.backend.post(
        "app/create", {"name": "No registration", "discoveryUrl": here.provider.url, "useDcr": True}
    )
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == "useDcr"


@pytest.mark.parametrize(
    ("on_the_app", "on_the_trip", "asked_for"),
    [
        ("https://mcp.example.com/mcp", [], ["https://mcp.example.com/mcp"]),
        ("https://mcp.example.com/mcp", ["https://a.example.com", "urn:b"], ["https://a.example.com", "urn:b"]),
        ("", ["urn:b"], ["urn:b"]),
        ("", [], []),
    ],
)
def test_the_code_and_every_refresh_are_sent_with_the_resource(
    here: Installation,
    scripted: ScriptedProvider,
    user: str,
    on_the_app: str,
    on_the_trip: list[str],
    asked_for: list[str],
) -> None:
    here.backend.create_app(scripted.registration(f"resource-{user}", resource=on_the_app))
    browser = here.browser()
    options = {"redirectUrl": BACK, "resources": on_the_trip}
    departure = browser.agree(here.backend.connect_url(user, appId=f"resource-{user}", options=options))
    state = parse_qs(urlsplit(departure).query)["state"][0]
    callback = here.backend.app(f"resource-{user}")["callbackUrl"]
    assert came_back(browser.open(f"{callback}?code=c&state={state}"))["outboundStatus"] == "connected"
    here.backend.token(user, appId=f"resource-{user}", scopes=["files"], options={"forceRefresh": True})
    redeemed, refreshed = scripted.requests_to("/token")
    for request, grant_type in ((redeemed, "authorization_code"), (refreshed, "refresh_token")):
        assert request.form["grant_type"] == grant_type
        assert [value for name, value in request.pairs if name == "resource"] == asked_for


@pytest.mark.parametrize("resource", ["mcp.example.com", "https://mcp.example.com/#top", "https://[::1"])
def test_a_resource_is_an_absolute_uri_without_a_fragment(here: Installation, resource: str) -> None:
    answer = here.backend.post("app/create", {"name": "Odd", "resource": resource})
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == "resource"


def test_the_example_in_the_documentation_works(
    here: Installation, mcp: McpServer, app_id: str, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/agents.md").read_text()
    (example,) = re.findall(r"```python\n(import json\n.*?)```", page, flags=re.DOTALL)
    monkeypatch.setenv("EVERGRANT", here.url)
    monkeypatch.setenv("PROJECT_ID", here.backend.project_id)
    monkeypatch.setenv("MANAGEMENT_KEY", here.backend.management_key)
    agent: dict[str, Any] = {}
    exec(example, agent)

    asked = agent["call_tool"](mcp.url, app_id, user, "shout", {"text": "hello"})
    (link,) = re.findall(r"http\S+", asked)
    connect(here.browser(), link)
    assert agent["call_tool"](mcp.url, app_id, user, "shout", {"text": "hello"}) == "HELLO"
