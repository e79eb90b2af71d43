"""The MCP server on the wire: both eras, who gets in, and what a client carries for us."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from tests.infra.installation import APP_ID, BACK
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.people import someone, trust
from tests.infra.scripted import serving
from tests.infra.waiting import PATIENCE
from tests.mcp.conftest import Agents, follow

MODERN = "2026-07-28"
ME = {"app": APP_ID, "path": "/me"}
LINKS: dict[str, Any] = {"elicitation": {"url": {}}}


class Wire:
    """A client that writes its requests itself."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json, text/event-stream"}
        self.url, self.http = url, httpx2.Client(headers=headers, timeout=PATIENCE, trust_env=False)

    def post(self, body: Any, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(self.url, json=body, headers=named)

    def modern(self, method: str, abilities: Any = None, about: str = "", **params: Any) -> httpx2.Response:
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": abilities or {},
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta, **params}}
        named = {"mcp_name": about} if about else {}
        return self.post(body, mcp_protocol_version=MODERN, mcp_method=method, **named)

    def call(self, tool: str, arguments: Any, abilities: Any = None, **params: Any) -> dict[str, Any]:
        answer = self.modern("tools/call", abilities, tool, **{"name": tool, "arguments": arguments, **params})
        result: dict[str, Any] = answer.json().get("result") or answer.json()
        return result

    def initialize(self, version: str = "2025-11-25", abilities: Any = None) -> httpx2.Response:
        params = {
            "protocolVersion": version,
            "capabilities": abilities or {},
            "clientInfo": {"name": "test", "version": "1"},
        }
        return self.post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})

    def old(self, method: str, session: str, version: str = "2025-11-25", **params: Any) -> httpx2.Response:
        body = {"jsonrpc": "2.0", "id": 2, "method": method, "params": params}
        return self.post(body, mcp_session_id=session, mcp_protocol_version=version)


Dial = Callable[[str], Wire]


@pytest.fixture
def dial(agents: Agents) -> Iterator[Dial]:
    """Make a client with a key."""
    with contextlib.ExitStack() as stack:

        def dialled(key: str) -> Wire:
            one = Wire(agents.url, key)
            stack.callback(one.http.close)
            return one

        yield dialled


@pytest.fixture
def wire(agents: Agents, dial: Dial, user: str) -> Wire:
    return dial(agents.session(user))


@pytest.fixture
def connected(agents: Agents, user: str, wire: Wire) -> Wire:
    agents.here.connected(user)
    return wire


def test_the_newest_era_is_told_what_there_is_and_for_how_long(wire: Wire) -> None:
    found = wire.modern("server/discover").json()["result"]
    assert found["supportedVersions"] == [MODERN]
    listed = wire.modern("tools/list").json()["result"]
    assert (listed["ttlMs"], listed["cacheScope"]) == (60_000, "private")
    hints = {tool["name"]: tool["annotations"] for tool in listed["tools"]}
    assert hints["api_read"]["readOnlyHint"]
    assert hints["api_write"]["destructiveHint"]
    for tool in listed["tools"]:
        assert tool["inputSchema"]["additionalProperties"] is False
        assert "outputSchema" not in tool


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2025-03-26"])
def test_the_handshake_eras_are_spoken_too(wire: Wire, version: str) -> None:
    answer = wire.initialize(version)
    assert answer.json()["result"]["protocolVersion"] == version
    session = answer.headers["mcp-session-id"]
    told = wire.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, mcp_session_id=session)
    assert told.status_code == 202
    assert wire.old("ping", session, version).json()["result"] == {}
    assert len(wire.old("tools/list", session, version).json()["result"]["tools"]) == 5


def test_what_contradicts_itself_or_is_unknown_is_refused_with_the_protocols_codes(wire: Wire) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
    body["params"] = {"_meta": meta}
    mismatch = wire.post(body, mcp_protocol_version=MODERN, mcp_method="tools/call")
    assert (mismatch.status_code, mismatch.json()["error"]["code"]) == (400, -32020)
    meta["io.modelcontextprotocol/protocolVersion"] = "2099-01-01"
    unknown = wire.post(body, mcp_protocol_version="2099-01-01", mcp_method="tools/list")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, -32022)
    missing = wire.modern("resources/list")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, -32601)
    assert wire.post([body, body]).status_code == 400
    assert {wire.http.request(method, wire.url).status_code for method in ("GET", "DELETE")} == {405}


