"""Errors that are not the caller's: an id to ask about is all it gets, the operator has the reason under that id."""

import json
import logging
from typing import Any

import httpx2
import pytest

from evergrant.logs import JsonFormatter
from tests.infra.installation import Installation
from tests.infra.rows import execute

INSIDE = "a detail of the inside"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log as it is written where a program reads it."""
    monkeypatch.setattr(caplog.handler, "formatter", JsonFormatter())
    caplog.set_level(logging.ERROR)
    return caplog


def logged(log: pytest.LogCaptureFixture, answer: httpx2.Response) -> dict[str, Any]:
    """Check that an answer is a 500 with an id, and return the one record that the log has under that id."""
    body = answer.json()
    assert (answer.status_code, body["errorCode"]) == (500, "E011000")
    assert body["requestId"] == answer.headers["x-request-id"] != ""
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.text.splitlines()]
    (record,) = [line for line in lines if line.get("requestId") == body["requestId"]]
    return record


def test_a_bug_is_answered_with_an_id_under_which_the_log_has_it(
    here: Installation, log: pytest.LogCaptureFixture
) -> None:
    here.backend.create_app({"id": "broken", "name": "Broken"})
    # where the code believes that there is a list: whatever reads it breaks
    execute(here.settings, f"""UPDATE outbound_apps SET default_scopes = '"{INSIDE}"' WHERE id = 'broken'""")
    answer = here.backend.get("app/broken")
    record = logged(log, answer)
    assert INSIDE not in answer.text
    assert "Traceback" in record["exception"]
    assert INSIDE in record["exception"]
    assert here.backend.get("app/practice").status_code == 200


def test_what_the_operator_has_to_mend_is_in_the_log_and_not_in_the_answer(
    here: Installation, log: pytest.LogCaptureFixture
) -> None:
    here.connected("alice")
    execute(here.settings, "UPDATE grants SET access_token = refresh_token")  # it does not open in another place
    answer = here.backend.fetch("alice")
    assert "CannotOpenSealed" in logged(log, answer)["exception"]
    assert "its operator finds the reason in the log" in answer.json()["message"]
    assert "sealed" not in answer.text
