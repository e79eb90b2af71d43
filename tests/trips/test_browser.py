"""The connect trip as a person makes it, in a real Chromium."""

import asyncio
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.infra.chromium import Person, chromium
from tests.infra.installation import Installation
from tests.infra.scripted import TOKENS, ScriptedProvider, answer, serving
from tests.infra.scripted import Request as ProviderRequest
from tests.infra.serving import LiveApp
from tests.trips.conftest import CreateApp, allow_origins

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)

PHONE = {"viewport": {"width": 360, "height": 740}}
LONG = "A-very-long-name-without-any-place-to-break-it-" * 3


@pytest.fixture(scope="module")
def application(here: Installation) -> Iterator[str]:
    """A page of the customer's application, where trips come back to; its address."""

    async def done(_: Request) -> Response:
        return HTMLResponse('<!doctype html><title>The application</title><link rel="icon" href="data:,">')

    with LiveApp(Starlette(routes=[Route("/done", done)])) as live:
        allow_origins(here, "https://app.example.com", live.url)
        yield f"{live.url}/done"


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


def link_of(here: Installation, application: str, user: str, **fields: object) -> str:
    return here.backend.connect_url(user, options={"redirectUrl": application}, **fields)


def connect(page: Page) -> None:
    page.get_by_role("button", name="Continue to").click()


def allow(page: Page) -> None:
    page.get_by_role("button", name="Allow").click()


def expect_back(page: Page, application: str, status: str = "connected") -> None:
    expect(page).to_have_url(re.compile(rf"^{re.escape(application)}\?.*outboundStatus={status}"))


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def test_the_page_says_who_asks_for_what(
    here: Installation, application: str, person: Person, create_app: CreateApp, user: str
) -> None:
    app_id = create_app(
        name=f"Practice contacts {user}", scopes=[{"value": "contacts.readonly", "description": "See your contacts"}]
    )
    page = person.tab()
    page.goto(link_of(here, application, user, appId=app_id))
    expect(page).to_have_title(f"Connect Practice contacts {user} · Shop")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Connect Practice contacts {user} to Shop")
    expect(page.get_by_text("Shop will be able to:")).to_be_visible()
    expect(page.get_by_text("See your contacts")).to_be_visible()
    expect(page.get_by_role("listitem")).to_have_text(
        [
            re.compile(r"See your contacts\s+Sees"),
            re.compile(r"A permission that Practice contacts .* calls openid\s+Sees"),
        ]
    )
    expect(page.get_by_text(user, exact=True)).to_be_visible()
    # The stylesheet is in force: the button has the accent colour, not the browser's grey.
    colour = page.get_by_role("button", name="Continue to").evaluate("e => getComputedStyle(e).backgroundColor")
    assert colour == "rgb(15, 118, 110)"


def test_connecting_goes_through_the_provider_and_back(
    here: Installation, application: str, person: Person, user: str
) -> None:
    page = person.tab()
    page.goto(link_of(here, application, user))
    connect(page)
    expect(page.get_by_text("Practice provider").first).to_be_visible()
    page.get_by_label("Grace Sample").check()
    allow(page)
    expect_back(page, application)
    assert here.backend.token(user)["tokenSub"] == "practice-grace"


def test_cancelling_goes_straight_back(here: Installation, application: str, person: Person, user: str) -> None:
    page = person.tab()
    page.goto(link_of(here, application, user))
    page.get_by_role("button", name="Cancel").click()
    expect_back(page, application, "failed")
    assert parse_qs(urlsplit(page.url).query)["err"] == ["access_denied"]
    assert here.backend.fetch(user).status_code == 404


def test_it_can_be_done_with_the_keyboard_alone(
    here: Installation, application: str, person: Person, user: str
) -> None:
    page = person.tab()
    page.goto(link_of(here, application, user))
    page.keyboard.press("Tab")
    button = page.get_by_role("button", name="Continue to")
    expect(button).to_be_focused()
    assert button.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Allow")).to_be_visible()
    allow(page)
    expect_back(page, application)


def test_the_back_button_after_the_end_leads_to_the_application(
    here: Installation, application: str, person: Person, user: str
) -> None:
    page = person.tab()
    link = link_of(here, application, user)
    page.goto(link)
    connect(page)
    allow(page)
    expect_back(page, application)
    token = here.backend.token(user)
    page.go_back()
    page.go_back()
    expect_back(page, application)
    page.goto(link)
    expect_back(page, application)
    assert here.backend.token(user) == token
    assert here.provider.state.code_replays == 0


