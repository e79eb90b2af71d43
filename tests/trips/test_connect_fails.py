"""Every way in which a connect trip fails: the person reads why, the application gets an error, nothing is stored."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from evergrant import pace
from evergrant.practice.faults import Fault, dropped, edited, half_a_body, html, instead
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.held import HeldBack
from tests.infra.installation import APP_ID, Backend, Browser, Installation, came_back, installation
from tests.infra.rows import writers_wait
from tests.trips.conftest import CreateApp


def failed(answer: httpx2.Response, err: str) -> str:
    """Check a redirect that tells the application of a failure; return the words."""
    assert answer.status_code == 303, answer.text
    back = came_back(answer)
    assert (back["outboundStatus"], back["err"]) == ("failed", err)
    assert answer.headers["location"].startswith("https://app.example.com/done?")
    return back["errDescription"]


def refused(answer: httpx2.Response, words: str) -> None:
    """Check a page of evergrant's that says why it ends here."""
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/html")
    assert "location" not in answer.headers
    assert words in answer.text


def nothing_stored(backend: Backend, user: str, app_id: str = APP_ID) -> bool:
    """Tell whether the user has no grant, by either question."""
    latest = backend.post("app/user/token/latest", {"appId": app_id, "userId": user})
    return latest.status_code == backend.fetch(user, appId=app_id).status_code == 404


def with_params(url: str, **params: str | None) -> str:
    """Replace parameters of a URL; None removes one."""
    old = httpx2.URL(url)
    kept = {name: values[-1] for name, values in parse_qs(old.query.decode()).items()} | params
    return str(old.copy_with(params={name: value for name, value in kept.items() if value is not None}))


@pytest.fixture
def browser(here: Installation) -> Browser:
    return here.browser()


