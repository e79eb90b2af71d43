"""A real browser: the machine's own Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.infra.waiting import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",  # tests may run as root, where Chromium has none
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def installed_chromium() -> str:
    """Return the path of the machine's Chromium, or fail with what to do."""
    for name in NAMES:
        path = shutil.which(name)
        if path:
            return path
    raise RuntimeError(f"There is no Chromium: install it, so that one of {', '.join(NAMES)} is on the PATH.")


expect.set_options(timeout=PATIENCE * 1000)  # for what a page has to show


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run one Chromium; each person gets a context of their own from `Person`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=installed_chromium(), args=ARGUMENTS, timeout=PATIENCE * 1000
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Person:
    """A person with a browser of their own. What goes wrong in a page, a CSP violation among it, is in `complaints`."""

    browser: Browser
    options: dict[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    context: BrowserContext = field(init=False)

    def __enter__(self) -> Self:
        self.context = self.browser.new_context(**self.options)
        self.context.set_default_timeout(PATIENCE * 1000)
        self.context.on("console", lambda message: self._heard(message.type, message.text))
        self.context.on("weberror", lambda error: self._heard("error", str(error.error)))
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def tab(self) -> Page:
        """Open a new tab."""
        return self.context.new_page()

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")
