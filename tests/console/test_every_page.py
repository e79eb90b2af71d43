"""What holds for every page of the console, in a real Chromium: with odd names, light and dark, at any width."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, Page

from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.infra.chromium import Person
from tests.infra.console import cookie_of
from tests.infra.databases import settings_for
from tests.infra.npm import npm_package
from tests.infra.serving import LiveApp
from tests.infra.waiting import in_a_thread
from tests.infra.world import build_world

AXE = "axe-core@4.14.1"
MOST_BYTES = 100_000
NARROWEST = 320
PAGES = (
    "",
    "?p=7d&table=1",
    "apps",
    "apps/new",
    "apps/new/google-contacts",
    "apps/google-contacts",
    "apps/google-contacts/use",
    "apps/google-contacts/delete",
    "settings",
    "settings/branding",
    "settings/operators",
    "settings/delete",
    "connections",
    "connections?state=reconnect",
    "connections/new",
    "people/ada.lindholm",
    "apps/google-contacts/activity",
    "health",
    "keys",
    "keys/new",
    "issuers",
    "policies",
    "webhooks",
    "audit",
)
"""What follows the project in a page's address."""
LOOKS = (("light", 1440), ("dark", 1440), ("light", 390), ("dark", 390))


class World:
    """An installation that was in use, and an administrator who looks at it."""

    def __init__(self, settings: Settings, project_id: str, page: Page) -> None:
        self.settings = settings
        self.home = f"{settings.public_url}/console/{project_id}"
        self.page = page
        self.elsewhere: list[str] = []
        page.on("request", lambda request: self._looked_at(request.url))

    def _looked_at(self, url: str) -> None:
        if not url.startswith((self.settings.public_url, "data:")):
            self.elsewhere.append(url)


@pytest.fixture(scope="module")
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> Iterator[tuple[World, Person]]:
    """The world on SQLite."""
    request.param = "sqlite"
    with settings_for(request, tmp_path_factory, log_level="warning") as settings:
        made = in_a_thread(build_world(settings, now=datetime.now(UTC)))
        port = int(settings.public_url.rpartition(":")[2])
        with LiveApp(create_app(settings), port=port), Person(browser, {"reduced_motion": "reduce"}) as person:
            name, value = cookie_of(settings)
            person.context.add_cookies([{"name": name, "value": value, "url": settings.public_url}])
            yield World(settings, made.project_id, person.tab()), person


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The accessibility checker, as a script."""
    return (npm_package(AXE, tmp_path_factory.mktemp("axe")) / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_for_everybody(path: str, world: tuple[World, Person], axe: str) -> None:
    seen, person = world
    page = seen.page
    person.complaints.clear()
    seen.elsewhere.clear()
    answer = page.goto(f"{seen.home}/{path}".rstrip("/").replace("/?", "?"))
    assert answer is not None
    assert answer.status == 200
    assert len(answer.body()) < MOST_BYTES
    violations = {}
    for look, width in LOOKS:
        page.emulate_media(color_scheme="dark" if look == "dark" else "light")
        page.set_viewport_size({"width": width, "height": 900})
        # As the browser's own tools run it: not by the page's policy, under which nothing foreign runs.
        in_page = page.context.new_cdp_session(page)
        in_page.send("Runtime.evaluate", {"expression": axe})
        found = in_page.send(
            "Runtime.evaluate",
            {"expression": AXE_RUN, "awaitPromise": True, "returnByValue": True},
        )
        if found["result"]["value"]:
            violations[look, width] = found["result"]["value"]
        in_page.detach()
    assert violations == {}
    page.set_viewport_size({"width": NARROWEST, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROWEST
    assert (person.complaints, seen.elsewhere) == ([], [])


AXE_RUN = """axe.run(document, {resultTypes: ["violations"]}).then((found) => found.violations.map(
  (one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => node.target.join(" ")).join(", ")}`))"""


def test_a_page_can_be_read_at_twice_the_size_of_text(world: tuple[World, Person]) -> None:
    seen, _ = world
    seen.page.set_viewport_size({"width": 1280, "height": 900})
    seen.page.goto(seen.home)
    seen.page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert seen.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
