"""An exception that nobody expected: the caller gets an id to ask about, the operator the traceback under that id."""

import logging

import pytest

from tests.infra.installation import Installation

pytestmark = pytest.mark.xdist_group("web bugs")  # one worker makes the module's installation, not each


def test_a_bug_is_answered_with_an_id_under_which_the_log_has_it(
    here: Installation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a detail of the inside")

    monkeypatch.setattr("evergrant.web.api.apps.apps.list_apps", broken)
    with caplog.at_level(logging.ERROR):
        answer = here.backend.get("apps")
    body = answer.json()
    assert (answer.status_code, body["errorCode"]) == (500, "E011000")
    assert body["requestId"] == answer.headers["x-request-id"] != ""
    assert "inside" not in answer.text.replace("inside evergrant", "")
    assert [record.exc_text or "RuntimeError" for record in caplog.records if record.exc_info]
    assert here.backend.get("app/practice").status_code == 200
