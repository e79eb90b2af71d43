"""What callers send is bounded before it is a request, and after; in headers too; and so is the time they take.

All of this reaches the server before anybody has shown a credential.
"""

import gzip
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from evergrant.web import protocol
from evergrant.web.app import create_app
from evergrant.web.middleware import BATCH_PATHS, MAX_BATCH_BODY_BYTES
from evergrant.web.protocol import BoundedProtocol, Due
from tests.infra.databases import fresh_sqlite_database
from tests.infra.installation import Backend, new_project
from tests.infra.raw import RawCaller
from tests.infra.scripted import ScriptedProvider
from tests.infra.serving import LiveApp
from tests.infra.settings import settings_on
from tests.infra.waiting import wait_until

FETCH = "/v1/mgmt/outbound/app/user/token"
BATCH = max(BATCH_PATHS)
"""Of users."""
ASKED = json.dumps({"appId": "nothing", "userId": "alice", "scopes": ["a"]}).encode()
MUCH = 48 * 1024 * 1024
TAKEN = 16 * 1024 * 1024
"""What may go out before the server's end of it is heard: less than 2 MiB, and what the system buffers."""


class Door:
    """A running evergrant, and its callers' connections as it sees them."""

    def __init__(self, live: LiveApp, backend: Backend) -> None:
        self.url = live.url
        self.backend = backend
        self._live = live

    def caller(self, *, room: int | None = None) -> RawCaller:
        return RawCaller(self.url, room=room)

    def unread(self) -> int:
        """Return how many callers leave an answer unread; those to what they have sent before are on their way."""
        assert self.backend.http.get("/healthz").status_code == 200
        return sum(one.has_unread for one in self.connections)

    @property
    def connections(self) -> list[BoundedProtocol]:
        return [one for one in tuple(self._live.connections) if isinstance(one, BoundedProtocol)]

    def waits_for(self, due: Due, *, body_bytes: int = 0) -> None:
        """Wait until the only connection waits for this."""
        wait_until(
            lambda: [(one.due, one.body_bytes) for one in self.connections] == [(due, body_bytes)],
            f"a connection waits for {due.value}",
        )

    def look(self, times: int) -> None:
        """Let so many looks at every connection pass, and with them two seconds each."""
        if not (there := self.connections):
            return
        done = threading.Event()

        def look() -> None:
            for _ in range(times):
                for one in self.connections:
                    one.look()
            done.set()

        there[0].loop.call_soon_threadsafe(look)
        done.wait()

    def post(self, path: str = FETCH, *headers: str, key: bool = True) -> bytes:
        """Return the head of a POST without its last line."""
        lines = [f"POST {path} HTTP/1.1", "Host: evergrant", "Content-Type: application/json", *headers]
        if key:
            lines.append(self.authorization)
        return "\r\n".join([*lines, ""]).encode()

    @property
    def authorization(self) -> str:
        return f"Authorization: Bearer {self.backend.project_id}:{self.backend.management_key}"

    def has_callers(self, number: int) -> None:
        """Close the backend's connection, which it opens again when it asks, and wait until so many are left."""
        self.backend.http.close()
        self.backend.__post_init__()
        wait_until(lambda: len(self.connections) == number, f"{number} callers are left")

    def is_well(self) -> bool:
        """Whether it answers a health check and a fetch."""
        healthy = self.backend.http.get("/healthz").status_code == 200
        return healthy and self.backend.fetch(appId="nothing").status_code == 404


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite_file: Path) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("data")
    fresh_sqlite_database(migrated_sqlite_file, folder)
    settings = settings_on(None, folder, refresher=False, rate_limit_per_key=0)
    made = new_project(settings)
    with pytest.MonkeyPatch.context() as patch, LiveApp(create_app(settings)) as live:
        patch.setattr(protocol, "LOOK_SECONDS", 10_000.0)  # the tests look
        backend = Backend(live.url, made.project_id, made.management_key)
        yield Door(live, backend)
        backend.http.close()


@pytest.fixture(autouse=True)
def _nobody_else(door: Door) -> Iterator[None]:
    yield
    assert door.is_well()
    door.has_callers(0)


