"""The gateway between two halves of the SDK: its own clients, of both eras, and its own server."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import ElicitResult, ToolListChangedNotification

from tests.infra.installation import BACK
from tests.infra.mcp_server import McpServer, mcp_server
from tests.infra.people import someone
from tests.infra.waiting import PATIENCE, until
from tests.mcp.conftest import Agents
from tests.mcp.test_gateway import LIST, connect, post

MODERN = "2026-07-28"


@pytest.fixture(scope="module")
def server() -> Iterator[McpServer]:
    with mcp_server(talks=True) as one:
        yield one


@pytest.fixture(scope="module")
def app_id(agents: Agents, server: McpServer) -> str:
    fields = {"discoveryUrl": server.url, "useDcr": True, "defaultRedirectUrl": BACK}
    return str(agents.here.backend.create_app({"name": "Talk", **fields})["id"])


@pytest.fixture
def key(agents: Agents, app_id: str, user: str) -> str:
    """A session's key of a user who is connected."""
    connect(agents, app_id, user)
    return agents.session(user, app={"appId": app_id})


async def talk(url: str, key: str, mode: Any, server: McpServer) -> dict[str, Any]:
    """Use everything that the server has, and return what came."""
    told: list[Any] = []

    async def began(progress: float, total: float | None, message: str | None) -> None:
        server.go_on.set()

    async def introduce(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"name": "Ada"})

    async def hear(message: Any) -> None:
        told.append(message)

    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE, trust_env=False)
    transport = streamable_http_client(url, http_client=http)
    client = Client(transport, mode=mode, elicitation_callback=introduce, message_handler=hear)
    async with http, client:
        came: dict[str, Any] = {"tools": [tool.name for tool in (await client.list_tools()).tools]}
        for name, arguments in (("shout", {"text": "hi"}), ("slowly", {}), ("greet", {})):
            result = await client.call_tool(name, arguments, progress_callback=began)
            came[name] = result.content[0].text  # type: ignore[union-attr]  # they all answer text
        if mode == "legacy":
            await until(lambda: ("GET", "") not in server.heard and "GET" in dict(server.heard), "it listens")
            await client.call_tool("announce", {})
            await until(lambda: any(isinstance(one, ToolListChangedNotification) for one in told), "it is told")
    return came


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_of_either_era_talks_through_the_gateway(
    agents: Agents, server: McpServer, app_id: str, key: str, mode: str
) -> None:
    server.heard.clear()
    server.go_on.clear()
    assert asyncio.run(talk(f"{agents.url}/~{app_id}", key, mode, server)) == {
        "tools": ["shout", "slowly", "greet", "announce"],
        "shout": "HI",
        "slowly": "streamed",
        "greet": "Hello Ada",
    }
    methods = {method for method, _ in server.heard}
    assert methods == ({"POST", "GET", "DELETE"} if mode == "legacy" else {"POST"})


def modern(agents: Agents, app_id: str, key: str, tool: str, **params: Any) -> httpx2.Response:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
    }
    asked = {"_meta": meta, "name": tool, "arguments": {}, **params}
    body = {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": asked}
    headers = {"MCP-Protocol-Version": MODERN, "mcp_method": "tools/call", "mcp_name": tool}
    return post(agents, app_id, key, body, **headers)


def result_of(answer: httpx2.Response) -> dict[str, Any]:
    (line,) = [line for line in answer.text.splitlines() if line.startswith("data:")] or [f"data:{answer.text}"]
    found: dict[str, Any] = json.loads(line.removeprefix("data:"))["result"]
    return found


def test_a_state_of_the_server_is_nobody_elses(agents: Agents, server: McpServer, app_id: str, key: str) -> None:
    other = someone()
    connect(agents, app_id, other)
    others = agents.session(other, app={"appId": app_id})
    asked = result_of(modern(agents, app_id, key, "greet"))
    (question,) = asked["inputRequests"]
    state = asked["requestState"]
    answers = {question: {"action": "accept", "content": {"name": "Ada"}}}
    heard = len(server.heard)
    # To the server both are the same client and the same person: it would let either go on.
    for who, given in ((others, {"requestState": state}), (key, {"requestState": state[:-2] + "AA"})):
        refused = modern(agents, app_id, who, "greet", inputResponses=answers, **given)
        assert (refused.status_code, refused.json()["error"]["message"]) == (
            400,
            "params.requestState: this is not for this call: call again without it",
        )
    for odd in ({"RequestState": state}, {"requestState": 1}, {"requestState": state, "arguments": {"a": state}}):
        assert modern(agents, app_id, key, "greet", **odd).status_code == 400, odd
    assert len(server.heard) == heard
    done = result_of(modern(agents, app_id, key, "greet", inputResponses=answers, requestState=state))
    assert done["content"][0]["text"] == "Hello Ada"


def test_two_users_never_share_a_session_of_the_server(
    agents: Agents, server: McpServer, app_id: str, key: str
) -> None:
    other = someone()
    connect(agents, app_id, other)
    keys = (key, agents.session(other, app={"appId": app_id}))
    begin = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": begin}
    mine, theirs = (post(agents, app_id, one, hello).headers["mcp-session-id"] for one in keys)
    server.heard.clear()
    for one, session in ((keys[0], theirs), (keys[1], mine)):
        assert post(agents, app_id, one, LIST, mcp_session_id=session).status_code == 404
    assert server.heard == []
    for one, session in ((keys[0], mine), (keys[1], theirs)):
        assert result_of(post(agents, app_id, one, LIST, mcp_session_id=session))["tools"]
    (_, first), (_, second) = server.heard
    assert len({first, second, mine, theirs}) == 4, "the server's own ids differ, and neither is what a client gets"


def test_a_token_that_the_server_refuses_is_refreshed_once(
    agents: Agents, server: McpServer, app_id: str, key: str
) -> None:
    provider = server.provider
    before = provider.refreshes
    provider.access_tokens.clear()
    assert result_of(modern(agents, app_id, key, "shout", arguments={"text": "hi"}))["content"][0]["text"] == "HI"
    assert provider.refreshes == before + 1
    provider.access_tokens.clear()
    refused = modern(agents, app_id, key, "shout", arguments={"text": "hi"})
    assert provider.refreshes == before + 1, "a server that refuses everything has no token refreshed again and again"
    # 401 would tell the client that its own credential is not accepted.
    assert (refused.status_code, refused.json()["error"]["code"]) == (200, -32042)
    assert refused.json()["error"]["data"]["reason"] == "reauthorization_required"


def test_a_client_whose_user_is_not_connected_gets_a_link(
    agents: Agents, server: McpServer, app_id: str, user: str
) -> None:
    key = agents.session(user, app={"appId": app_id})
    with pytest.raises((MCPError, ExceptionGroup)) as raised:
        asyncio.run(talk(f"{agents.url}/~{app_id}", key, "legacy", server))
    error = raised.value
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, MCPError)
    assert error.code == -32042
    assert error.data["connect_url"] in error.message
