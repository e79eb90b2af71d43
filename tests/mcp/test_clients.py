"""Real clients of the protocol, each in an environment of its own: what their users see."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.infra.installation import APP_ID
from tests.infra.waiting import PATIENCE
from tests.mcp.conftest import Agents, follow
from tests.mcp.environments import beside_node_modules, python_in

CLIENTS = Path(__file__).parent / "clients"
TOOLS = ["list_connections", "connect_app", "connection_status", "api_read", "api_write"]
ME = ["api_read", {"app": APP_ID, "path": "/me"}]
KINDS = ["python_2-auto", "python_2-legacy", "python_1", "typescript_1", "typescript_2"]


def program_of(kind: str) -> list[str]:
    script = CLIENTS / kind.partition("-")[0]
    if kind.startswith("typescript"):
        return ["node", str(beside_node_modules(script.with_suffix(".mjs")))]
    python = sys.executable if kind.startswith("python_2") else str(python_in("python_1"))
    return [python, str(script.with_suffix(".py"))]


def play(agents: Agents, kind: str, key: str, *calls: list[Any], opens_links: bool = True) -> list[dict[str, Any]]:
    plan = {
        "url": agents.url,
        "key": key,
        "mode": kind.partition("-")[2],
        "opensLinks": opens_links,
        "person": f"{agents.api.url}/person",
        "calls": calls,
    }
    done = subprocess.run([*program_of(kind), json.dumps(plan)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    first, *rest = [json.loads(line) for line in done.stdout.splitlines()]
    assert first["tools"] == TOOLS
    return rest


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_lists_calls_and_has_its_user_connect(agents: Agents, user: str, kind: str) -> None:
    agents.api.action, agents.api.user = "accept", user
    key = agents.session(user)
    asked, *_ = play(agents, kind, key, ME)
    if "error" in asked:  # a client of the handshake era is told by an error, and calls again when its user is done
        assert asked["error"]["code"] == -32042, asked
        (link,) = asked["error"]["data"]["elicitations"]
        follow(agents.here, user, link["url"])
        (asked,) = play(agents, kind, key, ME)
    assert asked["data"].get("body") == {"path": "/me", "method": "GET"}, asked
    assert not asked["isError"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_opens_no_links_gets_one_to_show(agents: Agents, user: str, kind: str) -> None:
    (asked,) = play(agents, kind, agents.session(user), ME, opens_links=False)
    assert asked["isError"]
    assert asked["data"]["status"] == "connection_required"
    assert asked["data"]["connect_url"] in asked["text"]


@pytest.mark.frameworks
@pytest.mark.parametrize("name", ["langchain", "llamaindex", "openai_agents"])
def test_a_framework_shows_its_model_the_link_and_then_the_answer(agents: Agents, user: str, name: str) -> None:
    plan = {"url": agents.url, "key": agents.session(user), "calls": [ME]}
    command = [str(python_in(name)), str(CLIENTS / f"{name}.py"), json.dumps(plan)]

    def said() -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        listed, called = [json.loads(line) for line in done.stdout.splitlines()]
        assert listed["tools"] == TOOLS
        return str(called["said"])

    shown = said()
    found = re.search(r"https?://[^\s\"'\\]+/connect/[^\s\"'\\]+", shown)
    assert found, shown
    follow(agents.here, user, found[0])
    assert "/me" in said()
