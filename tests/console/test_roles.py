"""What a role does not allow is not shown, and its address says who may: for every route there is."""

import re
from collections.abc import Callable

import pytest
from fastapi.routing import APIRoute

from evergrant.web.console.router import router
from tests.infra.console import Operator, words_of
from tests.infra.installation import APP_ID, Installation

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)
SIGN_OUT = "/console/sign-out"
READING = {"audit/verify", "connections/export"}
"""Forms that change nothing but the audit log."""
FOR_ADMINISTRATORS = ("keys", "issuers", "policies", "webhooks")


def addresses(method: str) -> list[str]:
    """Return what follows the project in the address of each route, with ids that might be there."""
    prefix = "/console/{project}"
    found = []
    for route in router.routes:
        if isinstance(route, APIRoute) and route.path.startswith(prefix) and method in (route.methods or ()):
            path = route.path.removeprefix(prefix).lstrip("/")
            path = path.replace("{app_id}", APP_ID).replace("{rest:path}", "nothing/here")
            found.append(re.sub(r"\{\w+\}", "abc123", path))
    assert found
    return found


def test_a_viewer_changes_nothing_by_any_address(here: Installation, operator_as: Callable[[str], Operator]) -> None:
    viewer = operator_as("viewer")
    answers = {path: viewer.post(path) for path in addresses("POST")}
    let_in = {path for path, answer in answers.items() if answer.status_code not in (403, 404)}
    assert let_in == READING
    for path, answer in answers.items():
        said = words_of(answer)
        assert (
            path in READING or answer.status_code == 404 or re.search("lacks the permission '|Only (an )?admin", said)
        ), path


def test_a_viewer_sees_no_button_that_would_only_refuse(
    here: Installation, operator_as: Callable[[str], Operator]
) -> None:
    viewer = operator_as("viewer")
    for path in addresses("GET"):
        page = viewer.get(path)
        assert page.status_code < 500 or page.status_code == 503, path
        if path.split("/")[0] in FOR_ADMINISTRATORS:
            assert page.status_code == 403, path
        if page.status_code != 200 or "text/html" not in page.headers["content-type"]:
            continue
        for form in re.findall(r'<form[^>]*method="post".*?</form>', page.text, re.DOTALL):
            harmless = "<fieldset disabled" in form or any(path in form for path in (SIGN_OUT, *READING))
            assert harmless or not re.search(r'<button(?! type="button")', form), path
        for link in re.findall(rf'href="(/console/{viewer.project_id}[^"#]*)"', page.text):
            assert viewer.get(link.replace("&amp;", "&")).status_code != 403, (path, link)


def test_an_operator_keeps_webhooks_and_no_keys(here: Installation, operator_as: Callable[[str], Operator]) -> None:
    keeper = operator_as("operator")
    assert keeper.get("webhooks").status_code == 200
    assert keeper.get("keys").status_code == 403
    assert "Keys" not in re.findall(r"</svg>([\w ]+)</a>", keeper.get("webhooks").text)
