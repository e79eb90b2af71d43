"""What evergrant's own pages let nobody do: inject, frame, cache, leak; and the cookie that binds a browser."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from urllib.parse import urlsplit

import httpx2
import pytest
from sqlalchemy import update

from evergrant.broker.runtime.broker import open_database
from evergrant.db import Project
from evergrant.practice.faults import edited
from evergrant.settings import Settings
from evergrant.web.app import create_app as create_service
from tests.infra.installation import (
    APP_ID,
    BACK,
    Browser,
    Installation,
    Provider,
    new_project,
    practice_provider,
)
from tests.trips.conftest import CreateApp

ATTACK = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;{{7*7}}"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="
ALLOWED_TAGS = {
    "html", "head", "meta", "title", "link", "body", "main", "img", "div", "h1", "p", "strong", "ul", "li", "code",
    "form", "button", "footer", "span", "svg", "path", "circle", "symbol", "use", "bdi", "wbr", "a",
    "details", "summary", "line", "nav",
}  # fmt: skip


class Page(HTMLParser):
    """A page as a browser parses it: its tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def checked(answer: httpx2.Response) -> Page:
    """Parse a page and check that nothing in it runs."""
    page = Page(answer.text)
    assert {tag for tag, _ in page.tags} <= ALLOWED_TAGS
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc")]
        assert not re.match(r"\s*(javascript|data:text)", attributes.get("href") or attributes.get("src") or "")
    return page


def rename_project(here: Installation, name: str) -> None:
    async def rename() -> None:
        database = open_database(here.settings)
        async with database.write() as session:
            await session.execute(update(Project).where(Project.id == here.backend.project_id).values(name=name))
        await database.engine.dispose()

    asyncio.run(rename())


@pytest.fixture
def browser(here: Installation) -> Browser:
    return here.browser()


class TestInjection:
    def test_what_an_operator_wrote_about_an_app_is_text(
        self, here: Installation, browser: Browser, create_app: CreateApp, user: str
    ) -> None:
        name = f"{user} {ATTACK}"
        app_id = create_app(name=name, scopes=[{"value": "openid", "description": ATTACK}])
        page = checked(browser.open(here.backend.connect_url(user, appId=app_id)))
        assert f"Connect {name} to Shop" in page.text
        assert page.text.count(ATTACK) >= 2

    def test_whom_a_backend_names_is_text(
        self, here: Installation, browser: Browser, create_app: CreateApp, user: str
    ) -> None:
        link = here.backend.connect_url(f"{user}{ATTACK}", tenantId=f"tenant-{ATTACK}")
        page = checked(browser.open(link))
        assert f"{user}{ATTACK}" in page.text
        assert f"tenant-{ATTACK}" in page.text

    def test_a_projects_name_is_text(self, here: Installation, browser: Browser, user: str) -> None:
        link = here.backend.connect_url(user)
        rename_project(here, ATTACK)
        try:
            assert f"{ATTACK} will have:" in checked(browser.open(link)).text
        finally:
            rename_project(here, "Shop")

    def test_a_scope_is_text(self, here: Installation, browser: Browser, user: str) -> None:
        scope = "<script>alert(1)</script>"
        page = checked(browser.open(here.backend.connect_url(user, options={"redirectUrl": BACK, "scopes": [scope]})))
        assert scope in page.text

    @pytest.mark.parametrize(
        "logo",
        [
            "javascript:alert(1)",
            "http://example.com/logo.png",
            "data:text/html,<script>alert(1)</script>",
            "data:image/svg+xml;base64,PHN2Zz4=",
            "https://example.com/ onerror=alert(1)",
        ],
    )
    def test_a_logo_that_is_not_a_picture_is_refused(self, here: Installation, user: str, logo: str) -> None:
        answer = here.backend.post("app/create", {"name": user, "logo": logo})
        assert answer.status_code == 400
        assert [entry["field"] for entry in answer.json()["details"]["fields"]] == ["logo"]

    def test_a_logo_at_anothers_host_does_not_tell_that_host_who_connects(
        self, here: Installation, browser: Browser, create_app: CreateApp, user: str
    ) -> None:
        logo = 'https://example.com/"><script>alert(1)</script>'
        page = checked(browser.open(here.backend.connect_url(user, appId=create_app(logo=logo))))
        assert page.attributes("img") == []
        assert "example.com/" not in page.text
        link = here.backend.connect_url(user, appId=create_app(logo=PIXEL))
        assert [image["src"] for image in checked(browser.open(link)).attributes("img")] == [PIXEL]

    def test_the_result_page_says_only_what_evergrant_says(self, here: Installation, browser: Browser) -> None:
        for query in ({"err": ATTACK}, {"err": "access_denied", "errDescription": ATTACK}):
            answer = browser.open(str(httpx2.URL(f"{here.url}/connect-result", params=query)))
            assert "alert(1)" not in checked(answer).text

    def test_a_providers_words_never_reach_evergrants_pages_as_markup(
        self, here: Installation, browser: Browser, user: str
    ) -> None:
        location = browser.allow(browser.agree(here.backend.connect_url(user, options={})))
        here.provider.state.next_token_answers.append(edited(error=ATTACK, error_description=ATTACK, access_token=None))
        answer = browser.open(location)
        result = str(httpx2.URL(here.url).join(answer.headers["location"]))
        assert result.startswith(f"{here.url}/connect-result?err=")
        assert "alert(1)" not in checked(browser.open(result)).text


