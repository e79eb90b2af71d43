"""Attacks on a person's browser: markup in what others say, frames, pages of other sites that make calls."""

import httpx2

from evergrant.practice.faults import edited
from tests.infra.installation import APP_ID, BACK, Installation
from tests.infra.issuer import Issuer
from tests.trips.test_pages import ATTACK, checked

OURS = "https://app.example.com"
CONNECT = "/v1/outbound/oauth/connect"


def test_a_hostile_provider_writes_no_markup_into_a_page(here: Installation, user: str) -> None:
    browser = here.browser()
    location = browser.allow(browser.agree(here.backend.connect_url(user, options={})))
    here.provider.state.next_token_answers.append(edited(error=ATTACK, error_description=ATTACK, access_token=None))
    result = str(httpx2.URL(here.url).join(browser.open(location).headers["location"]))
    page = checked(browser.open(result))
    assert "alert(1)" not in page.text
    assert "We could not finish this" in page.text  # control: the page says that it failed
    for parameter in ("error", "error_description", "state", "code", "iss", "err"):
        for path in ("/v1/outbound/oauth/callback", "/connect-result"):
            checked(browser.open(str(httpx2.URL(here.url + path, params={parameter: ATTACK, "x": "y"}))))


def test_a_hostile_backend_writes_no_markup_into_the_consent_page(here: Installation, user: str) -> None:
    app_id = here.backend.new_app(
        here.provider.registration, name=f"{user} {ATTACK}", scopes=[{"value": "openid", "description": ATTACK}]
    )
    link = here.backend.connect_url(f"{user}{ATTACK}", appId=app_id, tenantId=f"t{ATTACK}")
    page = checked(here.browser().open(link))
    assert page.text.count(ATTACK) >= 3  # control: it is all there, as text


def test_no_page_can_be_framed_runs_a_script_or_tells_the_next_site_where_it_was(here: Installation, user: str) -> None:
    browser = here.browser()
    link = here.backend.connect_url(user)
    pages = [
        browser.open(link),
        browser.open(f"{here.url}/connect/nonsense"),
        browser.open(f"{here.url}/connect-result"),
    ]
    pages.append(browser.open(f"{here.url}/v1/outbound/oauth/callback?state=a&code=b"))
    for page in pages:
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["referrer-policy"] == "same-origin"
        assert page.headers["cache-control"] == "no-store"
        assert "<script" not in page.text
    assert browser.connect(link)["outboundStatus"] == "connected"  # control


def test_a_page_of_a_foreign_origin_reads_no_answer(here: Installation, idp: Issuer) -> None:
    def ask(origin: str) -> httpx2.Response:
        headers = {"Origin": origin, "Authorization": f"Bearer {here.backend.project_id}:{idp.session()}"}
        body = {"appId": APP_ID, "options": {"redirectUrl": BACK}}
        return httpx2.post(here.url + CONNECT, json=body, headers=headers, trust_env=False)

    def may_ask(origin: str) -> bool:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = httpx2.options(here.url + CONNECT, headers=headers, trust_env=False)
        return answer.status_code == 204 and "access-control-allow-origin" in answer.headers

    foreign = ("https://evil.example", "null", "http://app.example.com", f"{OURS}:8443", f"{OURS}.evil.example")
    more = (f"{OURS}/", "https://APP.example.com.", "https://evil-app.example.com", "*", "file://", "")
    for origin in foreign + more:
        assert not may_ask(origin), origin
        assert "access-control-allow-origin" not in ask(origin).headers, origin
    assert may_ask(OURS)  # control
    assert ask(OURS).headers["access-control-allow-origin"] == OURS


def test_no_page_makes_a_call_that_is_a_backends(here: Installation) -> None:
    """Not even a page of the project's own: a management key has no business in a browser."""
    for path in ("outbound/app/user/token", "outbound/apps", "outbound/app/create", "managementkey", "audit/search"):
        asked = {
            "Origin": OURS,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        answer = httpx2.options(f"{here.url}/v1/mgmt/{path}", headers={"Origin": OURS, **asked}, trust_env=False)
        assert "access-control-allow-origin" not in answer.headers, path
        answer = here.backend.http.post(f"/v1/mgmt/{path}", json={}, headers={"Origin": OURS})
        assert "access-control-allow-origin" not in answer.headers, path
    assert here.backend.get("apps").status_code == 200  # control: a backend makes them
