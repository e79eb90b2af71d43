"""The log: one line a record, for machines or people, and a last net for what looks like a credential."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from evergrant.logs import configure_logging, only_handler, redact, request_id
from evergrant.metrics import Metrics
from evergrant.web.middleware import AccessLog
from tests.infra.waiting import in_a_thread


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


KEY = "evg_k1_" + "Ab3dE6g" * 7
TICKET = "3q2-7wQx0Ck5nXy1mB8fLr6hJt4vZsPdEaUiOg9KcNM"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"key {KEY} is wrong", KEY),
        (f"Authorization: Bearer P123:{KEY}", KEY),
        ("signed with whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("{'authorization': 'Bearer abc.def.ghi'}", "abc.def.ghi"),
        ("authorization: basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA=="),
        ("GET https://p.example/cb?code=4/0Adeu5B&state=xyz123", "4/0Adeu5B"),
        ("GET https://p.example/cb?code=4/0Adeu5B&state=xyz123", "xyz123"),
        ('{"access_token": "ya29.a0", "expires_in": 3600}', "ya29.a0"),
        ("grant_type=refresh_token&refresh_token=1//0gabc", "1//0gabc"),
        ('{"clientSecret":"GOCSPX-abc"}', "GOCSPX-abc"),
        ("&code_verifier=dBjftJeZ4CVP", "dBjftJeZ4CVP"),
        ("{'refreshToken': '1//0gabc'}", "1//0gabc"),
        (f"GET /connect/{TICKET} 200", TICKET),
        (f"GET /approve/{TICKET} 200", TICKET),
        (f"POST /console/enter/{TICKET} 303", TICKET),
        ("postgresql://user:hunter2@host/db", "hunter2"),
    ],
)
def test_what_looks_like_a_credential_is_redacted(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in redact(text)
    assert "[redacted]" in redact(text)


@pytest.mark.parametrize("text", ["GET /v1/mgmt/outbound/app/user/token 200", "the state of the app: unhealthy", ""])
def test_what_does_not_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_a_record_is_one_line_of_json_with_the_requests_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="info", style="json")
    token = request_id.set("r1")
    try:
        logging.getLogger("evergrant.test").warning("two\nlines of %s", "text", extra={"app": "contacts"})
    finally:
        request_id.reset(token)
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("warning", "evergrant.test", "two\nlines of text")
    assert (entry["requestId"], entry["app"]) == ("r1", "contacts")


@pytest.mark.parametrize("style", ["json", "text"])
def test_tracebacks_and_extra_members_are_redacted_too(capsys: pytest.CaptureFixture[str], style: str) -> None:
    configure_logging(level="info", style=style)
    try:
        int(f"GET https://p.example/?code=c0de&x=1 with {KEY}")  # its message quotes what it was given
    except ValueError:
        logging.getLogger("evergrant.test").exception("failed", extra={"url": f"https://e.example/connect/{TICKET}"})
    logged = capsys.readouterr().err
    assert "ValueError" in logged
    assert [secret for secret in ("c0de", KEY, TICKET) if secret in logged] == []


def test_the_level_is_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="warning", style="text")
    logging.getLogger("evergrant.test").info("quiet")
    assert capsys.readouterr().err == ""


def test_libraries_that_log_whole_urls_are_kept_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="debug", style="text")
    for name in ("httpx2", "httpcore2", "uvicorn.access"):
        logging.getLogger(name).info("GET https://p.example/?anything")
    assert capsys.readouterr().err == ""


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize("style", ["json", "text"])
def test_what_is_not_printable_is_escaped_wherever_it_comes_from(
    capsys: pytest.CaptureFixture[str], style: str
) -> None:
    configure_logging(level="info", style=style)
    odd = "a\r\n2026-11-26 12:00:00,000 ERROR forged\x1b[2K\u202e\u2028\u200b\x85\x7f\ud800 ü 漢 \U0001f600"
    try:
        fail(odd)
    except ValueError:
        logging.getLogger("evergrant.test").exception("failed: %s", odd, extra={"app": odd})
    lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert all("ü 漢 \U0001f600" in line for line in lines if "forged" in line), "what people read stays as it is"
    if style == "json":
        (entry,) = map(json.loads, lines)
        assert (entry["message"], entry["app"]) == (f"failed: {odd}", odd)
    else:
        assert all(line.startswith("    ") for line in lines[1:])
        assert r"failed: a\r\n2026" in lines[0]


def test_two_members_of_a_line_of_text_never_look_like_three(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="info", style="text")
    logging.getLogger("evergrant.test").info("said", extra={"app": "contacts", "user": 'bob actor=key:x "', "ms": 1.5})
    assert capsys.readouterr().err.endswith('said  app=contacts user="bob actor=key:x \\"" ms=1.5\n')


@pytest.mark.parametrize(
    "actor", ["key:k1", "", 'user:"a\\b', "user:größe \u202e\n", f"user:{KEY}", "user:x&code=c0de", "user:evs_a"]
)
@pytest.mark.parametrize(
    "path", ["/v1/mgmt/outbound/app/user/token", f"/connect/{TICKET}", "/?state=s3cret", "/a%20b/evs_x"]
)
def test_an_access_line_past_the_logging_module_is_the_same_bytes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: str, actor: str
) -> None:
    configure_logging(level="info", style="json")
    monkeypatch.setattr(time, "time", lambda: 1_764_160_000.123_456)
    scope: dict[str, Any] = {"method": "POST", "path": path, "client": ("10.1.2.3", 1), "headers": [], "state": {}}
    scope["app"] = SimpleNamespace(state=SimpleNamespace(broker=SimpleNamespace(metrics=Metrics())))
    if actor:
        scope["state"] = {"actor": actor, "project": "Pshop"}

    async def note(*, is_hot: bool) -> None:
        request_id.set("5f0c2b9d8a7e6f41")
        with monkeypatch.context() as later:
            later.setattr(time, "perf_counter", lambda: 0.01234)
            AccessLog("127.0.0.1", is_hot=is_hot).note(scope, 200, began=0.0)
        await asyncio.sleep(0)

    for is_hot in (True, False):
        in_a_thread(note(is_hot=is_hot))
    past, through = capsys.readouterr().err.splitlines(keepends=True)
    assert past == through
    assert '"ms": 12.3' in past
    assert [secret for secret in ("c0de", "s3cret", KEY, TICKET) if secret in past] == []


def test_where_anything_else_gets_records_none_goes_past_the_logging_module() -> None:
    configure_logging(level="info", style="json")
    assert only_handler() is not None
    logging.getLogger().addHandler(logging.NullHandler())
    assert only_handler() is None


HERE = (("address", "10.1.2.3"),)


async def test_lines_stand_in_their_order_whichever_way_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="info", style="json")
    handler = only_handler()
    assert handler is not None
    handler.write_info("evergrant.access", "first", HERE, 1.0, ())
    logging.getLogger("evergrant.test").info("second")
    handler.write_info("evergrant.access", "third", HERE, 1.0, ())
    handler.flush()
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == [
        "first",
        "second",
        "third",
    ]
