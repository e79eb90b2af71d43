"""Journeys in a real browser: from an empty folder to the first token, and a wrong secret mended."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.infra.chromium import Person
from tests.infra.installation import Installation
from tests.infra.serving import ServerProcess
from tests.infra.waiting import wait_until

NARROWEST = 320
"""A page's width in pixels at which nothing may run out of it."""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The real command in an empty folder."""
    folder = tmp_path_factory.mktemp("first")
    environment = {"EVERGRANT_DATA_DIR": str(folder / "data"), "EVERGRANT_LOG_FORMAT": "text"}
    with ServerProcess(environment, log=folder / "serve.log") as server:
        yield server


def link_of(server: ServerProcess) -> str:
    wait_until(lambda: "/console/enter/" in server.output(), "it prints the link")
    found = re.search(r"^Open (\S+)$", server.output(), re.MULTILINE)
    assert found is not None
    return found[1]


def link_to_a_new_project(server: ServerProcess, folder: Path) -> str:
    """Return a link to another project of the same server, where nothing was done yet."""
    data = re.search(r"(\S+)/master-key", server.output())
    assert data is not None
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EVERGRANT_")}
    environment |= {"EVERGRANT_DATA_DIR": data[1].partition("=")[2] or data[1], "EVERGRANT_PUBLIC_URL": server.url}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "evergrant", *arguments]
        return subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True).stdout

    project = run("init", "--name", "Another").split()[2]
    return run("console", "--project", project).strip()


class Hand:
    """Whoever works the page: with a mouse, or with the keyboard alone."""

    def __init__(self, page: Page, *, by_keyboard: bool = False) -> None:
        self.page = page
        self.by_keyboard = by_keyboard
        self.clicks = 0

    def press(self, name: str | re.Pattern[str]) -> None:
        """Press a button, and see the next page."""
        button = self.page.get_by_role("button", name=name, exact=True)
        expect(button).to_be_visible()
        self.clicks += 1
        assert self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), self.page.url
        if self.by_keyboard:
            for _ in range(60):
                self.page.keyboard.press("Tab")
                if button.evaluate("element => element === document.activeElement"):
                    break
            else:
                raise AssertionError(f"the keyboard does not reach {name}")
            self.page.keyboard.press("Enter")
        else:
            button.click()


def walk(hand: Hand, link: str) -> str:
    """Go from the link to the call that fetches the first token, and return the call."""
    page = hand.page
    page.goto(link)
    hand.press("Continue")
    hand.press("Try with the practice provider")
    hand.press("Connect as a test user")
    expect(page.get_by_text("See your contacts")).to_be_visible()
    hand.press(re.compile("^Continue to "))
    hand.press("Allow")
    expect(page.get_by_text("Everything works.")).to_be_visible()
    hand.press("Make a key and show the call")
    return page.locator("#call").inner_text()


def fetch(call: str) -> str:
    """Run the call as it stands there, in a shell."""
    return subprocess.run(["sh", "-c", f"{call} -s"], check=True, capture_output=True, text=True).stdout


def test_from_an_empty_folder_to_the_first_token_in_seven_clicks(first: ServerProcess, browser: Browser) -> None:
    with Person(browser, {"permissions": ["clipboard-read", "clipboard-write"]}) as newcomer:
        hand = Hand(newcomer.tab())
        shown = walk(hand, link_of(first))
        hand.press("Copy")
        expect(hand.page.get_by_role("button", name="Copied")).to_be_visible()
        copied = hand.page.evaluate("navigator.clipboard.readText()")
        assert copied == shown
        waiting = hand.page.locator("li", has_text="First token fetched")
        expect(waiting).to_contain_text("Not done")
        assert '"accessToken":"practice_at_' in fetch(copied)
        expect(waiting).not_to_contain_text("Not done")  # the page asks by itself
        assert hand.clicks == 7
        assert newcomer.complaints == []


def test_the_same_with_the_keyboard_alone_and_without_script(
    first: ServerProcess, browser: Browser, tmp_path: Path
) -> None:
    with Person(browser, {"viewport": {"width": NARROWEST, "height": 900}}) as one:
        call = walk(Hand(one.tab(), by_keyboard=True), link_to_a_new_project(first, tmp_path))
        assert '"userId":"test-user"' in fetch(call)
        assert one.complaints == []
    with Person(browser, {"java_script_enabled": False}) as other:
        page = other.tab()
        call = walk(Hand(page), link_to_a_new_project(first, tmp_path))
        assert '"userId":"test-user"' in fetch(call)
        page.get_by_role("link", name="Look again").click()
        expect(page.locator("li", has_text="First token fetched")).not_to_contain_text("Not done")


@pytest.mark.parametrize("here", ["sqlite"], indirect=True)
def test_a_wrong_secret_is_named_with_its_remedy_and_mended(here: Installation, admin_person: Person) -> None:
    app_id = here.backend.new_app(here.provider.registration, clientSecret="an old one")
    page = admin_person.tab()
    page.goto(f"{here.url}/console/{here.backend.project_id}/apps/{app_id}/test")
    hand = Hand(page)
    hand.press(f"Test {app_id}")
    failed = page.locator(".trial li.bad")
    expect(failed).to_contain_text("Client accepted")
    expect(failed).to_contain_text("Copy the client id and the secret")
    mended = {**here.backend.app(app_id), "clientSecret": here.provider.state.clients["evergrant"]}
    assert here.backend.post("app/update", {"app": mended}).status_code == 200
    hand.press("Test again")
    hand.press(re.compile("^Continue to "))
    hand.press("Allow")
    expect(page.get_by_text("Everything works.")).to_be_visible()
    assert page.locator(".trial li.good").count() == 13
