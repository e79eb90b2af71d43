"""Connected accounts as people meet them, in a real Chromium: in a page of the application, and on a page of their own.

The application is at `localhost`, evergrant at `127.0.0.1`: to a browser that is another site.
"""

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.infra.chromium import Person, chromium
from tests.infra.installation import APP_ID, Installation
from tests.infra.serving import LiveApp
from tests.infra.visits import embed_in, session_url
from tests.trips.conftest import CreateApp, allow_origins

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)

PAGE = """<!doctype html><html lang="en"><head><title>Settings</title><link rel="icon" href="data:,">
<script type="module" src="{evergrant}/embed/1.js"></script></head><body><h1>Settings</h1>
<evergrant-connect session="{session}" app="{app}" scopes="{scopes}"></evergrant-connect>
<evergrant-accounts session="{session}"></evergrant-accounts>
<ol id="heard"></ol>
<script nonce="own">
for (const name of ["connected", "disconnected", "cancelled", "failed", "expired"])
  addEventListener(name, (event) => {{
    document.getElementById("heard").append(Object.assign(document.createElement("li"),
      {{ textContent: `${{name}} ${{event.detail.app}}`.trim() }}));
  }});
</script></body></html>"""


@pytest.fixture(scope="module")
def application(here: Installation) -> Iterator[str]:
    """A page of the customer's application that shows a session in both elements; its origin."""

    async def settings(request: Request) -> Response:
        fields = {name: request.query_params.get(name, "") for name in ("session", "app", "scopes")}
        # No more than the module, its frames and its own script.
        policy = f"default-src 'none'; img-src data:; script-src {here.url} 'nonce-own'; frame-src {here.url}"
        page = PAGE.format(evergrant=here.url, **fields)
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    with LiveApp(Starlette(routes=[Route("/settings", settings)])) as live:
        origin = f"http://localhost:{live.port}"
        allow_origins(here, "https://app.example.com", origin)
        yield origin


@pytest.fixture(scope="module")
def browser(here: Installation, application: str) -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def person(browser: Browser) -> Iterator[Person]:
    """A person whose browser must have nothing to complain about at the end."""
    with Person(browser) as somebody:
        yield somebody
        assert somebody.complaints == []


def settings_page(application: str, session: str, app_id: str, scopes: str = "") -> str:
    return f"{application}/settings?session={quote(session, safe='')}&app={app_id}&scopes={quote(scopes)}"


def heard(page: Page, *events: str) -> None:
    expect(page.locator("#heard li")).to_have_text(list(events))


def connect_in_window(page: Page, frame: FrameLocator, button: str, *, then: str = "Allow") -> None:
    """Press a button in a frame, and go through the trip in the window that opens."""
    with page.expect_popup() as opened:
        frame.get_by_role("button", name=button).click()
    window = opened.value
    if then == "Cancel":
        window.get_by_role("button", name="Cancel").click()
        return
    window.locator("button[value=connect]").click()
    window.get_by_role("button", name="Allow").click()