class TestBeforeTheProvider:
    def test_cancelling_tells_the_application(self, here: Installation, browser: Browser, user: str) -> None:
        link = here.backend.connect_url(user)
        browser.open(link)
        failed(browser.http.post(link, data={"decision": "cancel"}), "access_denied")
        refused(here.browser().open(link), "used already")
        assert nothing_stored(here.backend, user)

    def test_cancelling_without_an_address_ends_on_a_page(
        self, here: Installation, browser: Browser, user: str
    ) -> None:
        link = here.backend.connect_url(user, options={})
        browser.open(link)
        answer = browser.http.post(link, data={"decision": "cancel"})
        page = browser.open(str(httpx2.URL(link).join(answer.headers["location"])))
        assert "<h1>Nothing was connected</h1>" in page.text
        assert "Nothing was stored" in page.text

    def test_an_unknown_link_is_refused(self, here: Installation, browser: Browser) -> None:
        refused(browser.open(f"{here.url}/connect/nonsense"), "not valid")

    def test_a_link_expires_after_ten_minutes(
        self, here: Installation, browser: Browser, user: str, clock: Clock
    ) -> None:
        link = here.backend.connect_url(user)
        clock.advance(599)
        assert browser.open(link).status_code == 200
        clock.advance(1)
        refused(browser.open(link), "This link is too old")
        failed(browser.http.post(link, data={"decision": "connect"}), "expired")
        assert nothing_stored(here.backend, user)

    def test_a_link_takes_one_person_to_the_provider(self, here: Installation, browser: Browser, user: str) -> None:
        link = here.backend.connect_url(user)
        browser.agree(link)
        stranger = here.browser()
        refused(stranger.open(link), "used already")
        stranger.open(here.backend.connect_url("mallory"))  # now it has a cookie, of its own
        refused(stranger.open(link), "used already")

    def test_a_second_browser_that_had_the_page_open_comes_too_late(
        self, here: Installation, browser: Browser, user: str
    ) -> None:
        link = here.backend.connect_url(user)
        other = here.browser()
        other.open(link)
        left = browser.agree(link)
        refused(other.http.post(link, data={"decision": "connect"}), "used already")
        refused(other.http.post(link, data={"decision": "cancel"}), "used already")
        assert came_back(browser.open(browser.allow(left)))["outboundStatus"] == "connected"

    def test_of_many_who_press_at_once_one_goes_on(self, here: Installation, user: str) -> None:
        link = here.backend.connect_url(user)
        people = [here.browser() for _ in range(8)]
        for one in people:
            one.open(link)
        with ThreadPoolExecutor(len(people)) as hands:
            with writers_wait(here.settings, "authorization_requests"):
                pressed = [hands.submit(one.http.post, link, data={"decision": "connect"}) for one in people]
                time.sleep(0.5)  # in which all of them find the link unused
            answers = [one.result() for one in pressed]
        assert sorted(answer.status_code for answer in answers) == [303] + [400] * 7

    def test_a_link_preview_uses_nothing_up(self, here: Installation, user: str) -> None:
        link = here.backend.connect_url(user)
        for _ in range(3):
            assert httpx2.get(link, headers={"User-Agent": "preview-robot"}, trust_env=False).status_code == 200
        here.browser().connect(link)
        assert here.backend.token(user)

    def test_a_robot_that_presses_the_button_without_a_cookie_uses_nothing_up(
        self, here: Installation, user: str
    ) -> None:
        link = here.backend.connect_url(user)
        page = {"Sec-Fetch-Site": "same-origin"}
        refused(httpx2.post(link, data={"decision": "connect"}, headers=page, trust_env=False), "Allow cookies")
        refused(httpx2.post(link, data={"decision": "connect"}, trust_env=False), "own page")
        assert here.browser().connect(link)["outboundStatus"] == "connected"

    @pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
    def test_another_sites_form_cannot_press_the_button(
        self, here: Installation, browser: Browser, user: str, site: str
    ) -> None:
        link = here.backend.connect_url(user)
        browser.open(link)
        answer = browser.http.post(link, data={"decision": "connect"}, headers={"Sec-Fetch-Site": site})
        refused(answer, "own page")
        assert browser.connect(link)["outboundStatus"] == "connected"

    def test_a_link_of_a_deleted_app_is_refused(
        self, here: Installation, browser: Browser, create_app: CreateApp, user: str
    ) -> None:
        app_id = create_app()
        link = here.backend.connect_url(user, appId=app_id)
        here.backend.post("app/delete", {"id": app_id})
        refused(browser.open(link), "start again")


