"""Journeys in a real browser: J1 to J4, each with the mouse, and with the keyboard alone and without script.

One run proves both of the latter: without script nothing moves the focus or adds a control, so that the keyboard has
what the page's markup gives it. What script does add, Copy and a page that asks by itself, is in J1 with script. The
window without script is a narrow one: nothing may run out of it.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from evergrant.broker.trials.practice import PracticeClient
from evergrant.practice.world import SCOPES
from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.infra.chromium import Person
from tests.infra.console import cookie_of, one_time_link
from tests.infra.databases import settings_for
from tests.infra.hand import Hand
from tests.infra.inspection import NARROWEST
from tests.infra.installation import (
    CLIENT_ID,
    CLIENT_SECRET,
    Backend,
    Installation,
    Provider,
    new_project,
    practice_provider,
)
from tests.infra.people import kill
from tests.infra.serving import LiveApp, ServerProcess
from tests.infra.visits import session_url
from tests.infra.waiting import wait_until

PLAIN = {"java_script_enabled": False, "viewport": {"width": NARROWEST, "height": 900}}


@dataclass
class Town:
    """One evergrant and one practice provider, in which each journey has a project of its own."""

    settings: Settings
    provider: Provider
    browser: Browser
    stack: ExitStack

    def project(self, *, apps: bool = True) -> Installation:
        """Make a project, and the provider's app in it."""
        made = new_project(self.settings)
        backend = Backend(self.settings.public_url, made.project_id, made.management_key)
        here = Installation(self.settings, backend, self.provider)
        self.stack.callback(here.close)
        if apps:
            backend.create_app(self.provider.registration)
        return here


@pytest.fixture(scope="module")
def town(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Town]:
    request.param = "sqlite"
    with settings_for(request, tmp_path_factory, log_level="warning") as quiet, ExitStack() as stack:
        settings = quiet.model_copy(update={"refresher": True})  # without one, the overview has something to say
        provider = stack.enter_context(practice_provider(settings.public_url))
        scopes = {name: SCOPES[name] for name in ("openid", "contacts.readonly")}
        beside = PracticeClient(provider.url, CLIENT_ID, CLIENT_SECRET, scopes, "")
        app = create_app(settings, practice=beside)
        stack.enter_context(LiveApp(app, port=urlsplit(settings.public_url).port or 0))
        yield Town(settings, provider, browser, stack)


@dataclass
class Way:
    """How somebody works pages."""

    town: Town
    stack: ExitStack
    by_keyboard: bool

    def somebody(self) -> Hand:
        """A person with a browser of their own, in which nothing may have complained at the end."""
        person = self.stack.enter_context(Person(self.town.browser, PLAIN if self.by_keyboard else {}))
        self.stack.callback(lambda: _is_content(person))
        return Hand(person.tab(), by_keyboard=self.by_keyboard)

    def operator(self, here: Installation) -> Hand:
        """An administrator who is signed in and sees the project's overview."""
        hand = self.somebody()
        name, value = cookie_of(here.settings)
        hand.page.context.add_cookies([{"name": name, "value": value, "url": here.url}])
        hand.page.goto(f"{here.url}/console/{here.backend.project_id}")
        return hand


def _is_content(person: Person) -> None:
    assert person.complaints == []


@pytest.fixture(params=["mouse", "keyboard without script"])
def way(request: pytest.FixtureRequest, town: Town) -> Iterator[Way]:
    with ExitStack() as stack:
        yield Way(town, stack, request.param != "mouse")


def consent(hand: Hand) -> None:
    """Go on at the consent page, and allow it at the provider."""
    hand.press(re.compile("^Continue to "))
    hand.press("Allow")


def sees(page: Page, text: str) -> None:
    expect(page.get_by_text(text).first).to_be_visible()


def to_the_first_call(hand: Hand, link: str) -> str:
    """Go from the link to the call that fetches the first token, and return the call."""
    hand.page.goto(link)
    hand.press("Continue")
    hand.press("Try with the practice provider")
    hand.press("Connect as a test user")
    sees(hand.page, "See your contacts")
    consent(hand)
    sees(hand.page, "Everything works.")
    hand.press("Make a key and show the call")
    return hand.page.locator("#call").inner_text()


def run(call: str) -> str:
    """Run the call as it stands there, in a shell."""
    return subprocess.run(["sh", "-c", f"{call} -s"], check=True, capture_output=True, text=True).stdout