def test_a_page_of_the_application_shows_connects_and_ends_and_is_told(
    here: Installation, application: str, person: Person, create_app: CreateApp, user: str
) -> None:
    embed_in(here, application)
    app_id = create_app(name=f"Contacts {user}")
    session = session_url(here, user, appIds=[app_id], scopes={app_id: ["email"]})
    page = person.tab()
    page.goto(settings_page(application, session, app_id, "contacts.readonly openid"))
    button, accounts = (page.frame_locator(f"evergrant-{name} iframe") for name in ("connect", "accounts"))
    expect(accounts.get_by_text("Nothing is connected yet.")).to_be_visible()

    connect_in_window(page, button, f"Connect to Contacts {user}", then="Cancel")
    heard(page, f"cancelled {app_id}")
    connect_in_window(page, button, f"Connect to Contacts {user}")
    heard(page, f"cancelled {app_id}", f"connected {app_id}")
    expect(button.get_by_text("practice-ada")).to_be_visible()
    assert len(page.context.pages) == 1  # the windows have closed themselves

    # More scopes, step by step: those that the session allows.
    page.locator("evergrant-connect").evaluate("e => e.setAttribute('scopes', 'contacts.readonly openid email')")
    connect_in_window(page, button, f"Allow more in Contacts {user}")
    heard(page, f"cancelled {app_id}", f"connected {app_id}", f"connected {app_id}")
    assert here.backend.fetch(user, appId=app_id, scopes=["contacts.readonly", "email"]).status_code == 200
    page.locator("evergrant-connect").evaluate("e => e.setAttribute('scopes', 'openid something-else')")
    expect(button.get_by_text("cannot be connected from here")).to_be_visible()

    page.locator("evergrant-accounts").evaluate("e => e.show()")
    ended = accounts.locator("details.end").first
    ended.locator("summary").click()
    ended.get_by_role("button", name="Disconnect").click()
    expect(accounts.get_by_text("is disconnected.")).to_be_visible()
    expect(page.locator("#heard li").last).to_have_text(f"disconnected {app_id}")
    # The frame is as high as what is in it.
    frame = page.locator("evergrant-accounts iframe").element_handle().content_frame()
    assert frame is not None
    assert frame.evaluate("document.documentElement.scrollHeight <= innerHeight + 1")
    assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_page_of_a_foreign_origin_shows_nothing_and_the_link_is_still_good(
    here: Installation, application: str, browser: Browser, user: str
) -> None:
    embed_in(here, "https://app.example.com")
    session = session_url(here, user)
    with Person(browser) as victim:
        page = victim.tab()
        page.goto(settings_page(application, session, "practice"))
        link = page.locator("evergrant-accounts a")
        expect(link).to_have_text("Open in a new tab")
        assert any("frame-ancestors" in complaint for complaint in victim.complaints)
        with page.expect_popup() as opened:
            link.click()
        expect(opened.value.get_by_role("heading", name="Your connected accounts")).to_be_visible()


def test_a_session_that_is_over_is_told_to_the_page(
    here: Installation, application: str, browser: Browser, user: str
) -> None:
    embed_in(here, application)
    session = session_url(here, user)
    with Person(browser) as somebody:
        assert somebody.context.request.get(session).ok  # it was opened elsewhere
        page = somebody.tab()
        page.goto(settings_page(application, session, "practice"))
        frame = page.frame_locator("evergrant-accounts iframe")
        expect(frame.get_by_text("Open this page again from")).to_be_visible()
        expect(page.locator("#heard li").first).to_have_text("expired")


def test_the_page_of_its_own_works_without_script_and_with_the_keyboard_alone(
    here: Installation, application: str, browser: Browser, user: str
) -> None:
    allow_origins(here, "https://app.example.com", application)
    here.connected(user)
    with Person(browser, {"java_script_enabled": False, "viewport": {"width": 390, "height": 800}}) as somebody:
        page = somebody.tab()
        page.goto(session_url(here, user, appIds=[APP_ID], returnUrl=f"{application}/settings"))

        def press(name: str, role: str = "button") -> None:
            """Tab until something has the focus, and press Enter."""
            for _ in range(40):
                page.keyboard.press("Tab")
                focused = page.locator(":focus")
                if focused.count() and re.sub(r"\s+", " ", focused.inner_text()).strip().startswith(name):
                    page.keyboard.press("Enter")
                    return
            raise AssertionError(f"the keyboard does not get to {name}")

        press("Disconnect")  # unfolds the question
        expect(page.get_by_text("is told to end it")).to_be_visible()
        press("Disconnect")
        expect(page.get_by_text("Practice contacts is disconnected.")).to_be_visible()
        press("Connect")
        page.locator("button[value=connect]").press("Enter")
        page.get_by_role("button", name="Allow").press("Enter")
        expect(page.get_by_text("Practice contacts is connected.")).to_be_visible()
        press("Back")
        expect(page).to_have_url(f"{application}/settings")
        assert somebody.complaints == []
