"""The console: nobody gets in by somebody else's browser, link or cookie, and nobody who is in gets at a token."""

import re
from collections.abc import Iterator

import httpx2
import pytest
from fastapi.routing import APIRoute

from evergrant.web.console.router import router
from tests.infra.console import SAME_ORIGIN, Operator, cookie_of, one_time_link, words_of
from tests.infra.databases import settings_for
from tests.infra.installation import APP_ID, Installation, installation
from tests.infra.people import someone

FETCHES = ("token", "token/latest")


@pytest.fixture
def operator(here: Installation) -> Iterator[Operator]:
    signed_in = Operator(here.settings, here.backend.project_id)
    yield signed_in
    signed_in.http.close()


def test_a_stolen_link_to_the_console_that_was_used_lets_nobody_in(here: Installation) -> None:
    path = one_time_link(here.settings).removeprefix(here.url)
    with httpx2.Client(base_url=here.url, trust_env=False) as operator, httpx2.Client(base_url=here.url) as thief:
        assert operator.post(path, headers=SAME_ORIGIN).status_code == 303
        for attempt in (thief.get(path), thief.post(path, headers=SAME_ORIGIN)):
            assert attempt.status_code == 404
            assert "set-cookie" not in attempt.headers


def test_a_site_that_an_operator_visits_sends_none_of_the_consoles_forms(
    here: Installation, operator: Operator
) -> None:
    """Each form of the console, with the operator's cookie and from another page, is refused before it is read."""
    forms = [
        re.sub(r"\{project[^}]*\}", here.backend.project_id, route.path)
        for route in router.routes
        if isinstance(route, APIRoute) and "POST" in (route.methods or ())
    ]
    assert forms
    for path in [re.sub(r"\{[^}]+\}", "x", form) for form in forms]:
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "none"}, {"Origin": "null"}, {}):
            assert operator.http.post(path, headers=headers).status_code == 403, (path, headers)
    assert operator.get().status_code == 200


def test_an_operator_who_is_signed_in_gets_no_token(here: Installation, operator: Operator) -> None:
    """The cookie counts for no call, a key for no page, and no right that a session has includes fetching."""
    user = someone()
    here.connected(user)
    body = {"appId": APP_ID, "userId": user}
    for path in FETCHES:
        answer = operator.http.post(f"/v1/mgmt/outbound/app/user/{path}", json=body, headers=SAME_ORIGIN)
        assert answer.status_code == 401, path
    page = here.backend.http.get(f"/console/{here.backend.project_id}")
    assert (page.status_code, page.headers["location"].partition("?")[0]) == (303, "/console/sign-in")
    assert here.backend.fetch(user).status_code == 200  # the backend does


def test_a_stolen_cookie_of_the_console_is_no_use_under_another_name(here: Installation) -> None:
    _, value = cookie_of(here.settings, role="viewer")
    with httpx2.Client(base_url=here.url, cookies={"evergrant-connect": value}, trust_env=False) as thief:
        assert thief.get(f"/console/{here.backend.project_id}").status_code == 303


def test_a_stranger_outside_of_the_consoles_networks_finds_no_console(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    request.param = "sqlite"
    for changes in ({"console_networks": "203.0.113.0/24"}, {"console": False}):
        with settings_for(request, tmp_path_factory, **changes) as settings, installation(settings) as closed:
            with httpx2.Client(base_url=closed.url, trust_env=False) as stranger:
                for path in ("/console", "/console/sign-in", f"/console/{closed.backend.project_id}"):
                    answer = stranger.get(path)
                    assert answer.status_code == 404
                    assert "console" not in words_of(answer).lower()
            assert closed.backend.get("apps").status_code == 200
