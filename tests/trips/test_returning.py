"""Who comes again in the browser that agreed is sent to the application with the outcome that there is."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest

from evergrant.broker.connect import outcomes
from evergrant.practice.faults import slow
from tests.conftest import Clock
from tests.infra.installation import APP_ID, BACK, Browser, Installation, came_back
from tests.infra.rows import execute, rows
from tests.infra.scripted import ScriptedProvider
from tests.infra.waiting import PATIENCE, wait_until
from tests.trips.conftest import CreateApp
from tests.trips.test_connect_fails import failed, nothing_stored, refused, with_params

OUTCOME_UNKNOWN = "evergrant was interrupted while it made the connection. Connect again."


@pytest.fixture
def browser(here: Installation) -> Browser:
    return here.browser()


def press(browser: Browser, link: str, decision: str = "connect", **answers: str) -> httpx2.Response:
    return browser.http.post(link, data={"decision": decision, **{f"variables.{k}": v for k, v in answers.items()}})


def asked(address: str) -> dict[str, str]:
    """The parameters of an authorization request."""
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


def row_of(here: Installation, user: str) -> dict[str, Any]:
    (row,) = (row for row in rows(here.settings, "authorization_requests") if row["user_id"] == user)
    return row


class TestAnAnswerThatComesAgain:
    @pytest.fixture
    def location(self, here: Installation, browser: Browser, user: str) -> str:
        """The callback address of a person who allowed everything, not yet opened."""
        return browser.allow(browser.agree(here.backend.connect_url(user)))

    def test_while_the_first_is_being_redeemed_waits_for_it(
        self, here: Installation, browser: Browser, user: str, location: str
    ) -> None:
        before = here.provider.state.token_calls["authorization_code"]
        here.provider.state.next_token_answers.append(slow(1))
        with ThreadPoolExecutor(2) as hands:
            first = hands.submit(browser.open, location)
            calls = here.provider.state.token_calls
            wait_until(lambda: calls["authorization_code"] > before, "the first code is being redeemed")
            second = hands.submit(browser.open, with_params(location, code="another"))
            ends = {first.result().headers["location"], second.result().headers["location"]}
        assert len(ends) == 1
        assert here.provider.state.token_calls["authorization_code"] == before + 1
        assert here.backend.token(user)

    def test_later_with_another_code_or_a_refusal_is_sent_to_the_same_outcome(
        self, here: Installation, browser: Browser, user: str, location: str, clock: Clock
    ) -> None:
        first = browser.open(location).headers["location"]
        clock.advance(20 * 60)
        for again in (location, with_params(location, code="c2"), with_params(location, code=None, error="no")):
            assert browser.open(again).headers["location"] == first
        assert here.backend.token(user)

    def test_after_a_failure_is_sent_to_that_failure(
        self, here: Installation, browser: Browser, user: str, location: str
    ) -> None:
        failed(browser.open(with_params(location, code=None, error="access_denied")), "access_denied")
        failed(browser.open(location), "access_denied")
        assert nothing_stored(here.backend, user)

    def test_with_a_confirmation_is_given_the_same_which_works_once(
        self, here: Installation, browser: Browser, create_app: CreateApp, user: str
    ) -> None:
        app_id = create_app(requireConfirmation=True)
        location = browser.allow(browser.agree(here.backend.connect_url(user, appId=app_id)))
        first, second = (came_back(browser.open(location)) for _ in range(2))
        assert first == second
        confirm = {"confirmation": first["confirmation"], "userId": user}
        assert here.backend.post("app/connect/confirm", confirm).status_code == 200
        assert here.backend.post("app/connect/confirm", confirm).status_code == 404

    def test_without_an_address_of_the_application_ends_on_the_same_page(
        self, here: Installation, browser: Browser, user: str
    ) -> None:
        location = browser.allow(browser.agree(here.backend.connect_url(user, options={})))
        first, again = (browser.open(location).headers["location"] for _ in range(2))
        assert first == again
        assert first.startswith("/connect-result?trip=")

    def test_to_another_replica_that_is_about_to_end_the_trip_waits_for_it(
        self, here: Installation, browser: Browser, user: str, location: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits, sleep = threading.Event(), asyncio.sleep

        async def noticed(seconds: float, *rest: Any) -> Any:
            if seconds == outcomes.LOOK_AGAIN_SECONDS:
                waits.set()
            return await sleep(seconds, *rest)

        monkeypatch.setattr(asyncio, "sleep", noticed)
        first = browser.open(location).headers["location"]
        outcome = row_of(here, user)["outcome"]
        # As it is while another process speaks with the provider.
        mine = f"WHERE user_id = '{user}'"
        execute(here.settings, f"UPDATE authorization_requests SET outcome = NULL {mine}")
        stored = f"X'{outcome.hex()}'" if here.settings.uses_sqlite else f"'\\x{outcome.hex()}'"
        with ThreadPoolExecutor(1) as hands:
            second = hands.submit(browser.open, location)
            assert waits.wait(PATIENCE)
            execute(here.settings, f"UPDATE authorization_requests SET outcome = {stored} {mine}")
            assert second.result().headers["location"] == first

    def test_after_a_crash_is_told_so(
        self, here: Installation, browser: Browser, user: str, location: str, clock: Clock
    ) -> None:
        browser.open(location)
        execute(here.settings, f"UPDATE authorization_requests SET outcome = NULL WHERE user_id = '{user}'")
        clock.advance(31)
        assert failed(browser.open(location), "server_error") == OUTCOME_UNKNOWN

    def test_neither_outcome_nor_state_is_stored_in_the_clear(
        self, here: Installation, browser: Browser, user: str, location: str
    ) -> None:
        state = asked(location)["state"]
        assert state.encode() not in row_of(here, user)["state"]
        browser.open(location)
        row = row_of(here, user)
        assert row["state"] is None
        assert b"outboundStatus" not in row["outcome"]


class TestTheLinkAgain:
    def test_goes_on_with_the_same_state_and_secrets(self, here: Installation, browser: Browser, user: str) -> None:
        link = here.backend.connect_url(user)
        first = asked(browser.agree(link))
        page = browser.open(link)
        assert page.status_code == 200
        assert "Connect" in page.text
        again = press(browser, link).headers["location"]
        for name in ("state", "code_challenge", "nonce", "redirect_uri"):
            assert asked(again)[name] == first[name]
        assert came_back(browser.open(browser.allow(again)))["outboundStatus"] == "connected"
        assert here.backend.token(user)

    def test_the_first_tab_may_come_back_first(self, here: Installation, browser: Browser, user: str) -> None:
        link = here.backend.connect_url(user)
        first, second = browser.agree(link), press(browser, link).headers["location"]
        answers = [browser.allow(first), browser.allow(second)]
        ends = {browser.open(location).headers["location"] for location in answers}
        assert len(ends) == 1
        assert here.backend.token(user)

    def test_a_double_press_goes_on_both_times(self, here: Installation, browser: Browser, user: str) -> None:
        link = here.backend.connect_url(user)
        browser.open(link)
        with ThreadPoolExecutor(4) as hands:
            pressed = list(hands.map(lambda _: press(browser, link), range(4)))
        assert len({asked(answer.headers["location"])["state"] for answer in pressed}) == 1
        assert came_back(browser.open(browser.allow(pressed[0].headers["location"])))["outboundStatus"] == "connected"

    def test_leads_to_the_application_once_the_trip_has_ended(
        self, here: Installation, browser: Browser, user: str
    ) -> None:
        link = here.backend.connect_url(user)
        end = browser.open(browser.allow(browser.agree(link))).headers["location"]
        assert browser.open(link).headers["location"] == end
        assert press(browser, link).headers["location"] == end
        assert press(browser, link, "cancel").headers["location"] == end
        refused(here.browser().open(link), "used already")
        assert here.backend.token(user)

    def test_leads_to_the_application_once_its_time_is_over(
        self, here: Installation, browser: Browser, user: str, clock: Clock
    ) -> None:
        link = here.backend.connect_url(user)
        left = browser.agree(link)
        clock.advance(15 * 60)
        failed(browser.open(link), "expired")
        failed(browser.open(browser.allow(left)), "expired")

    def test_cancelling_twice_and_going_back_tells_the_same(
        self, here: Installation, browser: Browser, user: str
    ) -> None:
        link = here.backend.connect_url(user)
        browser.open(link)
        for _ in range(2):
            failed(press(browser, link, "cancel"), "access_denied")
        failed(browser.open(link), "access_denied")
        failed(press(browser, link), "access_denied")
        assert nothing_stored(here.backend, user)

    def test_cancelling_after_leaving_ends_the_trip(self, here: Installation, browser: Browser, user: str) -> None:
        link = here.backend.connect_url(user)
        left = browser.agree(link)
        failed(press(browser, link, "cancel"), "access_denied")
        failed(browser.open(browser.allow(left)), "access_denied")
        assert nothing_stored(here.backend, user)


class TestLookingAhead:
    HEADERS = (
        {"Sec-Purpose": "prefetch"},
        {"Sec-Purpose": "prefetch;prerender"},
        {"Purpose": "prefetch"},
        {"X-Moz": "prefetch"},
        {"X-Purpose": "preview"},
    )

    @pytest.mark.parametrize("headers", HEADERS, ids=str)
    def test_a_prefetch_uses_no_link_up(
        self, here: Installation, browser: Browser, create_app: CreateApp, user: str, headers: dict[str, str]
    ) -> None:
        link = here.backend.connect_url(user, appId=create_app(skipConsentPage=True, requireConfirmation=True))
        browser.open(here.backend.connect_url(user))  # now it has a cookie
        looked = browser.http.get(link, headers=headers)
        assert (looked.status_code, looked.headers["cache-control"]) == (503, "no-store")
        assert row_of_link(here, user)["state_digest"] is None
        left = browser.open(link)
        assert left.status_code == 303
        assert asked(browser.open(link).headers["location"])["state"] == asked(left.headers["location"])["state"]
        assert came_back(browser.open(browser.allow(left.headers["location"])))["outboundStatus"] == "connected"

    def test_a_head_request_uses_no_link_up(
        self, here: Installation, browser: Browser, create_app: CreateApp, user: str
    ) -> None:
        link = here.backend.connect_url(user, appId=create_app(skipConsentPage=True, requireConfirmation=True))
        browser.open(here.backend.connect_url(user))
        browser.http.head(link)
        assert row_of_link(here, user)["state_digest"] is None

    @pytest.mark.parametrize("headers", HEADERS, ids=str)
    def test_a_prefetch_uses_no_answer_up(
        self, here: Installation, browser: Browser, user: str, headers: dict[str, str]
    ) -> None:
        location = browser.allow(browser.agree(here.backend.connect_url(user)))
        assert browser.http.get(location, headers=headers).status_code == 503
        assert came_back(browser.open(location))["outboundStatus"] == "connected"


def row_of_link(here: Installation, user: str) -> dict[str, Any]:
    """The trip of an app that skips the consent page."""
    (row,) = (
        row
        for row in rows(here.settings, "authorization_requests")
        if row["user_id"] == user and row["app_id"] != APP_ID
    )
    return row


class TestARefusalWithoutAState:
    @pytest.fixture
    def trip(self, here: Installation, browser: Browser, create_app: CreateApp, user: str) -> str:
        """The callback address of an app for which a trip is under way."""
        app_id = create_app()
        browser.agree(here.backend.connect_url(user, appId=app_id))
        return str(here.backend.app(app_id)["callbackUrl"])

    @pytest.mark.parametrize(
        ("query", "err"),
        [
            ("error=access_denied", "access_denied"),
            ("error=access_denied&state=", "access_denied"),
            ("error_code=200&error_message=No", "200"),
            ("", "invalid_response"),
        ],
    )
    def test_is_that_of_the_only_trip_in_the_browser(self, browser: Browser, trip: str, query: str, err: str) -> None:
        for _ in range(2):
            failed(browser.open(f"{trip}?{query}"), err)

    def test_is_refused_in_another_browser(self, here: Installation, browser: Browser, trip: str) -> None:
        stranger = here.browser()
        refused(stranger.open(f"{trip}?error=access_denied"), "belongs to no connection")
        stranger.open(here.backend.connect_url("mallory"))
        refused(stranger.open(f"{trip}?error=access_denied"), "belongs to no connection")
        failed(browser.open(f"{trip}?error=access_denied"), "access_denied")

    def test_a_code_without_a_state_is_never_redeemed(
        self, here: Installation, browser: Browser, trip: str, user: str
    ) -> None:
        before = here.provider.state.token_calls["authorization_code"]
        for query in ("code=anybodys", "code=anybodys&state="):
            refused(browser.open(f"{trip}?{query}"), "belongs to no connection")
        assert here.provider.state.token_calls["authorization_code"] == before

    def test_other_apps_trips_in_the_browser_do_not_matter(
        self, here: Installation, browser: Browser, trip: str, user: str
    ) -> None:
        browser.agree(here.backend.connect_url(user))
        failed(browser.open(f"{trip}?error=access_denied"), "access_denied")

    def test_of_two_trips_of_one_app_is_nobodys(self, here: Installation, browser: Browser, user: str) -> None:
        lefts = [browser.agree(here.backend.connect_url(f"{user}-{number}")) for number in range(2)]
        callback = here.backend.app()["callbackUrl"]
        refused(browser.open(f"{callback}?error=access_denied"), "belongs to no connection")
        for left in lefts:
            assert came_back(browser.open(browser.allow(left)))["outboundStatus"] == "connected"


class TestAFormThatComesBack:
    FORM = "application/x-www-form-urlencoded"

    @pytest.fixture
    def answer(self, here: Installation, browser: Browser, user: str) -> tuple[str, dict[str, str]]:
        """The callback address, and what the provider sends there."""
        location = browser.allow(browser.agree(here.backend.connect_url(user)))
        return location.partition("?")[0], asked(location)

    def finish(self, here: Installation, browser: Browser, address: str, **sent: Any) -> dict[str, str]:
        """Post an answer as a provider's page does, which brings no cookie, and go where the browser is sent."""
        posted = httpx2.post(address, trust_env=False, **sent)
        assert posted.status_code == 303, posted.text
        assert len(posted.headers["location"]) < 8_000
        return came_back(browser.open(here.url + posted.headers["location"]))

    @pytest.mark.parametrize(
        "more",
        [
            [(f"field-{number}", f"value {number} é") for number in range(500)],
            [("user", "x" * 100_000)],
            [("groups", "one"), ("groups", "two")],
        ],
        ids=["500 fields", "a long one", "the same twice"],
    )
    def test_may_have_fields_that_nobody_needs(
        self, here: Installation, browser: Browser, answer: tuple[str, dict[str, str]], more: list[tuple[str, str]]
    ) -> None:
        address, fields = answer
        body = urlencode([*more, *fields.items()])
        back = self.finish(here, browser, address, content=body, headers={"Content-Type": self.FORM})
        assert back["outboundStatus"] == "connected"

    def test_may_have_files(self, here: Installation, browser: Browser, answer: tuple[str, dict[str, str]]) -> None:
        address, fields = answer
        files = {"picture": ("me.png", b"\x89PNG", "image/png")}
        assert self.finish(here, browser, address, data=fields, files=files)["outboundStatus"] == "connected"

    def test_short_values_of_fields_that_a_template_may_want_come_through(self, here: Installation) -> None:
        callback = here.backend.app()["callbackUrl"]
        sent = {"auth_code": "a b+c&d", "realmId": "9130", "state": "s", "noise": "x" * 10_000}
        posted = httpx2.post(callback, data=sent, trust_env=False)
        assert asked(posted.headers["location"]) == {"state": "s", "auth_code": "a b+c&d", "realmId": "9130"}

    @pytest.mark.parametrize(
        ("content", "content_type"),
        [
            ("&".join(f"a{number}=1" for number in range(2100)), FORM),
            (b"--x\r\n\xff\r\n", "multipart/form-data; boundary=x"),
            (b"nonsense", "multipart/form-data"),
            (b"x" * 1_100_000, FORM),
        ],
        ids=["too many fields", "half a part", "no boundary", "too long"],
    )
    def test_that_cannot_be_read_gets_a_page(self, here: Installation, content: Any, content_type: str) -> None:
        callback = here.backend.app()["callbackUrl"]
        answer = httpx2.post(callback, content=content, headers={"Content-Type": content_type}, trust_env=False)
        assert answer.status_code in (400, 413)
        assert answer.headers["content-type"].startswith("text/html")