class TestHeaders:
    @pytest.fixture(params=["consent", "link refused", "callback refused", "result", "departure"])
    def answer(
        self, request: pytest.FixtureRequest, here: Installation, browser: Browser, user: str
    ) -> httpx2.Response:
        link = here.backend.connect_url(user)
        match request.param:
            case "consent":
                return browser.open(link)
            case "link refused":
                return browser.open(f"{here.url}/connect/nonsense")
            case "callback refused":
                return browser.open(f"{here.url}/v1/outbound/oauth/callback?state=nonsense&code=secret")
            case "result":
                return browser.open(f"{here.url}/connect-result")
            case _:
                browser.open(link)
                return browser.http.post(link, data={"decision": "connect"})

    def test_no_page_is_framed_cached_or_named_to_the_next_site(self, answer: httpx2.Response) -> None:
        directives = {
            name: sources.split()
            for name, _, sources in (
                part.strip().partition(" ") for part in answer.headers["content-security-policy"].split(";")
            )
        }
        assert directives["default-src"] == ["'none'"]
        assert directives["style-src"] == ["'self'"]
        assert "script-src" not in directives
        assert directives["frame-ancestors"] == directives["base-uri"] == ["'none'"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"

    def test_a_page_about_a_callback_repeats_neither_code_nor_state(self, here: Installation, browser: Browser) -> None:
        answer = browser.open(f"{here.url}/v1/outbound/oauth/callback?state=planted-state&code=planted-code")
        assert "planted" not in answer.text


class TestCookie:
    def test_on_loopback_it_has_no_prefix_and_is_not_secure(
        self, here: Installation, browser: Browser, user: str
    ) -> None:
        cookie = browser.open(here.backend.connect_url(user)).headers["set-cookie"]
        assert cookie.startswith("evergrant-connect=")
        assert attributes_of(cookie) == {"httponly", "samesite=lax", "path=/", "max-age=1800"}

    def test_a_browser_keeps_its_cookie_over_trips(self, here: Installation, browser: Browser, user: str) -> None:
        first = browser.open(here.backend.connect_url(user)).headers["set-cookie"]
        second = browser.open(here.backend.connect_url(user)).headers["set-cookie"]
        assert first == second

    async def test_on_https_it_is_bound_to_the_host(self, settings: Settings) -> None:
        async with over_https(settings) as (client, link, provider):
            page = await client.get(link)
            cookie = page.headers["set-cookie"]
            assert cookie.startswith("__Host-evergrant-connect=")
            assert attributes_of(cookie) == {"secure", "httponly", "samesite=lax", "path=/", "max-age=1800"}
            left = await client.post(link, data={"decision": "connect"}, headers={"Sec-Fetch-Site": "same-origin"})
            assert left.headers["location"].startswith(provider.url)
            asked = httpx2.URL(left.headers["location"]).params
            callback = f"{asked['redirect_uri']}?state={asked['state']}&error=access_denied&iss={provider.url}"
            assert "err=access_denied" in (await client.get(callback)).headers["location"]

    async def test_on_https_a_cookie_without_the_prefix_counts_for_nothing(self, settings: Settings) -> None:
        """A neighbour on a sibling domain can plant a plain cookie, but none with the prefix."""
        async with over_https(settings) as (client, link, _):
            planted = {"Cookie": "evergrant-connect=planted", "Sec-Fetch-Site": "same-origin"}
            answer = await client.post(link, data={"decision": "connect"}, headers=planted)
            assert answer.status_code == 400
            assert "Allow cookies" in answer.text


def attributes_of(cookie: str) -> set[str]:
    return {part.strip().lower() for part in cookie.split(";")[1:]}


@asynccontextmanager
async def over_https(settings: Settings) -> AsyncIterator[tuple[httpx2.AsyncClient, str, Provider]]:
    """Serve an installation whose public URL is https, as behind a proxy; yield a browser and a connect link."""
    public_url = "https://connect.example.com"
    settings = settings.model_copy(update={"public_url": public_url, "refresher": False})
    made = await asyncio.to_thread(new_project, settings)
    service = create_service(settings)
    with practice_provider(public_url) as provider:
        async with (
            service.router.lifespan_context(service),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app=service), base_url=public_url) as client,
        ):
            bearer = {"Authorization": f"Bearer {made.project_id}:{made.management_key}"}
            mgmt = "/v1/mgmt/outbound/app"
            assert (await client.post(f"{mgmt}/create", json=provider.registration, headers=bearer)).is_success
            wish = {"appId": APP_ID, "userId": "alice", "options": {"redirectUrl": BACK}}
            link = (await client.post(f"{mgmt}/connect", json=wish, headers=bearer)).json()["url"]
            assert urlsplit(link).netloc == "connect.example.com"
            yield client, link, provider