def test_only_users_and_sessions_of_this_project_get_in_and_pages_of_its_origins(
    agents: Agents, user: str, dial: Dial
) -> None:
    with serving(Issuer()) as issuer:
        trust(agents.here.backend, issuer)
        may = {"scope": "outbound.call"}
        keys = {
            "none": ("nonsense", 401),
            "management": (f"{agents.here.backend.project_id}:{agents.here.backend.management_key}", 401),
            "no scope": (issuer.session(user), 403),
            "for the issuer's audience": (issuer.session(user, **may), 200),
            "for this address": (issuer.session(user, aud=agents.url, **may), 200),
            "for another": (issuer.session(user, aud="https://elsewhere.example.com", **may), 401),
        }
        answers = {}
        for what, (key, _) in keys.items():
            answers[what] = dial(key).modern("tools/list")
        assert {what: answer.status_code for what, answer in answers.items()} == {
            what: status for what, (_, status) in keys.items()
        }
        document = f"{agents.here.url}/.well-known/oauth-protected-resource/mcp/{agents.here.backend.project_id}"
        assert f'resource_metadata="{document}"' in answers["none"].headers["www-authenticate"]
        assert 'error="insufficient_scope"' in answers["no scope"].headers["www-authenticate"]
        # What is for this address alone is good nowhere else, also right after it was good here.
        elsewhere = httpx2.get(
            f"{agents.here.url}/v1/mgmt/outbound/tokens",
            headers={"Authorization": f"Bearer {agents.here.backend.project_id}:{keys['for this address'][0]}"},
        )
        assert elsewhere.status_code == 401, AUDIENCE
        page = dial(keys["for this address"][0])
        assert page.post({}, origin="https://evil.example.com").status_code == 403
        assert page.post({}, origin=BACK.rpartition("/")[0]).status_code == 400


def test_a_read_shows_the_providers_answer_as_data_and_a_refusal_as_an_error(connected: Wire, agents: Agents) -> None:
    agents.api.routes |= {
        "/odd": lambda request: {"note": "ignore \u202eall\u0007 this", "query": request.target},
        "/no": lambda request: (404, {"message": "no such thing"}),
        "/long": b"HTTP/1.1 200 X\r\ncontent-type: text/plain\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000,
        "/picture": b"HTTP/1.1 200 X\r\ncontent-type: image/png\r\ncontent-length: 4\r\n\r\n\x89PNG",
    }
    odd = connected.call("api_read", {"app": APP_ID, "path": "/odd?a=1", "query": {"b": ["2", "3"]}})
    assert odd["structuredContent"]["source"] == "provider"
    assert odd["structuredContent"]["body"] == {"note": "ignore all this", "query": "/odd?a=1&b=2&b=3"}
    assert json.loads(odd["content"][0]["text"]) == odd["structuredContent"]
    no = connected.call("api_read", {"app": APP_ID, "path": "/no"})
    assert no["isError"]
    assert (no["structuredContent"]["status"], no["structuredContent"]["body"]) == (404, {"message": "no such thing"})
    long = connected.call("api_read", {"app": APP_ID, "path": "/long"})["structuredContent"]
    assert (long["truncated"], len(long["text"])) == (True, 65_536)
    picture = connected.call("api_read", {"app": APP_ID, "path": "/picture"})["structuredContent"]
    assert (picture["described"], picture["bytes"]) == ("binary data (image/png)", 4)


def test_a_read_changes_nothing_and_unknown_arguments_are_named(connected: Wire) -> None:
    post = connected.call("api_read", {**ME, "method": "POST", "json": {}})
    assert post["structuredContent"]["message"] == "Nobody says that this POST changes nothing: use api_write."
    host = connected.call("api_read", {**ME, "host": "https://evil.example.com"})
    assert host["structuredContent"]["message"].startswith("host: there is no such field")
    written = connected.call("api_write", {**ME, "method": "POST", "json": {"a": 1}})
    assert written["structuredContent"]["body"]["method"] == "POST"


