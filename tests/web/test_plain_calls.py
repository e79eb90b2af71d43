"""Calls that are answered before the framework's layers have all that these give to the others."""

import json
import logging
from typing import Any

import httpx2
import pytest

from evergrant.logs import JsonFormatter
from evergrant.web.api.tokens import CALLS
from evergrant.web.middleware import body_of
from tests.infra.installation import Installation
from tests.infra.rows import execute


def ask(here: Installation, path: str, method: str = "POST", body: bytes = b"{}", **headers: str) -> httpx2.Response:
    key = f"Bearer {here.backend.project_id}:{here.backend.management_key}"
    return httpx2.request(method, f"{here.url}{path}", content=body, headers={"Authorization": key} | headers)


@pytest.mark.parametrize("path", CALLS)
def test_answers_have_the_headers_of_all_others_good_or_not(here: Installation, path: str) -> None:
    here.connected("alice")
    conventional = ask(here, "/v1/mgmt/outbound/apps", "GET", b"")
    names = {*conventional.headers}
    assert {*ask(here, path).headers} == names
    if "user" in path:
        body = {"appId": "practice", "userId": "alice", "scopes": []}
        answer = ask(here, path, body=json.dumps(body).encode())
        assert (answer.status_code, {*answer.headers}) == (200, names)
    assert answer_ids(here, path) == 3


def answer_ids(here: Installation, path: str) -> int:
    return len({ask(here, path).headers["x-request-id"] for _ in range(3)})


@pytest.mark.parametrize("path", CALLS)
def test_other_methods_and_addresses_that_only_look_alike_are_refused(here: Installation, path: str) -> None:
    for method in ("GET", "PUT", "OPTIONS", "DELETE"):
        assert ask(here, path, method, b"").status_code == 405
    for alike in (f"{path}%0A", f"{path}/", path.upper()):
        assert ask(here, alike).status_code == 404


class Piece(bytes):
    """A piece of a body that does not like to be added to what came before it: that copies all of it."""

    def __radd__(self, before: bytes) -> bytes:
        raise AssertionError(f"{len(before)} bytes are copied for {len(self)} more")


async def test_a_body_in_many_pieces_is_put_together_once() -> None:
    pieces = [Piece(b" ")] * 1_000

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(), "more_body": bool(pieces)}

    assert await body_of({"headers": [], "path": "/"}, receive) == b" " * 1_000


def test_a_bug_is_answered_with_an_id_under_which_the_log_has_it(
    here: Installation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(caplog.handler, "formatter", JsonFormatter())
    caplog.set_level(logging.ERROR)
    here.connected("bob")
    execute(here.settings, "UPDATE grants SET scopes = '7' WHERE user_id = 'bob'")
    answer = here.backend.fetch("bob")
    assert (answer.status_code, answer.json()["errorCode"]) == (500, "E011000")
    (record,) = [line for line in map(json.loads, caplog.text.splitlines()) if "exception" in line]
    assert record["requestId"] == answer.json()["requestId"] == answer.headers["x-request-id"]
