"""Requests that want a yes, at the console: an operator decides in the owner's place, once."""

import pytest

from tests.infra.console import Operator, words_of
from tests.infra.installation import Installation
from tests.infra.people import someone

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)


def wanted(here: Installation) -> str:
    """Have an agent ask for a yes; return the approval's id."""
    app_id, user = here.backend.new_app(here.provider.registration, apiBaseUrl=f"{here.provider.url}/api"), someone()
    here.connected(user, appId=app_id)
    apps = [{"appId": app_id, "access": "write", "approve": "always"}]
    minted = here.backend.post("session/create", {"userId": user, "apps": apps, "agent": {"id": "bot"}}).json()
    headers = {"Authorization": f"Bearer {minted['key']}"}
    answer = here.backend.http.post(f"/v1/proxy/{app_id}/contacts", json={"name": "Grace"}, headers=headers)
    assert answer.status_code == 428, answer.text
    return str(answer.json()["details"]["approvalId"])


@pytest.mark.parametrize(("decision", "word"), [("approve", "Approved"), ("refuse", "Refused")])
def test_an_operator_decides_once_and_says_why(
    here: Installation, operator: Operator, decision: str, word: str
) -> None:
    approval = f"approvals/{wanted(here)}"
    assert "POST /contacts" in words_of(operator.get(approval))
    too_long = operator.post(approval, {"decision": decision, "reason": "x" * 501})
    assert (too_long.status_code, "at most 500" in words_of(too_long)) == (400, True)
    assert operator.post(approval, {"reason": "No button was pressed."}).status_code == 400
    assert "Waiting" in words_of(operator.get(approval)), "nothing was decided by that"

    assert operator.post(approval, {"decision": decision, "reason": "I know it."}).status_code == 303
    other = "refuse" if decision == "approve" else "approve"
    assert operator.post(approval, {"decision": other}).status_code == 303, "its page tells what became of it"
    said = words_of(operator.get(approval))
    assert (word in said, "I know it." in said) == (True, True), said
