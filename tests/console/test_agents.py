"""Sessions of agents at the console: minted by hand and shown once, listed page by page, revoked."""

import re
from html import unescape

import httpx2
import pytest

from tests.infra.console import Operator, words_of
from tests.infra.installation import APP_ID, Installation

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)


def answer_to(here: Installation, key: str) -> httpx2.Response:
    """Ask for what a session may not have, with its key: 401 tells that it is over."""
    with httpx2.Client(base_url=here.url, trust_env=False) as http:
        return http.get("/v1/mgmt/outbound/apps", headers={"Authorization": f"Bearer {key}"})


def test_a_session_is_minted_listed_and_revoked(
    here: Installation, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = {
        "agent": "by-hand",
        "name": "By hand",
        "user": "ada",
        "apps": [APP_ID],
        "access": "approve",
        "minutes": "60",
    }
    page = operator.post("agents/new", {**form, "calls": "7"})
    assert page.status_code == 200, words_of(page)
    said, project = unescape(page.text), here.backend.project_id
    key = re.findall(r"evs_\w+", said)[0]
    assert f'"{here.url}/mcp/{project}"' in said
    assert f'"{here.url}/v1/proxy/{APP_ID}"' in said
    assert answer_to(here, key).status_code == 403
    found = here.backend.get("sessions?agentId=by-hand").json()["sessions"]
    assert [(one["apps"][0]["access"], one["apps"][0]["approve"], one["maxCalls"]) for one in found] == [
        ("write", "writes", 7)
    ]

    monkeypatch.setattr("evergrant.web.console.agents.PER_PAGE", 1)
    assert operator.post("agents/new", {**form, "name": "The latest"}).status_code == 200
    first = operator.get("agents?agent=by-hand")
    older = re.search(r'href="/console/\w+/(agents\?[^"]*at=[^"]*)"', first.text)
    assert older is not None, words_of(first)
    second = operator.get(unescape(older[1]))
    assert ("The latest" in words_of(first), "The latest" in words_of(second)) == (True, False)
    assert key not in first.text + second.text
    assert operator.get("agents?at=x").status_code == 400

    revoke = f"agents/{found[0]['id']}/revoke"
    assert "By hand acts for ada" in words_of(operator.get(revoke))
    assert operator.post(revoke).status_code == 303
    assert answer_to(here, key).status_code == 401


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"agent": ""}, "1 to 255 characters"),
        ({"minutes": "5"}, "Use 15, 60, 480, 1440"),
        ({"calls": "0"}, "Use a number from 1"),
        ({"access": "all"}, "Use read, approve, write"),
        ({"apps": []}, "Name at least one"),
        ({"user": ""}, "Say whose"),
    ],
)
def test_a_form_that_cannot_be_says_why(operator: Operator, wrong: dict[str, object], why: str) -> None:
    form = {"agent": "nobody", "user": "ada", "apps": [APP_ID], "access": "read", "minutes": "15"}
    page = operator.post("agents/new", {**form, **wrong})
    assert (page.status_code, why in words_of(page)) == (400, True), words_of(page)
    assert "evs_" not in page.text
