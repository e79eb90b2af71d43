"""Hands at a page: with the mouse, or with the keyboard alone and without script."""

import re
from typing import Literal

from playwright.sync_api import Locator, Page, expect

MOST_TABS = 150
"""The app editor, which has most of what can have the focus, has some 90."""


class Hand:
    """Whoever works a page. Buttons are counted, links and fields are not."""

    def __init__(self, page: Page, *, by_keyboard: bool = False) -> None:
        self.page = page
        self.by_keyboard = by_keyboard
        self.clicks = 0

    def press(self, what: str | re.Pattern[str] | Locator) -> None:
        """Press a button, by its name or itself, and see the next page."""
        self.clicks += 1
        self._do(what if isinstance(what, Locator) else self._named("button", what))

    def follow(self, name: str | re.Pattern[str]) -> None:
        """Follow the first link of this name within the page, not in the navigation."""
        self._do(self._named("link", name).first)

    def fill(self, label: str, text: str) -> None:
        """Fill a field in."""
        field = self.page.get_by_label(label, exact=True)
        if self.by_keyboard:
            self._tab_to(field)
            self.page.keyboard.type(text)
        else:
            field.fill(text)

    def _named(self, role: Literal["button", "link"], name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("main").get_by_role(role, name=name, exact=True)

    def _do(self, what: Locator) -> None:
        expect(what).to_be_visible()
        assert self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), self.page.url
        if self.by_keyboard:
            self._tab_to(what)
            self.page.keyboard.press("Enter")
        else:
            what.click()

    def _tab_to(self, what: Locator) -> None:
        expect(what).to_be_visible()
        wanted = what.element_handle()
        for _ in range(MOST_TABS):
            self.page.keyboard.press("Tab")
            if wanted.evaluate("element => element === document.activeElement"):
                return
        raise AssertionError(f"the keyboard does not reach {what}")
