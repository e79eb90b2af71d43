"""Calls from browsers: the project's own pages may make the calls that browser SDKs make, and nobody else any."""

import asyncio
from collections.abc import Iterator

import httpx2
import pytest

from evergrant.broker.projects.projects import update_project
from evergrant.broker.runtime.broker import open_broker
from tests.infra.installation import APP_ID, BACK, Installation, new_project
from tests.infra.issuer import Issuer
from tests.infra.waiting import wait_until

ORIGIN = "https://app.example.com"
ELSEWHERE = "https://evil.example.com"
CONNECTS = ["/v1/mgmt/outbound/app/connect", "/v1/outbound/oauth/connect"]
LISTS = ["/v1/mgmt/outbound/apps-with-user-token", "/v1/mgmt/outbound/tokens"]
SDK_HEADERS = "authorization,content-type,x-descope-project-id,x-descope-sdk-name,x-descope-sdk-session-id"


@pytest.fixture(scope="module")
def http(here: Installation) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=here.url, trust_env=False) as client:
        yield client


def preflight(http: httpx2.Client, path: str, origin: str = ORIGIN, **headers: str) -> httpx2.Response:
    method = "POST" if "connect" in path else "GET"
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": SDK_HEADERS}
    return http.options(path, headers={"Origin": origin, **asked, **headers})


def readable(answer: httpx2.Response) -> str | None:
    return answer.headers.get("access-control-allow-origin")


def connect(http: httpx2.Client, credential: str, origin: str = ORIGIN, path: str = CONNECTS[0]) -> httpx2.Response:
    headers = {"Origin": origin, "Authorization": f"Bearer {credential}"}
    return http.post(path, json={"appId": APP_ID, "options": {"redirectUrl": BACK}}, headers=headers)


@pytest.mark.parametrize("path", [*CONNECTS, *LISTS])
def test_a_page_of_a_project_may_ask(http: httpx2.Client, path: str) -> None:
    answer = preflight(http, path)
    assert answer.status_code == 204
    assert readable(answer) == ORIGIN
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-methods"] == ("POST" if path in CONNECTS else "GET")
    assert answer.headers["access-control-allow-headers"].split(", ") == SDK_HEADERS.split(",")
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("origin", [ELSEWHERE, "null", "", "http://app.example.com", "https://app.example.com:8443"])
@pytest.mark.parametrize("path", CONNECTS)
def test_no_other_page_may_ask(http: httpx2.Client, path: str, origin: str) -> None:
    answer = preflight(http, path, origin)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_other_headers_are_not_let_through(http: httpx2.Client) -> None:
    answer = preflight(http, CONNECTS[0], **{"Access-Control-Request-Headers": "authorization, x-evil, cookie"})
    assert answer.headers["access-control-allow-headers"] == "authorization"


@pytest.mark.parametrize("path", ["/v1/mgmt/outbound/app/user/token", "/v1/mgmt/outbound/apps", "/oauth2/v1/token"])
def test_no_page_may_make_other_calls(http: httpx2.Client, here: Installation, path: str) -> None:
    assert readable(preflight(http, path)) is None
    answer = here.backend.http.post(path, json={}, headers={"Origin": ORIGIN})
    assert readable(answer) is None


@pytest.mark.parametrize("path", CONNECTS)
def test_the_answer_is_for_the_projects_pages(http: httpx2.Client, here: Installation, idp: Issuer, path: str) -> None:
    for credential in (f"{here.backend.project_id}:{idp.session()}", idp.session()):
        answer = connect(http, credential, path=path)
        assert answer.status_code == 200, answer.text
        assert readable(answer) == ORIGIN
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert "Origin" in answer.headers["vary"]
        elsewhere = connect(http, credential, ELSEWHERE, path=path)
        assert readable(elsewhere) is None
        assert "Origin" in elsewhere.headers["vary"]


@pytest.mark.parametrize("path", LISTS)
def test_a_users_lists_are_for_the_projects_pages(
    http: httpx2.Client, here: Installation, idp: Issuer, path: str
) -> None:
    for origin, expected in ((ORIGIN, ORIGIN), (ELSEWHERE, None)):
        answer = http.get(path, headers={"Origin": origin, "Authorization": f"Bearer {idp.session()}"})
        assert (answer.status_code, readable(answer)) == (200, expected)


def test_without_an_origin_nothing_is_added(here: Installation) -> None:
    answer = here.backend.post("app/connect", {"appId": APP_ID, "userId": "alice"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_page_can_read_why_it_was_refused(http: httpx2.Client, here: Installation, idp: Issuer) -> None:
    for credential, status in (
        (f"{here.backend.project_id}:{idp.session(aud='other')}", 401),
        (here.backend.project_id, 401),
    ):
        answer = connect(http, credential)
        assert (answer.status_code, readable(answer)) == (status, ORIGIN)
    headers = {"Origin": ORIGIN, "Authorization": f"Bearer {idp.session()}"}
    assert readable(http.post(CONNECTS[0], content=b"{", headers=headers)) == ORIGIN
    assert readable(http.post(CONNECTS[0], json={"appId": "nothing"}, headers=headers)) == ORIGIN


def test_another_projects_pages_may_ask_but_not_read(http: httpx2.Client, here: Installation, idp: Issuer) -> None:
    made = new_project(here.settings)
    theirs = "https://their.example.com"

    async def allow() -> None:
        async with open_broker(here.settings) as broker:
            await update_project(broker, made.project_id, redirect_origins=[theirs])

    asyncio.run(allow())
    wait_until(lambda: preflight(http, CONNECTS[0], theirs).status_code == 204, "the new origin is known")
    answer = connect(http, f"{here.backend.project_id}:{idp.session()}", theirs)
    assert readable(answer) is None
