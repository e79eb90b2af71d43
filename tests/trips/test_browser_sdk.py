"""The vendor's published browser SDK, unmodified, on a page of another origin, in a real Chromium."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.infra.chromium import Person, chromium
from tests.infra.installation import APP_ID, SCOPES, Installation
from tests.infra.issuer import Issuer
from tests.infra.npm import npm_package
from tests.infra.people import trust
from tests.infra.scripted import serving
from tests.infra.serving import LiveApp
from tests.trips.conftest import allow_origins

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)

SDK = "@descope/web-js-sdk@1.53.0"
PAGE = """<!doctype html><title>The application</title><link rel="icon" href="data:,">
<script src="/sdk.js"></script>
<button>Link my contacts</button> <output></output>
<script>
  const told = %s;
  document.querySelector("button").addEventListener("click", async () => {
    const sdk = Descope({projectId: told.projectId, baseUrl: told.baseUrl});
    const answer = await sdk.outbound.connect(told.appId, told.options, told.token);
    if (answer.ok) location.href = answer.data.url;
    else document.querySelector("output").textContent = answer.code + " " + answer.error.errorCode;
  });
</script>"""


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SDK's script as it is published, for pages that load it without a bundler."""
    return npm_package(SDK, tmp_path_factory.mktemp("sdk")) / "dist/index.umd.js"


@pytest.fixture(scope="module")
def idp(here: Installation) -> Iterator[Issuer]:
    """The application's identity provider, which the project trusts."""
    with serving(Issuer()) as running:
        trust(here.backend, running)
        yield running


class Application:
    """The customer's application, on an origin of its own; its page holds the token of whoever is logged in."""

    def __init__(self, here: Installation, sdk: Path) -> None:
        self._here = here
        self._told: dict[str, object] = {}
        routes = [
            Route("/", self._page),
            Route("/done", self._done),
            Route("/sdk.js", lambda _: Response(sdk.read_bytes(), media_type="text/javascript")),
        ]
        self.live = LiveApp(Starlette(routes=routes))

    def logged_in(self, token: str) -> str:
        """Log somebody in and return the page's address."""
        self._told = {
            "projectId": self._here.backend.project_id,
            "baseUrl": self._here.url,
            "appId": APP_ID,
            "options": {"redirectUrl": f"{self.live.url}/done", "scopes": SCOPES},
            "token": token,
        }
        return self.live.url

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(PAGE % json.dumps(self._told))

    async def _done(self, _: Request) -> Response:
        return HTMLResponse('<!doctype html><title>Back</title><link rel="icon" href="data:,">')


@pytest.fixture(scope="module")
def application(here: Installation, sdk: Path) -> Iterator[Application]:
    running = Application(here, sdk)
    with running.live:
        allow_origins(here, "https://app.example.com", running.live.url)
        yield running


@pytest.fixture(scope="module")
def browser(application: Application, idp: Issuer) -> Iterator[Browser]:
    with chromium() as running:
        yield running


def press_connect(page: Page) -> None:
    page.get_by_role("button", name="Link my contacts").click()


def test_the_published_sdk_connects_from_the_applications_own_page(
    here: Installation, application: Application, idp: Issuer, browser: Browser, user: str
) -> None:
    with Person(browser) as person:
        page = person.tab()
        page.goto(application.logged_in(idp.session(user)))
        press_connect(page)
        page.get_by_role("button", name="Continue to").click()
        page.get_by_label("Grace Sample").check()
        page.get_by_role("button", name="Allow").click()
        expect(page).to_have_url(re.compile(rf"^{re.escape(application.live.url)}/done\?.*outboundStatus=connected"))
        assert person.complaints == []
    assert here.backend.token(user)["tokenSub"] == "practice-grace"


def test_the_sdk_can_read_why_it_is_refused(application: Application, idp: Issuer, browser: Browser, user: str) -> None:
    with Person(browser) as person:
        page = person.tab()
        page.goto(application.logged_in(idp.session(user, aud="https://other.example.com")))
        press_connect(page)
        expect(page.locator("output")).to_have_text("401 E011005")


def test_a_page_of_a_foreign_origin_gets_nowhere(
    here: Installation, application: Application, idp: Issuer, browser: Browser, sdk: Path, user: str
) -> None:
    foreign = Application(here, sdk)
    with foreign.live, Person(browser) as person:
        page = person.tab()
        page.goto(foreign.logged_in(idp.session(user)))
        press_connect(page)
        page.wait_for_timeout(500)
        assert page.url == f"{foreign.live.url}/"
        assert any("CORS policy" in complaint for complaint in person.complaints)
    assert here.backend.fetch(user).status_code == 404
