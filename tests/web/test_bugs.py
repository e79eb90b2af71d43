"""An exception that nobody expected: the caller gets an id to ask about, the operator the traceback under that id."""

import json
import logging

import pytest

from evergrant.logs import JsonFormatter
from tests.infra.installation import Installation
from tests.infra.rows import execute

pytestmark = pytest.mark.xdist_group("web bugs")  # one worker makes the module's installation, not each

INSIDE = "a detail of the inside"


def test_a_bug_is_answered_with_an_id_under_which_the_log_has_it(
    here: Installation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here.backend.create_app({"id": "broken", "name": "Broken"})
    # where the code believes that there is a list: whatever reads it breaks
    execute(here.settings, f"""UPDATE outbound_apps SET default_scopes = '"{INSIDE}"' WHERE id = 'broken'""")
    monkeypatch.setattr(caplog.handler, "formatter", JsonFormatter())
    with caplog.at_level(logging.ERROR):
        answer = here.backend.get("app/broken")
    body = answer.json()
    assert (answer.status_code, body["errorCode"]) == (500, "E011000")
    assert body["requestId"] == answer.headers["x-request-id"] != ""
    assert INSIDE not in answer.text
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    (logged,) = [line for line in lines if line.get("requestId") == body["requestId"]]
    assert "Traceback" in logged["exception"]
    assert INSIDE in logged["exception"]
    assert here.backend.get("app/practice").status_code == 200
