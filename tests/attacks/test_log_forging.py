"""Nobody writes into our log by what they send, and each line says who asked and from where."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from evergrant.settings import Settings
from tests.infra.installation import BACK, Backend, Browser, new_project
from tests.infra.scripted import ScriptedProvider, serving
from tests.infra.serving import ServerProcess, environment_of, free_port

FORGED = "\r\n2026-11-26 12:00:00,000 INFO    evergrant.access: GET /forged 200  actor=key:forged"
ODD = f"x{FORGED}\x1b[2K\u202e\u2028\u200b\x85\x7fy"
"""Line breaks of four kinds, an escape sequence, and characters that turn or hide text."""


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The log is the same on every database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@contextlib.contextmanager
def running(settings: Settings, style: str, log: Path) -> Iterator[tuple[ServerProcess, Backend, ScriptedProvider]]:
    """A server that logs all it can, and an app at a provider that says what it is told."""
    made = new_project(settings)
    environment = environment_of(settings) | {
        "EVERGRANT_REFRESHER": "false",
        "EVERGRANT_LOG_LEVEL": "debug",
        "EVERGRANT_LOG_FORMAT": style,
    }
    server = ServerProcess(environment, port=free_port(), log=log)
    with server, serving(ScriptedProvider()) as provider:
        backend = Backend(server.url, made.project_id, made.management_key)
        with backend.http:
            yield server, backend, provider


def ask_raw(port: int, target: bytes, *headers: bytes) -> None:
    """Send a request as it is: clients would tidy it."""
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + b"".join(headers) + b"\r\n")
        while line.recv(65536):
            pass


def attack(server: ServerProcess, backend: Backend, provider: ScriptedProvider) -> None:
    """Send what is to be a line of its own by every way that leads into the log."""
    for target in (b"/x%0D%0A2026-11-26%20forged", b"/%1B%5B2K%E2%80%AE%E2%80%A8%C2%85", b"/" + b"long" * 2_000):
        ask_raw(server.port, target)
    ask_raw(server.port, b"/v1/mgmt/outbound/app/a%0Aforged", b"X-Forwarded-For: 203.0.113.9\r\n")
    ask_raw(server.port, b"/healthz", b"X-Forwarded-For: 203.0.113.9 forged\r\n")
    registration = provider.registration("odd") | {"name": ODD, "skipConsentPage": False}
    assert backend.post("app/create", registration).status_code == 200
    browser = Browser()
    with browser.http:
        for user in (ODD, "bob"):
            link = backend.connect_url(user, appId="odd", options={"redirectUrl": BACK})
            location = browser.agree(link)
            state = location.partition("state=")[2].partition("&")[0]
            answer = {"error": ODD, "error_description": ODD} if user == ODD else {"code": "c"}
            provider.routes["/token"] = {"error": "invalid_request", "error_description": ODD}
            callback = backend.app("odd")["callbackUrl"]
            assert browser.http.get(callback, params={**answer, "state": state}).status_code == 303
    backend.fetch(ODD, appId="odd")


@pytest.mark.parametrize("style", ["json", "text"])
def test_an_attacker_who_sends_line_breaks_writes_no_line_of_the_log(
    settings: Settings, tmp_path: Path, style: str
) -> None:
    """What is not printable is escaped in both formats, and what is one word stays one."""
    with running(settings, style, tmp_path / "log") as (server, backend, provider):
        attack(server, backend, provider)
        server.stop()
        # As bytes: Python would read U+2028 and kin as ends of lines, and so would some viewers.
        lines = (tmp_path / "log").read_bytes().decode().removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines), [line for line in lines if not line.isprintable()]
    assert len(lines) > 10
    assert max(map(len, lines)) < 4_000
    if style == "json":
        entries = [json.loads(line) for line in lines]
        assert {entry["address"] for entry in entries if entry["message"].startswith("GET /healthz")} == {
            "127.0.0.1",
            "",
        }
        assert not [entry for entry in entries if entry.get("actor") == "key:forged"]
        assert any(entry.get("actor", "").startswith("user:x\r\n2026") for entry in entries), "told as it was"
    else:
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ +[\w.]+: |    ", line) for line in lines)
        assert not [line for line in lines if re.search(r" actor=key:forged( |$)", line)]
        assert not [
            line for line in lines if re.search(r": GET /forged 200", line) and line.startswith("2026-11-26 12:")
        ]


def test_a_stolen_key_that_fetches_leaves_its_name_and_address_in_the_log(settings: Settings, tmp_path: Path) -> None:
    """Whose credential fetched what from where can be told afterwards, and the line has no secret."""
    with running(settings, "json", tmp_path / "log") as (server, backend, _):
        headers = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}  # the first is what the caller wrote itself
        body = {"appId": "none", "userId": "alice", "scopes": []}
        backend.http.post("/v1/mgmt/outbound/app/user/token", json=body, headers=headers)
        key_id = backend.http.get("/v1/mgmt/managementkey/search").json()["keys"][0]["id"]
        server.stop()
        log = server.output()
    (line,) = [json.loads(line) for line in log.splitlines() if "/app/user/token" in line]
    assert (line["actor"], line["project"]) == (f"key:{key_id}", backend.project_id)
    assert line["address"] == "203.0.113.9"
    assert backend.management_key not in log