def test_an_answer_that_comes_twice_leads_to_the_application_both_times(
    here: Installation, application: str, person: Person, user: str
) -> None:
    with serving(ScriptedProvider({"/token": [held_tokens, TOKENS]})) as provider:
        app_id = f"twice-{user}"
        callback = here.backend.create_app(provider.registration(app_id))["callbackUrl"]
        # Its page sends the browser back with two codes, the second while the first is being redeemed.
        provider.routes["/authorize"] = lambda request: page_with_script(
            f"const back = code => `{callback}?code=${{code}}&state={request.query['state']}`;"
            "location.href = back('one'); setTimeout(() => { location.href = back('two') }, 300)"
        )
        page = person.tab()
        page.goto(link_of(here, application, user, appId=app_id))
        connect(page)
        expect_back(page, application)
        assert [form["code"] for form in provider.forms_at("/token")] == ["one"]
        assert here.backend.token(user, appId=app_id, scopes=["files"])


async def held_tokens(_: ProviderRequest) -> dict[str, object]:
    """Take longer than the browser waits before it comes again."""
    await asyncio.sleep(1)
    return TOKENS


def page_with_script(script: str) -> bytes:
    html = f'<!doctype html><title>Scripted</title><link rel="icon" href="data:,"><script>{script}</script>'
    return answer(200, html.encode(), "text/html")


def test_going_back_from_the_provider_and_on_again_connects(
    here: Installation, application: str, person: Person, user: str
) -> None:
    page = person.tab()
    page.goto(link_of(here, application, user))
    connect(page)
    expect(page.get_by_role("button", name="Allow")).to_be_visible()
    page.go_back()
    page.reload()  # not from the browser's memory of the page
    connect(page)
    page.get_by_label("Grace Sample").check()
    allow(page)
    expect_back(page, application)
    assert here.backend.token(user)["tokenSub"] == "practice-grace"


def test_going_back_from_the_provider_and_cancelling_leads_to_the_application(
    here: Installation, application: str, person: Person, user: str
) -> None:
    page = person.tab()
    page.goto(link_of(here, application, user))
    connect(page)
    expect(page.get_by_role("button", name="Allow")).to_be_visible()
    page.go_back()
    page.get_by_role("button", name="Cancel").click()
    expect_back(page, application, "failed")
    page.go_back()
    expect_back(page, application, "failed")


def test_a_link_that_the_browser_fetched_beforehand_still_works(
    here: Installation, application: str, browser: Browser, create_app: CreateApp, user: str
) -> None:
    link = link_of(here, application, user, appId=create_app(skipConsentPage=True, requireConfirmation=True))
    with Person(browser) as somebody:
        page = somebody.tab()
        page.goto(link_of(here, application, f"{user}-before"))  # so that the browser has the cookie
        # A page of the same host that knows the link: with what it fetches ahead, the cookie is sent.
        page.route("**/links", lambda route: route.fulfill(content_type="text/html", body="<p>Links</p>"))
        page.goto(f"{here.url}/links")
        with page.context.expect_event("response", lambda told: told.url == link) as looked:
            page.evaluate(
                "href => document.head.append(Object.assign(document.createElement('link'), {rel: 'prefetch', href}))",
                link,
            )
        assert looked.value.status == 503
        page.goto(link)
        allow(page)
        expect_back(page, application)


def test_a_refusal_without_a_state_leads_to_the_application(
    here: Installation, application: str, browser: Browser, person: Person, user: str
) -> None:
    with serving(ScriptedProvider()) as provider:
        app_id = f"stateless-{user}"
        callback = here.backend.create_app(provider.registration(app_id))["callbackUrl"]
        refusal = f"{callback}?error=access_denied"
        provider.routes["/authorize"] = answer(200, f'<a href="{refusal}">No</a>'.encode(), "text/html")
        provider.routes["/favicon.ico"] = answer(200, b"", "image/png")
        page = person.tab()
        page.goto(link_of(here, application, user, appId=app_id))
        connect(page)
        with Person(browser) as stranger:
            theirs = stranger.tab()
            theirs.goto(refusal)
            expect(theirs.get_by_text("belongs to no connection")).to_be_visible()
        page.get_by_role("link", name="No").click()
        expect_back(page, application, "failed")
        assert parse_qs(urlsplit(page.url).query)["err"] == ["access_denied"]


def test_two_tabs_of_one_browser_make_two_trips(
    here: Installation, application: str, person: Person, user: str
) -> None:
    one, other = person.tab(), person.tab()
    one.goto(link_of(here, application, f"{user}-one"))
    other.goto(link_of(here, application, f"{user}-other"))
    connect(one)
    connect(other)
    allow(other)
    allow(one)
    for page, name in ((one, "one"), (other, "other")):
        expect_back(page, application)
        assert here.backend.token(f"{user}-{name}")


