"""evergrant sends a browser to the project's own origins, in whatever form another address is written."""

from urllib.parse import urlsplit

from tests.infra.installation import APP_ID, BACK, Installation
from tests.trips.test_wishes import EVIL

MORE = {
    "a soft hyphen": "https://app.exam\u00adple.com.evil.example/",
    "a space of no width": "https://app.example.com\u200b.evil.example/",
    "a full-width stop": "https://app.example.com\uff0eevil.example/",
    "a half-width stop": "https://app.example.com\uff61evil.example/",
    "an encoded stop": "https://app.example.com%2eevil.example/",
    "an encoded slash": "https://app.example.com%2f@evil.example/",
    "an encoded backslash": "https://app.example.com%5c@evil.example/",
    "Arabic digits as a port": "https://app.example.com:\u0664\u0664\u0663/",
    "script in another case": "JaVaScRiPt:alert(1)",
    "script behind a blank": " javascript:alert(1)",
    "vbscript": "vbscript:msgbox(1)",
    "a blob": "blob:https://app.example.com/1",
    "a page of the browser": "about:blank",
    "a slash and a backslash": "/\\evil.example",
}
SPELLINGS = (BACK, "HTTPS://APP.Example.COM/done", "https://app.example.com:443/a?b=c#d")


def test_no_form_of_a_foreign_address_is_returned_to(here: Installation, user: str) -> None:
    assert len(EVIL | MORE) >= 42
    for what, url in (EVIL | MORE).items():
        wish = {"appId": APP_ID, "userId": user, "options": {"redirectUrl": url}}
        asked = here.backend.post("app/connect", wish)
        assert asked.status_code == 400, what
        assert [entry["field"] for entry in asked.json()["details"]["fields"]] == ["options.redirectUrl"], what
        app = {**here.backend.app(), "defaultRedirectUrl": url}
        assert here.backend.post("app/update", {"app": app}).status_code == 400, what
    for url in SPELLINGS:  # control: whatever is accepted leads to the listed origin
        browser = here.browser()
        link = here.backend.connect_url(user, options={"redirectUrl": url})
        back = browser.open(browser.allow(browser.agree(link))).headers["location"]
        assert (urlsplit(back).scheme, urlsplit(back).hostname) == ("https", "app.example.com")


def test_nobody_adds_an_address_to_the_way_back(here: Installation, user: str) -> None:
    """Where a trip returns to was said when it began: nothing in the browser's hands changes it."""
    more = "redirectUrl=https://evil.example/&redirect_uri=https://evil.example/&next=//evil.example"
    browser = here.browser()
    callback = browser.allow(browser.agree(f"{here.backend.connect_url(user)}?{more}"))
    back = browser.open(f"{callback}&{more}").headers["location"]
    assert back.startswith(f"{BACK}?")
    assert "evil" not in back
    denied = browser.allow(browser.agree(here.backend.connect_url(user)), action="deny")
    assert browser.open(f"{denied}&{more}").headers["location"].startswith(f"{BACK}?")
