"""The gateway to a remote MCP server: somebody else's server, our credential, the owner's token."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from evergrant import clock
from evergrant.broker.access.authentication import authenticate
from evergrant.broker.calls.call_log import write_calls
from evergrant.broker.calls.gateway import RemoteRequest, call_remote
from evergrant.broker.runtime.broker import open_broker
from evergrant.broker.runtime.in_flight import InFlight
from evergrant.db import CallRecord
from evergrant.errors import RateLimited
from tests.infra.installation import BACK, Browser
from tests.infra.mcp_server import McpServer, mcp_server
from tests.infra.people import someone
from tests.infra.waiting import PATIENCE, in_a_thread, wait_until
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


def test_a_call_that_is_one_too_many_uses_nothing_up_and_one_that_is_made_is_logged_whole(
    agents: Agents, app_id: str, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(*_: Any) -> None:
        raise RateLimited(limit=1, wait_seconds=1)

    def logged() -> list[dict[str, Any]]:
        answer = agents.here.backend.http.get("/v1/mgmt/outbound/calls", params={"userId": user, "kind": "mcp"})
        return [call for call in answer.json()["calls"] if call["source"]]

    connect(agents, app_id, user)
    key = agents.session(user, app={"appId": app_id}, maxCalls=1)
    with monkeypatch.context() as full:
        full.setattr(InFlight, "begin", is_full)
        assert post(agents, app_id, key, SHOUT).status_code == 429
    assert post(agents, app_id, key, SHOUT).status_code == 200
    wait_until(lambda: bool(logged()), "the call is logged")
    (call,) = logged()
    assert (call["status"], call["bytesSent"]) == (200, len(httpx2.Request("POST", agents.url, json=SHOUT).content))


def test_a_session_that_only_reads_lists_tools_and_calls_none(agents: Agents, app_id: str, user: str) -> None:
    connect(agents, app_id, user)
    key = agents.session(user, app={"appId": app_id, "access": "read"})
    assert [tool["name"] for tool in post(agents, app_id, key, LIST).json()["result"]["tools"]] == ["shout"]
    refused = post(agents, app_id, key, SHOUT)
    assert (refused.status_code, refused.json()["error"]["data"]["details"]) == (403, {"rule": "session"})
    asked = {"action": "call.denied", "userId": user}
    told = agents.here.backend.http.get("/v1/mgmt/audit/records", params=asked).json()["audits"]
    assert [(one["appId"], one["data"]["rule"]) for one in told] == [(app_id, "session")]
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


def test_a_call_is_logged_and_keeps_the_connection_in_use_and_one_too_many_is_not(
    agents: Agents, app_id: str, user: str
) -> None:
    connect(agents, app_id, user)
    key = agents.session(user, app={"appId": app_id})
    body = json.dumps(LIST).encode()
    headers = [(b"content-type", b"application/json"), (b"accept", b"application/json, text/event-stream")]
    asked = RemoteRequest(app_id=app_id, method="POST", headers=headers, body=body, calls_tool=False)
    one_at_once = agents.here.settings.model_copy(update={"calls_at_once_per_owner": 1})

    async def call() -> None:
        async with open_broker(one_at_once) as broker:
            who = await authenticate(broker, f"Bearer {key}", client_address="127.0.0.1", now=clock.now())
            async with call_remote(broker, who, asked, now=clock.now()):
                with pytest.raises(RateLimited):
                    async with call_remote(broker, who, asked, now=clock.now()):
                        pass
            assert len(broker.uses.grants) == 1
            await write_calls(broker)
            async with broker.database.read() as session:
                logged = list(await session.scalars(select(CallRecord).where(CallRecord.user_id == user)))
            assert [(one.status, one.bytes_sent) for one in logged] == [(200, len(body))]

    in_a_thread(call())
