"""Takes the pictures of README and docs: `make screenshots`. The same world, the same moment, so the same pictures.

Each shows the running product in the machine's Chromium, in light and in dark. The people and companies are made up.
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from playwright.sync_api import Browser, Page

from evergrant import clock
from evergrant.broker.operations.setup import InitResult, initialise
from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.infra.chromium import Person, chromium
from tests.infra.console import cookie_of, one_time_link
from tests.infra.serving import LiveApp
from tests.infra.settings import settings_on
from tests.infra.waiting import in_a_thread
from tests.infra.world import STORY_ID, TEST_ID, build_world

IMAGES = Path(__file__).parents[1] / "docs" / "images"
NOW = datetime(2026, 11, 26, 10, 4, tzinfo=UTC)
PORT = 8420
"""evergrant's usual one, so that the pictures show what a reader will see."""
DESKTOP, CARD, PHONE = (1280, 800), (560, 760), (390, 844)
MOST_BYTES = 250_000
BRANDING = {
    "accentLight": "#4a3fb5",
    "sentence": "Acme Assistant prepares your meetings, and nothing more.",
    "privacyUrl": "https://assistant.acme.example/privacy",
}
ADA = "Ada Lindholm (ada@acme.example)"


@dataclass(frozen=True)
class Scene:
    """What the pictures are taken of."""

    settings: Settings
    world: InitResult
    empty: InitResult
    """A project in which nothing has happened yet."""

    @property
    def home(self) -> str:
        """Where the console of the world is."""
        return f"{self.settings.public_url}/console/{self.world.project_id}"

    def ask(self, path: str, body: Mapping[str, object]) -> dict[str, str]:
        """Make a call, as a backend does."""
        key = f"{self.world.project_id}:{self.world.management_key}"
        url = f"{self.settings.public_url}/v1/mgmt/outbound/{path}"
        answer = httpx2.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, trust_env=False)
        answer.raise_for_status()
        said: dict[str, str] = answer.json()
        return said


@dataclass(frozen=True)
class Picture:
    """What one picture shows, and how one gets there."""

    name: str
    go: Callable[[Page, Scene], object]
    size: tuple[int, int] = DESKTOP


def at(path: str) -> Callable[[Page, Scene], object]:
    """Go to a page of the world's console."""
    return lambda page, scene: page.goto(f"{scene.home}/{path}".rstrip("/"))


def first_steps(page: Page, scene: Scene) -> None:
    """Come in by the first link, and see what there is to do."""
    page.context.clear_cookies()
    page.goto(one_time_link(scene.settings, project_id=scene.empty.project_id))
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("heading", name="First steps").wait_for()


def consent(page: Page, scene: Scene) -> None:
    """Follow a connect link as the person whom it is for."""
    options = {"userLabel": ADA, "redirectUrl": "https://assistant.acme.example/settings"}
    page.goto(scene.ask("app/connect", {"appId": "hubspot", "userId": "ada.lindholm", "options": options})["url"])


def accounts(page: Page, scene: Scene) -> None:
    """Follow a link to somebody's connected accounts."""
    body = {"userId": "m.okafor", "tenantId": "northwind", "userLabel": "Mercy Okafor"}
    page.goto(scene.ask("accounts/session", body)["url"])
    if page.get_by_role("button", name="Continue").count():
        page.get_by_role("button", name="Continue").click()


def verified_log(page: Page, scene: Scene) -> None:
    """Open the audit log, and have it verified."""
    page.goto(f"{scene.home}/audit")
    page.get_by_role("button", name="Verify").click()
    page.wait_for_load_state()


PICTURES = (
    Picture("library", at("apps/new")),
    Picture("new-app", at("apps/new/hubspot")),
    Picture("app-editor", at("apps/google-contacts")),
    Picture("test-connection", at(f"apps/google-contacts/test/{TEST_ID}")),
    Picture("overview", at("")),
    Picture("token-management", at("connections?state=reconnect")),
    Picture("connection", at(f"connections/{STORY_ID}")),
    Picture("webhook-log", at("webhooks/webhook00001")),
    Picture("audit-log", verified_log),
    Picture("consent", consent, CARD),
    Picture("connected-accounts", accounts, PHONE),
    Picture("first-steps", first_steps),
)


def main() -> int:
    """Take every picture, and print what each weighs; return 1 if one is too heavy."""
    IMAGES.mkdir(exist_ok=True)
    clock.now = lambda: NOW
    taken: list[Path] = []
    with tempfile.TemporaryDirectory(prefix="evergrant-screenshots-") as folder, chromium() as browser:
        settings = settings_on(None, Path(folder), public_url=f"http://127.0.0.1:{PORT}", log_level="error")
        empty = in_a_thread(initialise(settings, project_name="My project"))
        scene = Scene(settings, in_a_thread(build_world(settings, now=NOW)), empty)
        with LiveApp(create_app(settings), port=PORT):
            scene.ask("branding", BRANDING)
            for scheme in ("light", "dark"):
                with operator(browser, settings, scheme) as page:
                    taken += [take(page, scene, picture, scheme) for picture in PICTURES]
    for path in taken:
        print(f"{path.relative_to(Path.cwd())}: {path.stat().st_size:,} bytes")
    return int(any(path.stat().st_size > MOST_BYTES for path in taken))


@contextlib.contextmanager
def operator(browser: Browser, settings: Settings, scheme: str) -> Iterator[Page]:
    """Open a page for a signed-in administrator."""
    options = {"color_scheme": scheme, "reduced_motion": "reduce", "locale": "en-GB"}
    with Person(browser, options) as person:
        name, value = cookie_of(settings)
        person.context.add_cookies([{"name": name, "value": value, "url": settings.public_url}])
        yield person.tab()


def take(page: Page, scene: Scene, picture: Picture, scheme: str) -> Path:
    """Take one picture of what a window of its size shows."""
    page.set_viewport_size({"width": picture.size[0], "height": picture.size[1]})
    picture.go(page, scene)
    path = IMAGES / f"{picture.name}-{scheme}.png"
    page.screenshot(path=path, animations="disabled")
    return path


if __name__ == "__main__":
    sys.exit(main())
