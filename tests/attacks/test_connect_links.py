"""Connect trips in wrong hands: links sent to victims, callbacks replayed or made up, codes of somebody else."""

from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.infra.installation import APP_ID, Browser, Installation, came_back
from tests.infra.rows import rows


def with_params(url: str, **params: str) -> str:
    """Return the URL with these parameters in place of its own of the same name."""
    address = httpx2.URL(url)
    return str(address.copy_with(params={**{k: v[-1] for k, v in parse_qs(address.query.decode()).items()}, **params}))


def stored(here: Installation, user: str) -> int:
    """Count what is stored for a user, also what nobody may use yet."""
    return sum(row["user_id"] == user for row in rows(here.settings, "grants"))


def refused(answer: httpx2.Response) -> bool:
    """Whether it is a page of evergrant's that ends the trip, and leads nowhere."""
    return answer.status_code == 400 and "location" not in answer.headers


def on_the_way_back(here: Installation, user: str, app_id: str = APP_ID) -> tuple[Browser, str]:
    """Return a person's browser after everything was allowed, and the callback that it has not opened yet."""
    browser = here.browser()
    return browser, browser.allow(browser.agree(here.backend.connect_url(user, appId=app_id)))


def test_an_attacker_whose_link_a_victim_finishes_gets_nothing_of_the_victims(here: Installation, user: str) -> None:
    """With `requireConfirmation`, a connection counts once the backend said whose session it came back to."""
    attacker, victim = f"attacker-{user}", f"victim-{user}"
    app_id = here.backend.new_app(here.provider.registration, requireConfirmation=True)

    def finish(whose_link: str, whose_session: str) -> httpx2.Response:
        back = here.browser().connect(here.backend.connect_url(whose_link, appId=app_id))
        return here.backend.post("app/connect/confirm", {"confirmation": back["confirmation"], "userId": whose_session})

    assert finish(attacker, victim).status_code == 404
    for person in (attacker, victim):
        assert here.backend.fetch(person, appId=app_id).status_code == 404
        assert stored(here, person) == 0
    assert finish(victim, victim).status_code == 200  # control
    assert here.backend.token(victim, appId=app_id)


def test_a_victim_is_told_on_the_page_for_whom_a_link_connects(here: Installation, user: str) -> None:
    page = here.browser().open(here.backend.connect_url(f"attacker-{user}"))
    assert "Shop" in page.text
    assert f"attacker-{user}" in page.text
    assert "Practice contacts" in page.text


def test_a_stolen_link_that_was_used_takes_nobody_to_the_provider(here: Installation, user: str) -> None:
    link = here.backend.connect_url(user)
    browser = here.browser()
    left = browser.agree(link)
    thief = here.browser()
    assert refused(thief.open(link))
    thief.open(here.backend.connect_url(f"thief-{user}"))  # now it has a cookie, of its own
    assert refused(thief.open(link))
    assert refused(thief.http.post(link, data={"decision": "connect"}))
    assert came_back(browser.open(browser.allow(left)))["outboundStatus"] == "connected"  # control


def test_a_callback_that_another_browser_brings_connects_nobody(here: Installation, user: str) -> None:
    """Login CSRF: the attacker makes the trip, and lets the victim's browser open its end."""
    browser, callback = on_the_way_back(here, user)
    redeemed = here.provider.state.token_calls["authorization_code"]
    victim = here.browser()
    assert refused(victim.open(callback))
    victim.open(here.backend.connect_url(f"victim-{user}"))
    assert refused(victim.open(callback))
    assert here.provider.state.token_calls["authorization_code"] == redeemed
    assert stored(here, user) == 0
    assert came_back(browser.open(callback))["outboundStatus"] == "connected"  # control: the right one still can