class TestTheWayBack:
    @pytest.fixture
    def location(self, here: Installation, browser: Browser, user: str) -> str:
        """The callback address of a person who allowed everything, not yet opened."""
        return browser.allow(browser.agree(here.backend.connect_url(user)))

    def test_denied_at_the_provider(self, here: Installation, browser: Browser, user: str) -> None:
        denied = browser.allow(browser.agree(here.backend.connect_url(user)), action="deny")
        assert failed(browser.open(denied), "access_denied") == "The person said no."
        assert nothing_stored(here.backend, user)

    @pytest.mark.parametrize(
        ("state", "why"),
        [*((state, "belongs to no connection") for state in (None, "", "unknown")), ("\x00", "the NUL character")],
    )
    def test_an_unknown_state_is_refused(
        self, here: Installation, browser: Browser, user: str, location: str, state: str | None, why: str
    ) -> None:
        refused(browser.open(with_params(location, state=state)), why)
        assert nothing_stored(here.backend, user)

    def test_a_tampered_state_is_refused_and_the_true_one_still_works(self, browser: Browser, location: str) -> None:
        state = parse_qs(urlsplit(location).query)["state"][0]
        refused(browser.open(with_params(location, state=state[:-1] + "~")), "belongs to no connection")
        assert came_back(browser.open(location))["outboundStatus"] == "connected"

    def test_a_replayed_answer_brings_nothing_new_and_the_grant_stays(
        self, here: Installation, browser: Browser, user: str, location: str
    ) -> None:
        first = browser.open(location)
        refused(here.browser().open(location), "another browser")
        token = here.backend.token(user)
        assert browser.open(location).headers["location"] == first.headers["location"]
        assert here.backend.token(user) == token
        assert here.provider.state.code_replays == 0

    def test_of_many_answers_at_once_one_counts(
        self, here: Installation, browser: Browser, user: str, location: str
    ) -> None:
        before = here.provider.state.token_calls["authorization_code"]
        with ThreadPoolExecutor(8) as hands:
            answers = list(hands.map(browser.open, [location] * 8))
        assert {came_back(answer)["outboundStatus"] for answer in answers} == {"connected"}
        assert here.provider.state.token_calls["authorization_code"] == before + 1
        assert here.backend.token(user)

    def test_another_browser_cannot_finish_and_the_right_one_still_can(
        self, here: Installation, browser: Browser, user: str, location: str
    ) -> None:
        stranger = here.browser()
        refused(stranger.open(location), "another browser")
        stranger.open(here.backend.connect_url("mallory"))  # now it has a cookie, of its own
        refused(stranger.open(location), "another browser")
        assert nothing_stored(here.backend, user)
        assert came_back(browser.open(location))["outboundStatus"] == "connected"
        assert here.backend.token(user)

    def test_a_trip_expires_after_fifteen_minutes_at_the_provider(
        self, here: Installation, browser: Browser, user: str, clock: Clock
    ) -> None:
        leave = browser.agree(here.backend.connect_url(user))
        clock.advance(15 * 60)
        failed(browser.open(browser.allow(leave)), "expired")
        assert nothing_stored(here.backend, user)

    @pytest.mark.parametrize("iss", ["https://other.example.com", None, ""])
    def test_an_answer_of_another_issuer_or_of_none_is_refused_before_the_code_is_redeemed(
        self, here: Installation, browser: Browser, user: str, location: str, iss: str | None
    ) -> None:
        before = here.provider.state.token_calls["authorization_code"]
        failed(browser.open(with_params(location, iss=iss)), "issuer_mismatch")
        assert here.provider.state.token_calls["authorization_code"] == before
        assert nothing_stored(here.backend, user)

    def test_a_code_of_somebody_elses_invention_is_refused(
        self, here: Installation, browser: Browser, user: str, location: str
    ) -> None:
        failed(browser.open(with_params(location, code="invented")), "invalid_grant")
        assert nothing_stored(here.backend, user)

    def test_a_code_of_another_trip_is_refused(
        self, here: Installation, browser: Browser, user: str, location: str
    ) -> None:
        """An attacker's code in a victim's trip (RFC 9700 section 4.5): the verifier does not match."""
        theirs = here.browser()
        stolen = theirs.allow(theirs.agree(here.backend.connect_url("mallory")))
        code = parse_qs(urlsplit(stolen).query)["code"][0]
        failed(browser.open(with_params(location, code=code)), "invalid_grant")
        assert nothing_stored(here.backend, user)

    def test_a_code_that_was_redeemed_already_is_refused(
        self, here: Installation, browser: Browser, user: str, location: str
    ) -> None:
        here.provider.state.codes[parse_qs(urlsplit(location).query)["code"][0]].redeemed = True
        failed(browser.open(location), "invalid_grant")
        assert nothing_stored(here.backend, user)

    def test_an_answer_with_neither_code_nor_error_is_refused(
        self, here: Installation, browser: Browser, user: str, location: str
    ) -> None:
        failed(browser.open(with_params(location, code=None)), "invalid_response")
        assert nothing_stored(here.backend, user)

    def test_an_error_counts_even_beside_a_code(
        self, here: Installation, browser: Browser, user: str, location: str
    ) -> None:
        failed(browser.open(with_params(location, error="server_error")), "server_error")
        assert nothing_stored(here.backend, user)

    @pytest.mark.parametrize(
        ("fault", "err"),
        [
            (instead(500, "oops"), "temporarily_unavailable"),
            (instead(503, {"error": "temporarily_unavailable"}), "temporarily_unavailable"),
            (instead(429, "", headers={"Retry-After": "60"}), "temporarily_unavailable"),
            (html(200), "temporarily_unavailable"),
            (html(502), "temporarily_unavailable"),
            (half_a_body(), "temporarily_unavailable"),
            (dropped(), "temporarily_unavailable"),
            (edited(access_token=None), "temporarily_unavailable"),
            (instead(401, {"error": "invalid_client"}), "invalid_client"),
            (instead(400, {"error": "unauthorized_client"}), "unauthorized_client"),
        ],
    )
    def test_a_token_endpoint_that_fails_is_told_to_the_application(
        self, here: Installation, browser: Browser, user: str, location: str, fault: Fault, err: str
    ) -> None:
        here.provider.state.next_token_answers.append(fault)
        failed(browser.open(location), err)
        assert nothing_stored(here.backend, user)

    def test_an_app_that_is_deleted_in_mid_trip_ends_on_a_page(
        self, here: Installation, browser: Browser, create_app: CreateApp, user: str
    ) -> None:
        app_id = create_app()
        location = browser.allow(browser.agree(here.backend.connect_url(user, appId=app_id)))
        here.backend.post("app/delete", {"id": app_id})
        refused(browser.open(location), "start")

    @pytest.mark.parametrize(
        ("change", "sign_with", "why"),
        [
            ({"nonce": "another"}, None, "another trip"),
            ({"aud": "somebody-else"}, None, "another client"),
            ({"aud": ["evergrant", "somebody-else"], "azp": "somebody-else"}, None, "several clients"),
            ({"iss": "https://other.example.com"}, None, "another issuer"),
            ({"exp": -2 * 3600}, None, "expired"),
            ({}, ECKey.generate_key("P-256"), "signature"),
        ],
    )
    def test_an_id_token_that_is_not_for_this_trip_ends_it(
        self,
        here: Installation,
        browser: Browser,
        user: str,
        change: dict[str, Any],
        sign_with: ECKey | None,
        why: str,
    ) -> None:
        left = browser.agree(here.backend.connect_url(user))
        state, now = here.provider.state, int(time.time())
        change = {name: now + value if name in ("exp", "iat") else value for name, value in change.items()}
        claims: dict[str, Any] = {
            "iss": state.issuer,
            "sub": "practice-ada",
            "aud": "evergrant",
            "iat": now,
            "exp": now + 300,
            "nonce": parse_qs(urlsplit(left).query)["nonce"][0],
        } | change
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": "ES256", "kid": state.signing_key.kid}
        token = jwt.encode(header, claims, sign_with or state.signing_key)
        state.next_token_answers.append(edited(id_token=token))
        assert why in failed(browser.open(browser.allow(left)), "invalid_id_token")
        assert nothing_stored(here.backend, user)

    def test_a_hostile_error_text_is_shown_as_text_on_one_line(
        self, here: Installation, browser: Browser, user: str, location: str
    ) -> None:
        words = "<script>alert(1)</script>\r\nSet-Cookie: a=b\u202e" + "x" * 5000
        answer = browser.open(with_params(location, code=None, error="access_denied", error_description=words))
        shown = failed(answer, "access_denied")
        assert len(shown) <= 300
        assert shown.startswith("<script>alert(1)</script> Set-Cookie: a=b")
        assert "set-cookie" not in answer.headers


def test_a_provider_that_hangs_ends_the_trip_in_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    monkeypatch.setattr(pace, "PACE", pace.Pace(call=3.0))
    with installation(settings.model_copy(update={"refresher": False})) as here:
        browser = here.browser()
        location = browser.allow(browser.agree(here.backend.connect_url(user)))
        hanging = HeldBack()
        here.provider.state.next_token_answers.append(hanging)
        failed(browser.open(location), "temporarily_unavailable")
        hanging.released.set()
        assert nothing_stored(here.backend, user)