def test_a_users_no_ends_the_call_and_a_state_is_for_one_call_of_one_caller(
    agents: Agents, wire: Wire, dial: Dial
) -> None:
    asked = wire.call("api_read", ME, LINKS)
    assert asked["resultType"] == "input_required"
    assert asked["inputRequests"]["connect"]["params"]["mode"] == "url"
    state = asked["requestState"]
    for action in ("decline", "cancel"):
        said = wire.call("api_read", ME, LINKS, requestState=state, inputResponses={"connect": {"action": action}})
        assert (said["isError"], said["structuredContent"]["status"]) == (True, "connect_refused")
    accepted = {"requestState": state, "inputResponses": {"connect": {"action": "accept"}}}
    other_call = wire.call("api_read", {**ME, "path": "/other"}, LINKS, **accepted)
    assert other_call["error"]["code"] == -32602
    other_user = dial(agents.session(someone())).call("api_read", ME, LINKS, **accepted)
    assert other_user["error"]["code"] == -32602
    altered = wire.call("api_read", ME, LINKS, **{**accepted, "requestState": state[:-2] + "AA"})
    assert altered["error"]["code"] == -32602


def test_a_state_that_is_too_old_asks_anew(
    agents: Agents, wire: Wire, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evergrant.web.mcp.asking.ASKED_MINUTES", -1)
    asked = wire.call("api_read", ME, LINKS)
    monkeypatch.undo()
    again = wire.call(
        "api_read",
        ME,
        LINKS,
        requestState=asked["requestState"],
        inputResponses={"connect": {"action": "accept"}},
    )
    assert "connect" in again["inputRequests"]
    assert again["requestState"] != asked["requestState"]


def test_who_accepts_and_is_not_done_yet_is_waited_for(
    agents: Agents, wire: Wire, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evergrant.web.mcp.asking.WAIT_SECONDS", 0.0)
    asked = wire.call("api_read", ME, LINKS)
    assert wire.call("connection_status", {"app": APP_ID})["structuredContent"]["status"] == "pending"
    back = {"requestState": asked["requestState"], "inputResponses": {"connect": {"action": "accept"}}}
    waiting = wire.call("api_read", ME, LINKS, **back)
    assert "inputRequests" not in waiting
    follow(agents.here, user, asked["inputRequests"]["connect"]["params"]["url"])
    done = wire.call("api_read", ME, LINKS, requestState=waiting["requestState"])
    assert done["structuredContent"]["body"] == {"path": "/me", "method": "GET"}


def test_abilities_of_the_handshake_era_are_the_callers_who_declared_them(
    agents: Agents, wire: Wire, dial: Dial
) -> None:
    session = wire.initialize(abilities=LINKS).headers["mcp-session-id"]
    asked = wire.old("tools/call", session, name="api_read", arguments=ME).json()
    assert asked["error"]["code"] == -32042
    other = dial(agents.session(someone()))
    assert other.old("tools/list", session).status_code == 404


def test_a_session_that_wants_links_as_text_gets_them(agents: Agents, user: str, dial: Dial) -> None:
    asked = dial(agents.session(user, elicitation="link")).call("api_read", ME, LINKS)
    assert asked["structuredContent"]["status"] == "connection_required"
    assert asked["structuredContent"]["connect_url"].startswith(agents.here.url)


def test_nobody_sees_or_uses_the_connections_of_another(agents: Agents, connected: Wire, user: str, dial: Dial) -> None:
    mine = connected.call("list_connections", {})["structuredContent"]
    assert [one["app"] for one in mine["connections"]] == [APP_ID]
    other = dial(agents.session(someone()))
    assert other.call("list_connections", {})["structuredContent"]["connections"] == []
    assert other.call("connection_status", {"app": APP_ID})["structuredContent"]["status"] == "not_connected"


def test_a_call_that_needs_approval_is_made_once_it_is_given(agents: Agents, user: str, dial: Dial) -> None:
    agents.here.connected(user)
    wire = dial(agents.session(user, app={"approve": "writes"}))
    write = {**ME, "method": "POST", "json": {"a": 1}}
    asked = wire.call("api_write", write, LINKS)
    assert "approve" in asked["inputRequests"], asked
    shown = wire.call("api_write", write)["structuredContent"]
    assert shown["status"] == "approval_required"
    (pending,) = agents.here.backend.get(f"approvals?userId={user}").json()["approvals"]
    answer = agents.here.backend.post("approval/decide", {"id": pending["id"], "decision": "approve"})
    assert answer.status_code == 200, answer.text
    back = {"requestState": asked["requestState"], "inputResponses": {"approve": {"action": "accept"}}}
    made = wire.call("api_write", write, LINKS, **back)
    assert made["structuredContent"]["body"]["method"] == "POST", made


def test_without_the_extra_the_answer_names_it(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    answer = wire.modern("tools/list")
    assert (answer.status_code, "evergrant[mcp]" in answer.json()["error"]["message"]) == (501, True)
