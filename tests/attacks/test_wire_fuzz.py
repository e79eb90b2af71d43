"""Hundreds of requests that are none leave a server as it was. They are the same in each run."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.databases import fresh_sqlite_database
from tests.infra.installation import Backend, new_project
from tests.infra.raw import RawCaller
from tests.infra.serving import ServerProcess, environment_of
from tests.infra.settings import settings_on

HOW_MANY = 600
GROWTH = 60_000_000
"""Bytes that the process may have more afterwards: it has compiled and cached what it needs."""

PATHS = (
    b"/healthz",
    b"/v1/mgmt/outbound/app/user/token",
    b"/oauth2/v1/token",
    b"/connect/x",
    b"/docs",
    b"*",
    b"//",
    b"",
)
LINES = (
    b"Content-Length: 5",
    b"Content-Length: 4294967296",
    b"Content-Length: 5 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding:\tCHUNKED",
    b"Content-Encoding: gzip",
    b"Content-Type: application/json; charset=utf-7",
    b"Content-Type: multipart/form-data; boundary=x",
    b"Expect: 100-continue",
    b"Connection: close, keep-alive, upgrade",
    b"Upgrade: websocket",
    b"Host: \xff\xfe",
    b"Host: [::1",
    b"Authorization: Bearer \xc3\xa9",
    b"Cookie: " + b"a=b; " * 500,
    b"X-Forwarded-For: " + b"9" * 300,
    b"X-Forwarded-Proto: gopher",
    b": nothing",
    b" folded",
)
BODIES = (
    b"",
    b"hello",
    b"{}",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;x=\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"\xff" * 40,
    b"[" * 2_000,
)
BYTES = (b"\0", b"\r", b"\n", b"\x0b", b"\x7f", b"\x85", b"\xa0", b" ", b"\t", b":", b"%00", b"\xe2\x80\xae")


def requests(many: int) -> Iterator[bytes]:
    """Yield requests, most of which have something wrong with them."""
    chance = random.Random(20_261_126)
    for _ in range(many):
        method = chance.choice((b"GET", b"POST", b"POST", b"PUT", b"OPTIONS", b"HEAD", b"get", b"CONNECT", b"PRI"))
        version = chance.choice((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b"HTTP/1.1 "))
        lines = [b"%b %b %b" % (method, chance.choice(PATHS), version), b"Host: evergrant"]
        lines += chance.sample(LINES, chance.randrange(5))
        whole = b"\r\n".join([*lines, b"", b""]) + chance.choice(BODIES)
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(whole))
            match chance.randrange(4):
                case 0:
                    whole = whole[:at] + chance.choice(BYTES) + whole[at:]
                case 1:
                    whole = whole[:at] + bytes([chance.randrange(256)]) + whole[at + 1 :]
                case 2:
                    whole = whole[:at] + whole[at + chance.randrange(8) :]
                case 3:
                    whole = whole[at:] + whole[:at] if chance.random() < 0.2 else whole + whole[at:]
        yield whole


@pytest.fixture
def server(tmp_path: Path, migrated_sqlite_file: Path) -> Iterator[tuple[ServerProcess, Backend]]:
    fresh_sqlite_database(migrated_sqlite_file, tmp_path)
    settings = settings_on(None, tmp_path, rate_limit_per_key=0)
    made = new_project(settings)
    with ServerProcess(environment_of(settings), "--no-refresher", log=tmp_path / "evergrant.log") as running:
        backend = Backend(running.url, made.project_id, made.management_key)
        yield running, backend
        backend.http.close()


def test_an_attacker_who_sends_hundreds_of_requests_that_are_none_changes_nothing(
    server: tuple[ServerProcess, Backend],
) -> None:
    running, backend = server
    assert backend.fetch(appId="nothing").status_code == 404
    before = _resident(running.pid)
    for request in requests(HOW_MANY):
        with RawCaller(running.url) as attacker:
            attacker.send(request)
            attacker.sends_no_more()
            said = attacker.rest()
            assert b"HTTP/1.1 5" not in said, request
    assert backend.http.get("/healthz").status_code == 200
    assert backend.fetch(appId="nothing").status_code == 404
    assert _resident(running.pid) - before < GROWTH
    lines = [json.loads(line) for line in running.output().splitlines()]
    assert not [line for line in lines if line["level"] in ("error", "critical") or "exception" in line]
    assert not [line for line in lines if line["logger"] == "evergrant.access" and line["message"][-3:] >= "500"]


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
