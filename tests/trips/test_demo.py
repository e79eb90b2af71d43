"""`evergrant demo`, as a newcomer starts it: the whole guide, clicked through in a real browser, and Ctrl-C."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.infra.chromium import Person, chromium
from tests.infra.demo import Demo


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with Demo(tmp_path) as running:
        yield running


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def press(page: Page, step: int, button: str) -> None:
    page.locator(f"#step-{step}").get_by_role("button", name=button, exact=True).click()


def test_the_guide_from_the_first_step_to_ctrl_c(demo: Demo, browser: Browser) -> None:
    address = demo.url()
    with Person(browser, {"viewport": {"width": 1000, "height": 800}}) as newcomer:
        page = newcomer.tab()
        page.goto(address)
        expect(page.locator(".banner")).to_contain_text("DEMO")

        press(page, 1, "Create the app")
        expect(page.locator("#step-1 .badge")).to_have_text("done")

        page.get_by_label("User id in your application").fill("newcomer@example.com")
        press(page, 2, "Connect")
        expect(page.get_by_role("heading", name="Connect Practice contacts")).to_be_visible()
        expect(page.get_by_text("newcomer@example.com")).to_be_visible()
        page.get_by_role("button", name="Continue to").click()
        page.get_by_label("Linus Pretend").check()
        page.get_by_role("button", name="Allow").click()
        expect(page.locator("#step-2 .badge")).to_have_text("done")

        press(page, 3, "Fetch the token")
        expect(page.locator("#step-3 .answer")).to_contain_text('"accessToken": "practice_at_')
        press(page, 4, "Read the contacts")
        expect(page.locator("#step-4 .answer")).to_contain_text("Linus Pretend")
        expect(page.locator("#step-4 .answer")).to_contain_text("margaret@example.com")

        before = page.locator(".live .token").inner_text()
        press(page, 5, "Fetch with forceRefresh")
        expect(page.locator("#step-5 .answer")).to_contain_text("HTTP 200")
        expect(page.locator(".live .token")).not_to_have_text(before)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert newcomer.complaints == []

    [data] = demo.temporary.glob("evergrant-demo-*")
    assert (data / "evergrant.db").exists()
    assert demo.stop(signal.SIGINT) == 0
    assert not data.exists()
    assert "Traceback" not in demo.output()