HEAD = b"GET /healthz HTTP/1.1\r\nHost: evergrant\r\n"
CHUNKED = b"POST /oauth2/v1/token HTTP/1.1\r\nHost: evergrant\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "part", "status"),
    [
        (HEAD, b"a: b\r\n", 431),
        (HEAD + b"a: ", b"b", 431),
        (HEAD + b"a", b"a", 431),
        (b"GET /", b"a", 431),
        (b"", b"\r\n", 431),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"a: b\r\n", 431),
        (CHUNKED + b"1\r\nx\r\n0\r\na: ", b"b", 400),
        (CHUNKED + b"1;", b"e", 400),
        (CHUNKED, b"1;" + b"e" * 4_000 + b"\r\nx\r\n", 400),
    ],
    ids=[
        *("lines", "a value", "a name", "a URL", "blank lines"),
        *("trailers", "a trailer", "an extension", "extensions"),
    ],
)
def test_an_attacker_whose_headers_never_end_is_refused_before_they_fill_the_memory(
    door: Door, begin: bytes, part: bytes, status: int
) -> None:
    with door.caller() as attacker:
        attacker.send(begin)
        assert attacker.send_on(part * (64 * 1024 // len(part)), most=MUCH) < TAKEN
        said = attacker.rest()
        assert said == b"" or said.startswith(b"HTTP/1.1 %d " % status), said


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz?%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"q" * 17_000), 414),
        (HEAD + b"a: b\r\n" * 200 + b"\r\n", 431),
        (HEAD + b"a: %b\r\n\r\n" % (b"b" * 66_000), 431),
    ],
    ids=["URL", "lines", "value"],
)
def test_headers_that_are_too_large_are_refused_with_a_reason_and_large_ones_are_taken(
    door: Door, head: bytes, status: int
) -> None:
    with door.caller() as attacker:
        attacker.send(head)
        said = attacker.rest()
        assert said.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in said
        assert b"too" in said
    with door.caller() as control:
        lines = b"".join(b"x-%d: %b\r\n" % (number, b"v" * 250) for number in range(190))
        control.send(b"GET /healthz?%b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"q" * 15_000, lines))
        assert control.answer().startswith(b"HTTP/1.1 200 ")


# time


def test_an_attacker_who_sends_nothing_or_half_a_head_is_let_wait_for_ten_seconds(door: Door) -> None:
    with door.caller() as attacker:
        door.waits_for(Due.HEAD)
        door.look(protocol.HEAD_LOOKS + 1)
        assert attacker.rest() == b""
    with door.caller() as attacker:
        attacker.send(HEAD)
        door.waits_for(Due.HEAD)
        for _ in range(protocol.HEAD_LOOKS):
            door.look(1)
            attacker.send(b"a: b\r\n")  # a line every two seconds changes nothing
        door.look(1)
        assert attacker.rest()[:13] in (b"", b"HTTP/1.1 408 ")
    with door.caller() as control:
        door.waits_for(Due.HEAD)
        door.look(protocol.HEAD_LOOKS)
        control.send(HEAD + b"\r\n")
        assert control.answer().startswith(b"HTTP/1.1 200 ")


def test_a_caller_may_rest_between_two_requests_for_longer_than_balancers_keep_a_connection(door: Door) -> None:
    with door.caller() as control:
        control.send(HEAD + b"\r\n")
        assert control.answer().startswith(b"HTTP/1.1 200 ")
        door.waits_for(Due.HEAD)
        (one,) = door.connections
        assert one.timeout_keep_alive_task is not None
        assert one.timeout_keep_alive_task.when() - one.loop.time() > 60
        door.look(70 // 2)
        control.send(HEAD)
        wait_until(lambda: one.timeout_keep_alive_task is None, "the next request has begun")
        door.look(protocol.HEAD_LOOKS)
        control.send(b"\r\n")
        assert control.answer().startswith(b"HTTP/1.1 200 ")
        door.waits_for(Due.HEAD)
        control.send(HEAD)  # and half of a third one is given no longer than half of a first
        wait_until(lambda: one.timeout_keep_alive_task is None, "a third request has begun")
        door.look(protocol.HEAD_LOOKS + 1)
        assert control.rest()[:13] in (b"", b"HTTP/1.1 408 ")


def test_an_attacker_who_drips_a_body_is_given_up(door: Door) -> None:
    with door.caller() as silent:
        silent.send(door.post(FETCH, "Content-Length: 100") + b"\r\n{")
        door.waits_for(Due.BODY, body_bytes=1)
        door.look(protocol.SILENT_LOOKS + 1)
        assert silent.rest().startswith(b"HTTP/1.1 408 ")
    with door.caller() as dripping:
        dripping.send(door.post(FETCH, "Content-Length: 1000") + b"\r\n{")
        for sent in range(1, protocol.BODY_LOOKS // protocol.SILENT_LOOKS + 1):
            door.waits_for(Due.BODY, body_bytes=sent)
            door.look(protocol.SILENT_LOOKS)
            dripping.send(b" ")
        door.waits_for(Due.BODY, body_bytes=sent + 1)
        door.look(1)
        assert dripping.rest().startswith(b"HTTP/1.1 408 ")


def test_a_slow_line_that_goes_on_uploads_a_large_body(door: Door) -> None:
    app_id = door.backend.new_app(ScriptedProvider(port=9).registration("large"))
    door.has_callers(0)
    tokens = [{"appId": app_id, "userId": f"u{n}", "accessToken": "t" * 60_000, "scopes": ["a"]} for n in range(160)]
    body = json.dumps({"tokens": tokens}).encode()
    body += b" " * (MAX_BATCH_BODY_BYTES - len(body))
    pieces = [body[at : at + 512 * 1024] for at in range(0, len(body), 512 * 1024)]
    with door.caller() as control:
        control.send(door.post(BATCH, f"Content-Length: {len(body)}") + b"\r\n")
        sent = 0
        for piece in pieces:
            door.waits_for(Due.BODY, body_bytes=sent)
            door.look(protocol.SILENT_LOOKS - 1)
            control.send(piece)
            sent += len(piece)
        assert control.answer().startswith(b"HTTP/1.1 200 ")


ASKS_MUCH = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_caller_that_does_not_read_its_answers_is_hung_up_on(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with door.caller(room=4096) as attacker:
        attacker.send(ASKS_MUCH * 16)
        wait_until(lambda: door.unread() == 1, "it reads nothing")
        (its_connection,) = [one for one in door.connections if one.has_unread]
        door.has_callers(1)
        for _ in range(20):
            door.look(protocol.UNREAD_LOOKS + 2)
        assert not door.connections
    assert door.is_well()
    assert its_connection._unanswered
    assert all(one.disconnected for one in its_connection._unanswered), "no request goes on writing to it"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING], "and is no bug of ours"


def test_an_attacker_who_reads_an_answer_bit_by_bit_is_given_up(door: Door) -> None:
    with door.caller(room=4096) as attacker:
        attacker.send(ASKS_MUCH * 16)
        wait_until(lambda: door.unread() == 1, "it reads little")
        (one,) = [one for one in door.connections if one.has_unread]
        door.has_callers(1)
        for _ in range(protocol.READ_LOOKS + 1):
            one._unread = 0  # as if it had read something since the last look
            door.look(1)
        wait_until(lambda: not door.connections, "it is hung up on")


# framing


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1ffffffffffffffff\r\nhello",
        b"GET /healthz HTTP/1.1\nHost: a\n\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
        b"GET /healthz x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://evil.example HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xab" * 500,
    ],
)
def test_an_attacker_who_smuggles_a_request_behind_another_gets_no_second_answer(door: Door, request_: bytes) -> None:
    with door.caller() as attacker:
        attacker.send(request_ + b"GET /healthz HTTP/1.1\r\nHost: b\r\n\r\n")
        said = attacker.rest()
        assert said.count(b"HTTP/1.1 ") == 1
        assert said.startswith(b"HTTP/1.1 400 ")
        assert b"connection: close" in said


def test_an_attacker_who_puts_headers_behind_a_body_gives_the_request_none(door: Door) -> None:
    chunks = b"%x\r\n%b\r\n0\r\n" % (len(ASKED), ASKED)
    with door.caller() as attacker:
        attacker.send(door.post(FETCH, "Transfer-Encoding: chunked", key=False) + b"\r\n" + chunks)
        attacker.send(door.authorization.encode() + b"\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
        assert attacker.answer().startswith(b"HTTP/1.1 401 ")
    with door.caller() as control:
        control.send(door.post(FETCH, "Transfer-Encoding: ChunKed") + b"\r\n" + chunks + b"\r\n")
        assert control.answer().startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("protocol_", [b"websocket", b"h2c"])
def test_an_attacker_who_asks_for_another_protocol_gets_an_answer_and_no_more(door: Door, protocol_: bytes) -> None:
    with door.caller() as attacker:
        attacker.send(HEAD + b"Connection: Upgrade\r\nUpgrade: %b\r\nSec-WebSocket-Key: x\r\n\r\n" % protocol_)
        attacker.send(HEAD + b"\r\n")
        said = attacker.rest()
        assert said.startswith(b"HTTP/1.1 200 ")
        assert said.count(b"HTTP/1.1 ") == 1


def test_an_attacker_who_does_not_wait_for_answers_is_hung_up_on_and_a_few_in_a_row_are_answered(door: Door) -> None:
    with door.caller() as attacker:
        assert attacker.send_on((HEAD + b"\r\n") * 1_000, most=MUCH) < TAKEN
        assert attacker.rest().count(b"HTTP/1.1 200 ") <= 1_000
    with door.caller() as control:
        control.send((HEAD + b"\r\n") * 3 + HEAD + b"Connection: close\r\n\r\n")
        assert control.rest().count(b"HTTP/1.1 200 ") == 4


# bodies


@pytest.mark.parametrize("path", [FETCH, BATCH, "/oauth2/v1/token"])
def test_a_body_that_announces_itself_as_too_large_is_refused_unread(door: Door, path: str) -> None:
    with door.caller() as attacker:
        attacker.send(door.post(path, "Content-Length: 50000000", "Expect: 100-continue") + b"\r\n")
        said = attacker.rest()
        assert said.startswith(b"HTTP/1.1 413 "), "neither does it say 100 Continue"
    with door.caller() as control:
        control.send(door.post(FETCH, f"Content-Length: {len(ASKED)}", "Expect: 100-continue") + b"\r\n")
        control.send(ASKED)
        said = control.answer()
        assert said.startswith(b"HTTP/1.1 100 ")
        assert b"HTTP/1.1 404 " in said


@pytest.mark.parametrize(
    "head", [b"GET /healthz HTTP/1.1\r\nHost: a\r\n", b"POST /v1/mgmt/outbound/app/user/token HTTP/1.1\r\nHost: a\r\n"]
)
def test_an_attacker_who_goes_on_sending_after_the_answer_is_not_listened_to(door: Door, head: bytes) -> None:
    with door.caller() as attacker:
        attacker.send(head + b"Content-Length: 1000000000\r\n\r\n")
        assert attacker.send_on(b"x" * 65_536, most=MUCH) < TAKEN
    with door.caller() as attacker:
        attacker.send(head + b"Content-Length: 1000000000\r\n\r\n")
        assert attacker.answer()[:13] in (b"HTTP/1.1 200 ", b"HTTP/1.1 401 ")
        door.waits_for(Due.REST)
        door.look(protocol.REST_LOOKS + 1)
        assert attacker.rest() == b""
    with door.caller() as control:
        control.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000)
        assert control.answer().startswith(b"HTTP/1.1 200 ")
        control.send(HEAD + b"\r\n")
        assert control.answer().startswith(b"HTTP/1.1 200 "), "a body that nobody needs is left out"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x-gzip, gzip"])
def test_a_compressed_body_is_refused_and_not_unfolded(door: Door, encoding: str) -> None:
    small = gzip.compress(b"{" + b" " * 100_000_000 + b"}") if encoding == "gzip" else ASKED
    refused = door.backend.http.post(
        FETCH, content=small, headers={"Content-Encoding": encoding, "Content-Type": "application/json"}
    )
    assert refused.status_code == 400
    assert refused.json()["details"]["fields"][0]["field"] == "Content-Encoding"
    plain = {"Content-Encoding": "identity", "Content-Type": "application/json"}
    assert door.backend.http.post(FETCH, content=ASKED, headers=plain).status_code == 404


def test_a_caller_that_hangs_up_in_the_middle_of_its_body_is_no_bug_of_ours(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for path in (FETCH, BATCH, "/oauth2/v1/token", "/v1/mgmt/outbound/app/create"):
            with door.caller() as attacker:
                attacker.send(door.post(path, "Content-Length: 100") + b"\r\n{")
                door.waits_for(Due.BODY, body_bytes=1)
            wait_until(lambda path=path: f"POST {path} 400" in caplog.text, "the call has ended")  # type: ignore[misc]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# many at once


def test_attackers_who_hold_many_large_bodies_do_not_fill_the_memory(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MOST_LARGE_BODIES_BYTES", 2 * 1024 * 1024)
    with ExitStack() as stack:
        attackers = [stack.enter_context(door.caller()) for _ in range(8)]
        for attacker in attackers:
            attacker.send(door.post(BATCH, "Content-Length: 1000000") + b"\r\n" + b" " * 900_000)
        wait_until(lambda: [one.body_bytes for one in door.connections] == [900_000] * 2, "all but two are refused")
        assert door.is_well(), "small bodies are always taken"
    wait_until(lambda: not any(one.large_body for one in door.connections), "they have gone")
    with door.caller() as control:
        control.send(door.post(BATCH, "Content-Length: 1000000") + b"\r\n" + b" " * 1_000_000)
        assert control.answer().startswith(b"HTTP/1.1 400 ")


def test_attackers_who_drip_large_bodies_keep_nobody_elses_out(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_LARGE_BODIES_BYTES", 2 * 1024 * 1024)

    def dripping() -> int:
        return sum(one.body_bytes == 900_000 for one in door.connections)

    with ExitStack() as stack:
        for _ in range(2):
            attacker = stack.enter_context(door.caller())
            attacker.send(door.post(BATCH, "Content-Length: 1000000", key=False) + b"\r\n" + b" " * 900_000)
        wait_until(lambda: dripping() == 2, "there are two")
        door.look(1)
        control = stack.enter_context(door.caller())
        control.send(door.post(BATCH, "Content-Length: 1000000") + b"\r\n" + b" " * 1_000_000)
        assert control.answer().startswith(b"HTTP/1.1 400 "), "it is no JSON, and was read"
        wait_until(lambda: dripping() == 1, "one has left")


def test_an_attacker_whose_large_body_comes_in_a_hundred_thousand_parts_stops_nobody(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks at all connections is not done for each part."""
    seen: list[int] = []
    counted = BoundedProtocol._make_room_for_bodies

    def counting(self: BoundedProtocol) -> None:
        seen.append(self.body_bytes)
        counted(self)

    monkeypatch.setattr(BoundedProtocol, "_make_room_for_bodies", counting)
    with door.caller() as attacker:
        attacker.send(door.post(BATCH, "Transfer-Encoding: chunked") + b"\r\n" + b"1\r\n \r\n" * 200_000 + b"0\r\n\r\n")
        assert attacker.answer().startswith(b"HTTP/1.1 400 ")
    assert 1 <= len(seen) <= 200_000 // protocol.SMALL_BODY_BYTES, seen


@pytest.mark.parametrize("closing", [False, True], ids=["open", "closing"])
def test_attackers_who_read_no_answers_lose_their_connections_and_others_get_in(
    door: Door, monkeypatch: pytest.MonkeyPatch, closing: bool
) -> None:
    """Be it that an answer says that it is the last: a connection is there until all of it is read."""
    with ExitStack() as stack:
        for _ in range(4):
            # That is more than the system takes for a caller with so little room.
            stack.enter_context(door.caller(room=4096)).send(ASKS_MUCH * 16)
        wait_until(lambda: door.unread() == 4, "none of them reads its answers")
        held = [one for one in door.connections if one.has_unread]
        if closing:
            for one in held:
                one.loop.call_soon_threadsafe(one.transport.close)
        monkeypatch.setattr(protocol, "_most_connections", lambda: len(held))
        door.backend.http.close()
        door.backend.__post_init__()
        assert door.is_well()
        wait_until(lambda: len(door.connections) <= len(held), "there are no more than may be")
        assert sum(one in door.connections for one in held) < len(held)


def test_attackers_who_open_many_connections_lose_theirs_and_others_get_in(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    most: Callable[[], int] = lambda: 40  # noqa: E731
    monkeypatch.setattr(protocol, "_most_connections", most)
    with ExitStack() as stack:
        for number in range(200):
            attacker = stack.enter_context(door.caller())
            attacker.send(b"" if number % 2 else HEAD)
        assert door.is_well()
        wait_until(lambda: len(door.connections) <= 41, "there are no more than may be")
        assert door.is_well()