class TestErrorsInAProvidersOwnNames:
    @pytest.mark.parametrize(
        ("query", "err", "words"),
        [
            ("error_code=1349187&error_message=Invalid+Scopes%3A+mail", "1349187", "Invalid Scopes: mail"),
            ("error=access_denied&error_reason=user_denied", "access_denied", "user_denied"),
            ("errorCode=E42&errorMessage=Closed+for+today", "E42", "Closed for today"),
            ("oauth_error=app_not_approved", "app_not_approved", ""),
            ("denied=a-token", "access_denied", ""),
            ("error_message=%3Cb%3ENo%0D%0A", "invalid_response", "<b>No"),
            ("error=&code=", "invalid_response", "The provider sent back neither a code nor an error."),
        ],
    )
    def test_reach_the_application(
        self,
        here: Installation,
        scripted: ScriptedProvider,
        browser: Browser,
        user: str,
        query: str,
        err: str,
        words: str,
    ) -> None:
        app_id = f"names-{user}"
        callback = here.backend.create_app(scripted.registration(app_id))["callbackUrl"]
        state = asked(browser.agree(here.backend.connect_url(user, appId=app_id)))["state"]
        said = failed(browser.open(f"{callback}?{query}&state={state}"), err)
        assert said == (words or f"Scripted {app_id} refused the connection.")

    def test_an_empty_error_beside_a_code_is_none(
        self, here: Installation, scripted: ScriptedProvider, browser: Browser, user: str
    ) -> None:
        app_id = f"empty-{user}"
        callback = here.backend.create_app(scripted.registration(app_id))["callbackUrl"]
        state = asked(browser.agree(here.backend.connect_url(user, appId=app_id)))["state"]
        end = browser.open(f"{callback}?error=&error_code=0&code=c&state={state}")
        assert came_back(end)["outboundStatus"] == "connected"


def test_a_bug_of_ours_sends_the_browser_on(
    here: Installation, browser: Browser, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    for options, where in (({"redirectUrl": BACK}, BACK), ({}, "/connect-result?err=server_error")):
        location = browser.allow(browser.agree(here.backend.connect_url(user, options=options)))
        with monkeypatch.context() as patched:
            patched.setattr("evergrant.oauth2.token_endpoint.exchange_code", broken)
            assert browser.open(location).headers["location"].startswith(where)
        assert browser.open(location).headers["location"].startswith(where)