def test_another_persons_browser_cannot_finish_the_trip(
    here: Installation, application: str, person: Person, browser: Browser, user: str
) -> None:
    page = person.tab()
    page.goto(link_of(here, application, user))
    connect(page)
    callback = here.browser().allow(page.url)
    with Person(browser) as stranger:
        theirs = stranger.tab()
        theirs.goto(callback)
        expect(theirs.get_by_text("started in another browser")).to_be_visible()
    assert here.backend.fetch(user).status_code == 404
    page.goto(callback)
    expect_back(page, application)
    assert here.backend.token(user)


def test_the_page_cannot_be_put_into_a_frame(here: Installation, application: str, browser: Browser, user: str) -> None:
    link = link_of(here, application, user)
    with Person(browser) as victim:
        page = victim.tab()
        page.goto(application)
        page.evaluate("link => { document.body.innerHTML = `<iframe src='${link}'></iframe>` }", link)
        expect(page.frame_locator("iframe").get_by_role("button", name="Continue to")).to_have_count(0)
        page.wait_for_timeout(200)
        assert any("frame-ancestors" in complaint for complaint in victim.complaints)


def test_another_site_cannot_press_connect(here: Installation, application: str, browser: Browser, user: str) -> None:
    link = link_of(here, application, user)
    with Person(browser) as victim:
        page = victim.tab()
        page.goto(link)  # so that the cookie is there
        page.goto(application.replace("127.0.0.1", "localhost"))  # another site
        page.evaluate(
            """link => { document.body.innerHTML =
                `<form method=post action='${link}'><button name=decision value=connect>Win</button></form>` }""",
            link,
        )
        page.get_by_role("button", name="Win").click()
        expect(page.get_by_text("can only be sent from our own page")).to_be_visible()
        page.goto(link)
        connect(page)
        expect(page.get_by_role("button", name="Allow")).to_be_visible()


def test_it_fits_a_phone(
    here: Installation, application: str, browser: Browser, create_app: CreateApp, user: str
) -> None:
    app_id = create_app(
        name=f"{user} {LONG}"[:200],
        defaultScopes=["openid", "contacts.readonly", f"https://provider.example.com/{LONG}"],
        scopes=[{"value": "contacts.readonly", "description": f"See {LONG}"}],
    )
    link = link_of(here, application, f"{user}-{LONG}", appId=app_id, tenantId=LONG)
    with Person(browser, PHONE) as somebody:
        page = somebody.tab()
        page.goto(link)
        assert fits(page)
        page.get_by_role("button", name="Continue to").scroll_into_view_if_needed()
        boxes = [button.bounding_box() for button in page.get_by_role("button").all()]
        assert all(box is not None and box["height"] >= 40 for box in boxes)
        page.goto(f"{here.url}/connect/nonsense")
        assert fits(page)
        page.goto(f"{here.url}/connect-result")
        assert fits(page)


def test_it_speaks_german_in_the_dark_on_a_phone(
    here: Installation, application: str, browser: Browser, create_app: CreateApp, user: str
) -> None:
    app_id = create_app(defaultScopes=["openid", f"https://provider.example.com/{LONG}"])
    labels = {"userLabel": "Ada Lovelace", "redirectUrl": application}
    with Person(browser, {**PHONE, "color_scheme": "dark", "locale": "de-DE"}) as somebody:
        page = somebody.tab()
        page.goto(here.backend.connect_url(user, appId=app_id, options=labels))
        expect(page.locator("html")).to_have_attribute("lang", "de")
        expect(page.get_by_text("Für Ada Lovelace")).to_be_visible()
        button = page.get_by_role("button", name=f"Weiter zu {app_id}")
        assert button.evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(47, 203, 181)"
        page.get_by_text("Technische Namen").click()
        expect(page.get_by_text(f"https://provider.example.com/{LONG}")).to_be_visible()
        assert fits(page)
        button.click()
        page.wait_for_url("**/done?*invalid_scope*")  # it has left: the provider knows no such scope
        assert somebody.complaints == []


def test_a_trip_without_an_address_ends_on_evergrants_own_page(here: Installation, person: Person, user: str) -> None:
    page = person.tab()
    page.goto(here.backend.connect_url(user, options={}))
    connect(page)
    allow(page)
    expect(page.get_by_role("heading", name=re.compile("is connected$"))).to_be_visible()
