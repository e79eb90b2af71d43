"""Takes the pictures of README and docs: `make screenshots`. The same world, the same moment, so the same pictures.

Each shows the running product in the machine's Chromium, in light and in dark. The people and companies are made up.
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from playwright.sync_api import Browser, Page

from evergrant import clock
from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.infra.chromium import Person, chromium
from tests.infra.console import cookie_of
from tests.infra.serving import LiveApp
from tests.infra.settings import settings_on
from tests.infra.waiting import in_a_thread
from tests.infra.world import build_world

IMAGES = Path(__file__).parents[1] / "docs" / "images"
NOW = datetime(2026, 11, 26, 10, 4, tzinfo=UTC)
DESKTOP, PHONE = (1280, 800), (390, 844)
MOST_BYTES = 250_000


@dataclass(frozen=True)
class Picture:
    """What one picture shows."""

    name: str
    path: str
    """What follows the project in the page's address."""
    prepare: Callable[[Page], object] = lambda _: None
    size: tuple[int, int] = DESKTOP


PICTURES = (Picture("overview", ""),)


def main() -> int:
    """Take every picture, and print what each weighs; return 1 if one is too heavy."""
    IMAGES.mkdir(exist_ok=True)
    clock.now = lambda: NOW  # time stands still here
    taken: list[Path] = []
    with tempfile.TemporaryDirectory(prefix="evergrant-screenshots-") as folder, chromium() as browser:
        settings = settings_on(None, Path(folder))
        made = in_a_thread(build_world(settings, now=NOW))
        with LiveApp(create_app(settings), port=int(settings.public_url.rpartition(":")[2])):
            for scheme in ("light", "dark"):
                with operator(browser, settings, scheme) as page:
                    home = f"{settings.public_url}/console/{made.project_id}"
                    taken += [take(page, home, picture, scheme) for picture in PICTURES]
    for path in taken:
        print(f"{path.relative_to(Path.cwd())}: {path.stat().st_size:,} bytes")
    return int(any(path.stat().st_size > MOST_BYTES for path in taken))


@contextlib.contextmanager
def operator(browser: Browser, settings: Settings, scheme: str) -> Iterator[Page]:
    """Open a page for a signed-in administrator."""
    options = {"color_scheme": scheme, "reduced_motion": "reduce", "device_scale_factor": 1}
    with Person(browser, options) as person:
        name, value = cookie_of(settings)
        person.context.add_cookies([{"name": name, "value": value, "url": settings.public_url}])
        yield person.tab()


def take(page: Page, home: str, picture: Picture, scheme: str) -> Path:
    """Take one picture of what a window of its size shows."""
    page.set_viewport_size({"width": picture.size[0], "height": picture.size[1]})
    page.goto(f"{home}/{picture.path}".rstrip("/"))
    picture.prepare(page)
    path = IMAGES / f"{picture.name}-{scheme}.png"
    page.screenshot(path=path, animations="disabled")
    return path


if __name__ == "__main__":
    sys.exit(main())