def test_a_forged_state_is_nobodys_trip(here: Installation, user: str) -> None:
    browser, callback = on_the_way_back(here, user)
    state = parse_qs(urlsplit(callback).query)["state"][0]
    redeemed = here.provider.state.token_calls["authorization_code"]
    for forged in ("", "invented", state[:-1], state + "x", state.swapcase(), f"{state}\x00", f"{state},{state}"):
        assert refused(browser.open(with_params(callback, state=forged))), forged
    assert here.provider.state.token_calls["authorization_code"] == redeemed
    assert came_back(browser.open(callback))["outboundStatus"] == "connected"  # control


def test_an_attackers_code_in_a_victims_trip_is_not_redeemed_for_the_victim(here: Installation, user: str) -> None:
    """PKCE: a code is worth something only together with the verifier of the trip that asked for it.

    The app asks for no id_token, whose nonce would say so too.
    """
    app_id = here.backend.new_app(here.provider.registration, defaultScopes=["contacts.readonly"])
    _, attackers = on_the_way_back(here, f"attacker-{user}", app_id)
    browser, callback = on_the_way_back(here, user, app_id)
    code = parse_qs(urlsplit(attackers).query)["code"][0]
    assert came_back(browser.open(with_params(callback, code=code)))["outboundStatus"] == "failed"
    assert stored(here, user) == 0
    browser, callback = on_the_way_back(here, user, app_id)
    assert came_back(browser.open(callback))["outboundStatus"] == "connected"  # control


def test_a_replayed_callback_redeems_nothing_and_changes_nothing(here: Installation, user: str) -> None:
    browser, callback = on_the_way_back(here, user)
    assert came_back(browser.open(callback))["outboundStatus"] == "connected"  # control
    token = here.backend.token(user)
    redeemed = here.provider.state.token_calls["authorization_code"]
    for replayer in (here.browser(), browser):
        replayer.open(callback)
        replayer.open(with_params(callback, code="another"))
    assert here.provider.state.token_calls["authorization_code"] == redeemed
    assert here.provider.state.code_replays == 0
    assert here.backend.token(user) == token


def test_an_answer_that_names_another_server_is_refused_before_its_code_is_redeemed(
    here: Installation, user: str
) -> None:
    """Mix-up, where the app knows its issuer. Servers that do not say who they are: tests/trips/test_mixup.py."""
    redeemed = here.provider.state.token_calls["authorization_code"]
    for iss in ("https://attacker.example", f"{here.provider.url}.evil.example", f"{here.provider.url}/other", ""):
        browser, callback = on_the_way_back(here, user)
        assert came_back(browser.open(with_params(callback, iss=iss)))["err"] == "issuer_mismatch"
    assert here.provider.state.token_calls["authorization_code"] == redeemed
    assert stored(here, user) == 0
    browser, callback = on_the_way_back(here, user)
    assert came_back(browser.open(callback))["outboundStatus"] == "connected"  # control


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_a_form_on_the_attackers_page_does_not_press_connect(here: Installation, user: str, site: str) -> None:
    link = here.backend.connect_url(user)
    browser = here.browser()
    browser.open(link)
    assert refused(browser.http.post(link, data={"decision": "connect"}, headers={"Sec-Fetch-Site": site}))
    own = browser.http.post(link, data={"decision": "connect"}, headers={"Sec-Fetch-Site": "same-origin"})
    assert own.status_code == 303  # control


def test_a_link_names_only_the_app_and_user_of_the_backend_that_made_it(here: Installation, user: str) -> None:
    """Nothing in a link can be edited: it is one random word."""
    link = here.backend.connect_url(user)
    word = urlsplit(link).path.rpartition("/")[2]
    assert len(word) >= 43
    assert user not in link
    assert APP_ID not in link
    browser = here.browser()
    for edited in (word[:-1], word.swapcase(), f"{word}x", f"{word}%00", "../connect/" + word[1:]):
        assert browser.open(f"{here.url}/connect/{edited}").status_code in (400, 404), edited
    assert browser.connect(f"{link}?userId=attacker&appId=other")["outboundStatus"] == "connected"
    assert here.backend.token(user)
    assert here.backend.fetch("attacker").status_code == 404
