"""`evergrant demo` as a whole: a process of its own, walked through in a real browser."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from evergrant.errors import ConfigurationError
from evergrant.practice.demo import run_demo
from tests.infra.chromium import Person, chromium
from tests.infra.demo import Demo
from tests.infra.waiting import PATIENCE


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with Demo(tmp_path) as running:
        yield running


@pytest.fixture
def browser_page() -> Iterator[Page]:
    with chromium() as browser, Person(browser) as newcomer:
        yield newcomer.tab()


def test_a_newcomer_gets_from_the_first_page_to_a_refreshed_token(demo: Demo, browser_page: Page) -> None:
    page = browser_page
    page.goto(demo.url())
    page.get_by_role("button", name="Create the app").click()
    expect(page.locator("#step-1 .badge")).to_have_text("done")

    page.get_by_role("button", name="Connect", exact=True).click()
    page.get_by_role("button", name="Continue to").click()
    expect(page.locator(".banner")).to_contain_text("PRACTICE PROVIDER")
    page.get_by_label("Grace Sample").check()
    page.get_by_role("button", name="Allow").click()
    expect(page.locator("#step-2 .note")).to_contain_text("Connected")

    page.get_by_role("button", name="Fetch the token").click()
    expect(page.locator("#step-3 .answer")).to_contain_text("practice_at_")
    page.get_by_role("button", name="Read the contacts").click()
    expect(page.locator("#step-4 .answer")).to_contain_text("Grace Sample")

    token = page.locator(".live .token")
    before = token.inner_text()
    page.get_by_role("button", name="Fetch with forceRefresh").click()
    expect(token).not_to_have_text(before)
    assert page.locator(".sightings li").count() == 2


def test_saying_no_at_the_provider_is_told_in_words(demo: Demo, browser_page: Page) -> None:
    page = browser_page
    page.goto(demo.url())
    page.get_by_role("button", name="Create the app").click()
    page.get_by_role("button", name="Connect", exact=True).click()
    page.get_by_role("button", name="Continue to").click()
    page.get_by_role("button", name="Deny").click()
    expect(page.locator("#step-2 .note")).to_contain_text("You said no")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_it_ends_both_servers_and_deletes_its_data(demo: Demo, number: signal.Signals) -> None:
    demo.url()
    assert list(demo.temporary.glob("evergrant-demo-*/*"))
    assert demo.stop(number) == 0
    assert not list(demo.temporary.iterdir())
    assert "Traceback" not in demo.output()


def test_it_says_loudly_what_it_is(demo: Demo) -> None:
    demo.url()
    lines = demo.output().splitlines()
    assert lines[0] == lines[-1] == "#" * len(lines[0])
    assert {len(line) for line in lines} == {len(lines[0])}
    assert "evergrant DEMO - not for production" in demo.output()
    assert "Ctrl-C ends the demo and deletes its data" in demo.output()


def test_a_folder_of_ones_own_is_kept(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with Demo(tmp_path, "--data-dir", str(kept)) as demo:
        demo.url()
        assert f"its data stays in {kept}" in demo.output()
        demo.stop()
    assert list(kept.iterdir())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "evergrant.example.com"])
async def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(ConfigurationError, match="not a loopback address"):
        await run_demo(host=host, port=0, practice_port=0, data_dir=None)


@pytest.mark.parametrize("option", ["--port", "--practice-port"])
async def test_a_port_that_is_taken_is_named_with_the_option_that_changes_it(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ports = (taken, 0) if option == "--port" else (0, taken)
        with pytest.raises(ConfigurationError, match=rf"Port {taken} .* choose another with {option}\."):
            await asyncio.wait_for(
                run_demo(host="127.0.0.1", port=ports[0], practice_port=ports[1], data_dir=None), PATIENCE
            )
