"""What people read who connect an account: for whom, for what, in which language, and how it ended."""

import re

import httpx2
import pytest

from evergrant.settings import Settings
from evergrant.web.kinds import kind_of
from tests.infra.installation import BACK, Browser, Installation, installation
from tests.infra.rows import rows
from tests.trips.conftest import CreateApp

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)


@pytest.fixture
def browser(here: Installation) -> Browser:
    return here.browser()


def text_of(page: httpx2.Response) -> str:
    """Return the words of a page, as they stand there."""
    return " ".join(re.sub(r"<[^>]*>", "", page.text.partition("<main")[2].partition(">")[2]).split())


def heading_of(page: httpx2.Response) -> str:
    return re.sub(r"<[^>]*>", "", page.text.partition("<h1>")[2].partition("</h1>")[0])


def test_people_read_their_own_name_and_where_they_return_to(here: Installation, browser: Browser, user: str) -> None:
    labels = {"userLabel": "Ada <ada@example.com>", "tenantLabel": "Lovelace & Co"}
    options = {"redirectUrl": BACK, **labels}
    page = text_of(browser.open(here.backend.connect_url(user, tenantId="t-1", options=options)))
    assert "For Ada &lt;ada@example.com&gt; in Lovelace &amp; Co" in page
    assert user not in page
    assert "t-1" not in page
    assert "Afterwards you return to app.example.com." in page
    everyone = here.backend.connect_url(user, tenantId="t-1", tenantLevel=True, options=options)
    assert "For everyone in Lovelace &amp; Co, connected by Ada" in text_of(browser.open(everyone))
    nameless = text_of(browser.open(here.backend.connect_url(user, options={})))
    assert f"For {user}" in nameless
    assert "Afterwards" not in nameless


@pytest.mark.parametrize("path", ["/v1/mgmt/outbound/app/connect", "/v1/outbound/oauth/connect"])
@pytest.mark.parametrize(
    ("option", "value"), [("userLabel", "x" * 121), ("tenantLabel", "x" * 121), ("locale", "de<"), ("locale", "x" * 17)]
)
def test_a_label_that_is_too_long_and_what_is_no_language_is_refused(
    here: Installation, path: str, option: str, value: str
) -> None:
    body = {"appId": "practice", "userId": "alice", "options": {option: value}}
    answer = here.backend.http.post(path, json=body)
    assert answer.status_code == 400
    assert [entry["field"] for entry in answer.json()["details"]["fields"]] == [f"options.{option}"]


def test_a_trip_keeps_who_made_its_link(here: Installation, user: str) -> None:
    here.backend.connect_url(user)
    [trip] = [row for row in rows(here.settings, "authorization_requests") if row["user_id"] == user]
    assert trip["made_by"].startswith("key:")


@pytest.mark.parametrize(
    ("locale", "accepted", "language", "button"),
    [
        ("", "", "en", "Continue to Practice contacts"),
        ("", "ja, fr-CH;q=0.8, de;q=0.9, en;q=0.1", "de", "Weiter zu Practice contacts"),
        ("fr", "de", "fr", "Continuer vers Practice contacts"),
        ("ja-JP", "de;q=x, fr;q=0", "en", "Continue to Practice contacts"),
    ],
)
def test_pages_speak_the_language_of_the_link_else_of_the_browser(
    here: Installation, browser: Browser, user: str, locale: str, accepted: str, language: str, button: str
) -> None:
    link = here.backend.connect_url(user, options={"redirectUrl": BACK, "locale": locale})
    page = browser.http.get(link, headers={"Accept-Language": accepted})
    assert f'<html lang="{language}">' in page.text
    assert page.headers["content-language"] == language
    assert page.headers["vary"] == "Accept-Language"
    assert button in text_of(page)
    browser.agree(link)
    used = here.browser().http.get(link, headers={"Accept-Language": accepted})
    assert f'<html lang="{language}">' in used.text, "its errors too"


def test_people_change_the_language_on_the_consent_page_and_the_trip_ends_in_it(
    here: Installation, browser: Browser, user: str
) -> None:
    link = here.backend.connect_url(user, options={"locale": "fr"})
    page = browser.open(link)
    assert '<a href="?lang=de" lang="de" hreflang="de">Deutsch</a>' in page.text
    assert 'href="?lang=fr"' not in page.text, "the one that it is in"
    german = f"{link}?lang=de"
    assert '<html lang="de">' in browser.open(german).text
    assert '<html lang="fr">' in browser.open(f"{link}?lang=xx").text
    browser.http.post(german, data={"decision": "connect"}, headers={"Sec-Fetch-Site": "same-origin"})
    [trip] = [row for row in rows(here.settings, "authorization_requests") if row["user_id"] == user]
    assert trip["locale"] == "de"


def test_whoever_cancels_is_told_that_nothing_is_left_to_do(here: Installation, browser: Browser, user: str) -> None:
    link = here.backend.connect_url(user, options={})
    browser.open(link)
    cancelled = browser.http.post(
        link, data={"decision": "cancel"}, headers={"Sec-Fetch-Site": "same-origin"}, follow_redirects=True
    )
    assert "Nothing was stored. You can close this window." in text_of(cancelled)
    assert "Reference" not in cancelled.text


