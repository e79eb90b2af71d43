"""The gateway to a remote MCP server: somebody else's server, our credential, the owner's token."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.infra.installation import BACK, Browser
from tests.infra.mcp_server import McpServer, mcp_server
from tests.infra.people import someone
from tests.infra.waiting import PATIENCE
from tests.mcp.conftest import Agents

SHOUT = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "shout", "arguments": {"text": "hi"}}}
LIST = {"jsonrpc": "2.0", "id": 8, "method": "tools/list", "params": {}}


@pytest.fixture(scope="module")
def server() -> Iterator[McpServer]:
    with mcp_server() as one:
        yield one


@pytest.fixture(scope="module")
def app_id(agents: Agents, server: McpServer) -> str:
    fields = {"discoveryUrl": server.url, "useDcr": True, "defaultRedirectUrl": BACK}
    return str(agents.here.backend.create_app({"name": "Notes", **fields})["id"])


def connect(agents: Agents, app_id: str, user: str) -> None:
    browser = Browser()
    authorized = browser.open(browser.agree(agents.here.backend.connect_url(user, appId=app_id)))
    assert browser.open(authorized.headers["location"]).status_code == 303
    browser.http.close()


def post(agents: Agents, app_id: str, key: str, body: Any, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    usual = {
        "Authorization": f"Bearer {key}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-06-18",
    }
    return httpx2.post(f"{agents.url}/~{app_id}", json=body, headers={**usual, **named}, timeout=PATIENCE)


def test_a_tool_of_a_remote_server_is_called_with_the_owners_token(agents: Agents, app_id: str, user: str) -> None:
    connect(agents, app_id, user)
    key = agents.session(user, app={"appId": app_id})
    assert post(agents, app_id, key, SHOUT).json()["result"]["content"][0]["text"] == "HI"


def test_a_session_that_only_reads_lists_tools_and_calls_none(agents: Agents, app_id: str, user: str) -> None:
    connect(agents, app_id, user)
    key = agents.session(user, app={"appId": app_id, "access": "read"})
    assert [tool["name"] for tool in post(agents, app_id, key, LIST).json()["result"]["tools"]] == ["shout"]
    refused = post(agents, app_id, key, SHOUT)
    assert (refused.status_code, refused.json()["error"]["data"]["details"]) == (403, {"rule": "session"})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    for name in ("method", "Method", "METHOD", "m\\u0065thod"):  # servers differ in which of them they read
        start = '{"jsonrpc": "2.0", "id": 1, "params": {"name": "shout"}, "method": "tools/list"'
        twice = f'{start}, "{name}": "tools/call"}}'
        assert httpx2.post(f"{agents.url}/~{app_id}", content=twice.encode(), headers=headers).status_code == 400, name
    assert post(agents, app_id, key, {**LIST, "id": 9}, mcp_method="tools/call").status_code == 403


def test_who_is_not_connected_gets_a_link_and_who_is_not_let_in_nothing(agents: Agents, app_id: str, user: str) -> None:
    asked = post(agents, app_id, agents.session(user, app={"appId": app_id}), SHOUT).json()
    assert (asked["id"], asked["error"]["code"]) == (7, -32042)
    assert asked["error"]["data"]["elicitations"][0]["url"] == asked["error"]["data"]["connect_url"]
    assert post(agents, app_id, agents.session(user), SHOUT).status_code == 403
    assert post(agents, app_id, "nonsense", SHOUT).status_code == 401


def test_a_session_of_the_server_is_nobody_elses(agents: Agents, user: str) -> None:
    seen: list[str] = []

    def initialize(request: Any) -> bytes:
        seen.append(request.headers.get("mcp-session-id", ""))
        body = b'{"jsonrpc":"2.0","id":8,"result":{}}'
        head = (
            "HTTP/1.1 200 X\r\ncontent-type: application/json\r\nmcp-session-id: theirs\r\ncontent-length: %d\r\n\r\n"
        )
        return (head % len(body)).encode() + body

    agents.api.routes["/mcp"] = initialize
    backend = agents.here.backend
    app_id = backend.new_app(
        agents.here.provider.registration, resource=f"{agents.api.url}/mcp", defaultRedirectUrl=BACK
    )
    other = someone()
    for one in (user, other):
        agents.here.connected(one, appId=app_id)
    mine, theirs = (agents.session(one, app={"appId": app_id}) for one in (user, other))
    session = post(agents, app_id, mine, LIST).headers["mcp-session-id"]
    assert "theirs" not in session
    assert post(agents, app_id, mine, LIST, mcp_session_id=session).status_code == 200
    assert post(agents, app_id, theirs, LIST, mcp_session_id=session).status_code == 404
    assert seen == ["", "theirs"]