def link_of(server: ServerProcess) -> str:
    wait_until(lambda: "/console/enter/" in server.output(), "it prints the link")
    found = re.search(r"^Open (\S+)$", server.output(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_from_an_empty_folder_to_the_first_token_in_seven_clicks(
    tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> None:
    folder = tmp_path_factory.mktemp("first")
    environment = {"EVERGRANT_DATA_DIR": str(folder / "data"), "EVERGRANT_LOG_FORMAT": "text"}
    with (
        ServerProcess(environment, log=folder / "serve.log") as server,
        Person(browser, {"permissions": ["clipboard-read", "clipboard-write"]}) as newcomer,
    ):
        hand = Hand(newcomer.tab())
        shown = to_the_first_call(hand, link_of(server))
        hand.by_keyboard = True  # also what script adds
        hand.press("Copy")
        sees(hand.page, "Copied")
        hand.page.keyboard.press("Enter")  # once more, before the button is itself again
        copied = hand.page.evaluate("navigator.clipboard.readText()")
        assert copied == shown
        waiting = hand.page.locator("li", has_text="First token fetched")
        expect(waiting).to_contain_text("Not done")
        assert '"accessToken":"practice_at_' in run(copied)
        expect(waiting).not_to_contain_text("Not done")  # the page asks by itself
        expect(hand.page.get_by_role("button", name="Copy", exact=True)).to_be_visible()
        assert hand.clicks == 7
        assert newcomer.complaints == []


def test_the_same_with_the_keyboard_alone_and_without_script(town: Town) -> None:
    here = town.project(apps=False)
    with Person(town.browser, PLAIN) as newcomer:
        hand = Hand(newcomer.tab(), by_keyboard=True)
        call = to_the_first_call(hand, one_time_link(town.settings, project_id=here.backend.project_id))
        assert '"userId":"test-user"' in run(call)
        hand.follow("Look again")
        expect(hand.page.locator("li", has_text="First token fetched")).not_to_contain_text("Not done")
        assert newcomer.complaints == []


def test_a_wrong_secret_is_named_with_its_remedy_and_mended(way: Way) -> None:
    here = way.town.project(apps=False)
    here.backend.create_app({**here.provider.registration, "clientSecret": "an old one"})
    hand = way.operator(here)
    hand.page.goto(f"{hand.page.url}/apps/practice")
    hand.follow("Test connection")
    hand.press("Test connection")
    failed = hand.page.locator(".trial li.bad")
    expect(failed).to_contain_text("Client accepted")
    expect(failed).to_contain_text("Copy the client id and the secret")
    hand.follow("Change the settings")
    hand.fill("Client secret", CLIENT_SECRET)
    hand.press("Save")
    sees(hand.page, "Saved.")
    hand.follow("Test connection")
    hand.press("Test again")
    consent(hand)
    sees(hand.page, "Everything works.")
    assert hand.page.locator(".trial li.good").count() == 13


def by_connect_link(operator: Hand, _: Installation) -> str:
    """Make a link for a user, and return it."""
    operator.press("Make a connect link")
    return operator.page.get_by_label("Connect link").input_value()


def by_their_accounts(_: Hand, here: Installation) -> str:
    """Let the application send the user to their connected accounts."""
    return session_url(here, "alice")


def test_a_dead_connection_is_found_by_the_overview_and_made_again_by_its_user(way: Way) -> None:
    # By keyboard with a link that the operator sends: how the accounts' page is worked by keyboard, its own test shows.
    mend = by_connect_link if way.by_keyboard else by_their_accounts
    here = way.town.project()
    here.connected()
    kill(here, "alice")
    hand = way.operator(here)
    overview = hand.page.url
    sees(hand.page, "1 connection has to be made again by its person, at Practice contacts")
    hand.follow("See who")
    hand.follow("alice")
    sees(hand.page, "Only alice can mend this.")
    connection = hand.page.url
    link = mend(hand, here)
    user = way.somebody()
    user.page.goto(link)
    if mend is by_their_accounts:
        user.press(re.compile("^Connect again"))
    consent(user)
    sees(user.page, "is connected")
    hand.page.goto(connection)
    hand.follow("Open the newer connection")
    sees(hand.page, "Healthy")
    hand.page.goto(overview)
    sees(hand.page, "Everything works.")
    assert here.provider.lets_in(here.backend.token())


def test_a_connection_is_ended_by_an_operator_and_by_its_user_and_the_provider_is_told(way: Way) -> None:
    here = way.town.project()
    here.connected("alice")
    here.connected("bob")
    theirs = [here.backend.token(name) for name in ("alice", "bob")]
    assert all(here.provider.lets_in(token) for token in theirs)
    hand = way.operator(here)
    hand.page.goto(f"{hand.page.url}/connections")
    hand.follow("alice")
    hand.follow("Revoke and delete")
    hand.press("Revoke and delete it")
    sees(hand.page, "This connection is gone")
    user = way.somebody()
    user.page.goto(session_url(here, "bob"))
    user.press(user.page.locator("details.end summary"))  # unfolds the question
    sees(user.page, "is told to end it")
    user.press(re.compile("^Disconnect"))
    sees(user.page, "Practice contacts is disconnected.")
    wait_until(lambda: not any(map(here.provider.lets_in, theirs)), "the provider is told")
    assert [here.backend.fetch(name).status_code for name in ("alice", "bob")] == [404, 404]