def test_words_for_a_scope_are_in_the_visitors_language_or_marked_as_english(
    here: Installation, browser: Browser, create_app: CreateApp, user: str
) -> None:
    scopes = ["contacts.readonly", "https://provider.example/auth/mail.delete", "openid"]
    described = {"contacts.readonly": "See your contacts", scopes[1]: "Read, and permanently delete, your mail"}
    app_id = create_app(
        defaultScopes=scopes,
        scopes=[{"value": scope, "description": words} for scope, words in described.items()],
        scopeTranslations={"de": {"contacts.readonly": "Ihre Kontakte ansehen"}},
    )
    assert here.backend.app(app_id)["scopeTranslations"] == {"de": {"contacts.readonly": "Ihre Kontakte ansehen"}}
    known = {name: value for name, value in here.backend.app(app_id).items() if name != "scopeTranslations"}
    assert here.backend.post("app/update", {"app": known}).status_code == 200  # as an SDK does that knows no such field
    assert here.backend.app(app_id)["scopeTranslations"] != {}
    link = here.backend.connect_url(user, appId=app_id, options={"scopes": scopes})
    page = browser.http.get(link, headers={"Accept-Language": "de"})
    assert "<span>Ihre Kontakte ansehen</span>" in page.text
    assert '<span lang="en">Read, and permanently delete, your mail</span>' in page.text
    said = text_of(page)
    assert "Ihre Kontakte ansehen Sieht" in said
    assert "delete, your mail Löscht" in said
    assert f"Eine Berechtigung, die bei {app_id} openid heißt Sieht" in said
    wrong = here.backend.post("app/create", {"name": f"{app_id}-2", "scopeTranslations": {"de-DE": {}}})
    assert [entry["field"] for entry in wrong.json()["details"]["fields"]] == ["scopeTranslations"]


@pytest.mark.parametrize(
    ("words", "scope", "kind"),
    [
        ("See your posts and drafts", "x", "sees"),
        ("Post as you", "x", "changes"),
        ("Read, write, send and permanently delete all your mail", "x", "deletes"),
        ("Add sleep data, and change or delete what it added", "x", "deletes"),
        ("Keep access while you are away", "offline_access", ""),
        ("Zugriff auf Kontakte", "contacts:write", "changes"),
        ("", "Files.ReadWrite", "changes"),
        ("", "https://read.example.com/auth/impersonation", ""),
    ],
)
def test_a_permission_is_marked_by_the_heaviest_that_it_says(
    here: Installation, words: str, scope: str, kind: str
) -> None:
    assert kind_of(words, scope) == kind


class TestTheResult:
    def test_it_says_what_was_connected_to_the_browser_that_did(
        self, here: Installation, browser: Browser, user: str
    ) -> None:
        end = browser.open(browser.allow(browser.agree(here.backend.connect_url(user, options={}))))
        result = here.url + end.headers["location"]
        page = browser.open(result)
        assert heading_of(page) == "Practice contacts is connected"
        assert "Shop can use it from now on. You can close this window." in text_of(page)
        for forged in (f"{result}&err=access_denied", result.replace("?", "?err=expired&")):
            assert heading_of(browser.open(forged)) == "Practice contacts is connected"

    def test_a_link_to_it_says_no_name_to_anybody_else(self, here: Installation, browser: Browser, user: str) -> None:
        end = browser.open(browser.allow(browser.agree(here.backend.connect_url(user, options={}))))
        stranger = here.browser()
        for cookies in (False, True):
            if cookies:
                stranger.open(here.backend.connect_url(f"other-{user}"))
            page = stranger.open(here.url + end.headers["location"])
            assert heading_of(page) == "This is over"
            assert "Practice" not in page.text
            assert "Shop" not in page.text

    def test_who_cancelled_is_not_told_by_a_link_that_it_is_connected(
        self, here: Installation, browser: Browser, user: str
    ) -> None:
        link = here.backend.connect_url(user, options={})
        browser.open(link)
        location = browser.http.post(link, data={"decision": "cancel"}).headers["location"]
        assert "err=access_denied" in location
        forged = here.url + location.replace("err=access_denied&", "")
        assert heading_of(browser.open(forged)) == "Nothing was connected"


def test_an_error_says_what_happened_and_by_which_reference_to_ask(
    here: Installation, browser: Browser, user: str
) -> None:
    link = here.backend.connect_url(user)
    browser.agree(link)
    used = here.browser().open(link)
    assert heading_of(used) == "This link was used already"
    assert "Go back to Shop and start again." in text_of(used)
    assert f"Reference {used.headers['x-request-id']}" in text_of(used)
    nothing = browser.open(f"{here.url}/nothing")
    assert (nothing.status_code, heading_of(nothing)) == (404, "There is nothing here")
    assert "application/json" in browser.open(f"{here.url}/v1/nothing").headers["content-type"]


def test_a_form_that_says_nowhere_where_it_comes_from_is_refused(
    here: Installation, browser: Browser, user: str
) -> None:
    """Browsers without Sec-Fetch-Site send Origin."""
    link = here.backend.connect_url(user)
    browser.open(link)
    del browser.http.headers["Sec-Fetch-Site"]
    for headers in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        refused = browser.http.post(link, data={"decision": "connect"}, headers=headers)
        assert (refused.status_code, heading_of(refused)) == (400, "This did not come from our page")
    assert browser.http.post(link, data={"decision": "connect"}, headers={"Origin": here.url}).status_code == 303


def test_the_first_page_leads_to_the_console_or_says_what_this_is(
    here: Installation, browser: Browser, settings: Settings
) -> None:
    assert browser.open(f"{here.url}/").headers["location"] == "/console"
    with installation(settings.model_copy(update={"console": False, "refresher": False})) as without:
        page = without.browser().open(f"{without.url}/")
        assert page.status_code == 200
        assert "evergrant console" in text_of(page)
