"""Takes the pictures of the README anew: `make pictures`.

Both show the running product in the machine's Chromium: the consent page of an `evergrant serve`, and the guide of
`evergrant demo` after its steps were clicked through. The people and companies in them are made up.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, ViewportSize

from tests.infra.chromium import Person, chromium
from tests.infra.serving import ServerProcess

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SCALE = 1.5  # the README shows them at about half their size, so a screen with two dots for each pixel has enough
MOST_BYTES = 200_000
GUIDE_WINDOW: ViewportSize = {"width": 920, "height": 590}
"""At 520 pixels of width in the README as high as the consent page beside it, at 250."""

APP = {
    "id": "meadow-calendar",
    "name": "Meadow Calendar",
    "clientId": "larkspur",
    "clientSecret": "not-needed-before-the-consent",
    "authorizationUrl": "https://accounts.meadow.example/authorize",
    "tokenUrl": "https://accounts.meadow.example/token",
    "defaultScopes": ["calendar.read", "events.write"],
    "scopes": [
        {"value": "calendar.read", "description": "See your calendars and events"},
        {"value": "events.write", "description": "Add and change events"},
    ],
}
TRIP = {"appId": APP["id"], "userId": "maya@harbour.example", "tenantId": "Harbour & Lane"}


def main() -> int:
    """Take every picture, and print what each weighs; return 1 if one is too heavy for a README."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="evergrant-pictures-") as folder, chromium() as browser:
        taken = [take_consent(browser, Path(folder)), take_guide(browser, Path(folder))]
    for picture in taken:
        print(f"{picture.relative_to(Path.cwd())}: {picture.stat().st_size:,} bytes")
    return int(any(picture.stat().st_size > MOST_BYTES for picture in taken))


def take_consent(browser: Browser, folder: Path) -> Path:
    """Open a connect link as the user whom it is for, and take the page that asks."""
    environment = {"EVERGRANT_DATA_DIR": str(folder / "data")}
    command = [sys.executable, "-m", "evergrant", "init", "--json", "--name", "Larkspur Assistant"]
    init = subprocess.run(command, env=os.environ | environment, cwd=folder, capture_output=True, check=True)
    made = json.loads(init.stdout)
    with ServerProcess(environment, log=folder / "serve.log") as server:
        bearer = f"{made['projectId']}:{made['managementKey']}"
        post(f"{server.url}/v1/mgmt/outbound/app/create", APP, bearer)
        link = post(f"{server.url}/v1/mgmt/outbound/app/connect", TRIP, bearer)["url"]
        with page_of(browser, {"width": 560, "height": 400}) as page:
            page.goto(link)
            return save(page, "consent.png", full_page=True)


def take_guide(browser: Browser, folder: Path) -> Path:
    """Click through the demo, let the token change twice, and take the step that watches it."""
    with demo(folder) as address, page_of(browser, GUIDE_WINDOW) as page:
        page.goto(address)
        press(page, 1, "Create the app")
        page.get_by_label("User id in your application").fill("maya@harbour.example")
        press(page, 2, "Connect")
        page.get_by_role("button", name="Continue to").click()
        page.get_by_role("button", name="Allow").click()
        press(page, 3, "Fetch the token")
        page.locator(".live .sightings li:nth-child(3)").wait_for(timeout=180_000)
        page.locator("#step-5").evaluate("step => step.scrollIntoView()")
        return save(page, "guide.png", full_page=False)


def press(page: Page, step: int, button: str) -> None:
    """Press a button of one of the guide's steps."""
    page.locator(f"#step-{step}").get_by_role("button", name=button, exact=True).click()


@contextlib.contextmanager
def demo(folder: Path) -> Iterator[str]:
    """Run `evergrant demo` on its usual ports, so that the pictures show what a reader will see; yield its address."""
    log = folder / "demo.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "evergrant", "demo"], stdout=output, stderr=output, cwd=folder
        )
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"Start here +(http://\S+)", log.read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The demo did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield found[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


@contextlib.contextmanager
def page_of(browser: Browser, viewport: ViewportSize) -> Iterator[Page]:
    """Open a page for somebody new, in light colours, and without scrolling that takes time."""
    options = {
        "viewport": viewport,
        "device_scale_factor": SCALE,
        "color_scheme": "light",
        "reduced_motion": "reduce",
    }
    with Person(browser, options) as person:
        yield person.tab()


def post(url: str, body: object, bearer: str) -> dict[str, Any]:
    """POST JSON, and return the answer; urllib.error.HTTPError if it is an error."""
    headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        read: dict[str, Any] = json.load(answer)
        return read


def save(page: Page, name: str, *, full_page: bool) -> Path:
    """Write a picture of the whole page, or of what the window shows now."""
    path = IMAGES / name
    page.screenshot(path=path, animations="disabled", full_page=full_page)
    return path


if __name__ == "__main__":
    sys.exit(main())
