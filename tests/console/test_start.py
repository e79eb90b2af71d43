"""The first steps of a project: what is done shows by facts, and the list goes when somebody puts it away."""

import re
import secrets
import shlex
from html import unescape
from typing import Any

import httpx2
import pytest

from tests.console.test_trial import begin, go, new_app
from tests.infra.console import Operator, words_of
from tests.infra.installation import Backend, Installation, new_project

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)


def in_a_new_project(here: Installation) -> tuple[Operator, Installation]:
    made = new_project(here.settings)
    backend = Backend(here.url, made.project_id, made.management_key)
    there = Installation(here.settings, backend, here.provider)
    return Operator(here.settings, made.project_id), there


def done(there: Installation) -> list[str]:
    answer = there.backend.http.get("/v1/mgmt/project/first-steps").json()
    return [step for step in answer["done"] if step != "secondOperator"]  # others are signed in here, too


def curl_on(page: httpx2.Response) -> tuple[str, dict[str, str], str]:
    """Take the call apart that a page shows: its address, headers and body."""
    found = re.search(r'id="call"[^>]*>(.*?)</pre>', page.text, re.DOTALL)
    assert found is not None, page.text
    words = shlex.split(unescape(found[1]).replace("\\\n", " "))
    headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
    return words[1], headers, words[words.index("-d") + 1]


def press_make_a_key(operator: Operator) -> httpx2.Response:
    """Press the button of the list, or of the test that went well."""
    return operator.post("start/key", {"once": secrets.token_urlsafe(32)})


def test_the_steps_are_ticked_by_what_there_is(here: Installation) -> None:
    operator, there = in_a_new_project(here)
    with operator.http:
        assert operator.get().headers["location"].endswith("/start")
        assert done(there) == []
        assert "Try with the practice provider" not in operator.get("start").text  # none runs beside this one
        assert operator.post("start/practice").status_code == 404
        app_id = new_app(there)
        assert operator.get().status_code == 200
        assert done(there) == ["app"]
        go(there, begin(operator, app_id))
        assert done(there) == ["app", "callback"]  # the test left nothing behind
        go(there, begin(operator, app_id, keep="on"))
        assert done(there) == ["app", "callback", "connected"]
        page = press_make_a_key(operator)
        assert page.headers["Cache-Control"] == "no-store"
        assert done(there) == ["app", "callback", "connected", "key"]
        assert "X-Live" not in operator.get("start/steps").headers
        url, headers, body = curl_on(page)
        token: dict[str, Any] = httpx2.post(url, headers=headers, content=body, trust_env=False).json()["token"]
        assert here.provider.lets_in(token)
        assert operator.get("start/steps").headers["X-Live"] == "over"
        assert done(there) == ["app", "callback", "connected", "key", "fetched"]
        there.backend.post("webhook/create", {"url": "https://hooks.example.com", "description": "", "eventTypes": []})
        assert "webhook" in done(there)
        assert "First steps" in words_of(operator.get())
        assert operator.post("start/dismiss").status_code == 303
        assert "First steps" not in words_of(operator.get())
    there.close()


def test_the_key_of_the_first_call_can_do_little(here: Installation) -> None:
    operator, there = in_a_new_project(here)
    with operator.http:
        new_app(there)
        form = {"once": secrets.token_urlsafe(32)}
        _, headers, _ = curl_on(operator.post("start/key", form))
        again = operator.post("start/key", form)  # as a page does that is loaded again
        assert (again.status_code, "/keys/" in again.headers["Location"]) == (303, True)
        authorization = headers["Authorization"]
        for path in ("apps", "webhooks"):
            answer = httpx2.get(
                f"{here.url}/v1/mgmt/outbound/{path}", headers={"Authorization": authorization}, trust_env=False
            )
            assert answer.status_code == 403, path
    there.close()
