"""Good callers are never locked out by bad ones, whatever they share with them; and nobody makes evergrant grow."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import httpx2
import pytest

from evergrant.broker.runtime.limits import MAX_REMEMBERED, RateLimit
from evergrant.errors import RateLimited
from evergrant.settings import Settings
from tests.infra.installation import APP_ID, BACK, Browser, Installation, came_back, installation
from tests.infra.issuer import Issuer
from tests.infra.people import connect, fetch, someone, trust
from tests.infra.rows import rows
from tests.infra.scripted import serving

Ask = Callable[[], httpx2.Response]

GUESS = "a-guess-that-is-as-long-as-keys-are"


@contextmanager
def limited(settings: Settings, **limits: int) -> Iterator[Installation]:
    """An installation with limits, which tests do not have otherwise."""
    with installation(settings.model_copy(update={"refresher": False, **limits})) as here:
        yield here


@pytest.fixture
def here(settings: Settings) -> Iterator[Installation]:
    """An address may be wrong once a second, and 10 times at once."""
    with limited(settings, rate_limit_per_address=1) as running:
        yield running


def flood(ask: Ask, *, times: int = 500) -> httpx2.Response:
    """Ask until it is too much, and return that answer."""
    answer = ask()
    for _ in range(times):
        if answer.status_code == 429:
            return answer
        answer = ask()
    raise AssertionError(f"{answer.status_code} after {times} times")


def guess(here: Installation, address: str = "") -> httpx2.Response:
    headers = {"Authorization": f"Bearer {here.backend.project_id}:{GUESS}"}
    if address:
        headers["X-Forwarded-For"] = address
    return httpx2.get(f"{here.url}/v1/mgmt/outbound/apps", headers=headers, trust_env=False)


def fresh_key(here: Installation) -> str:
    answer = here.backend.http.put("/v1/mgmt/managementkey", json={"name": someone(), "permissions": ["apps:read"]})
    return str(answer.json()["cleartext"])


def test_an_attacker_who_floods_with_wrong_keys_locks_nobody_out_of_the_same_address(here: Installation) -> None:
    """The innocent are not punished for sharing an address with the guilty."""
    user = someone()
    fresh = {"Authorization": f"Bearer {here.backend.project_id}:{fresh_key(here)}"}
    with serving(Issuer()) as idp:
        trust(here.backend, idp)
        here.connected(user)
        assert flood(lambda: guess(here)).headers["retry-after"]
        for _ in range(20):  # with the flood going on
            assert here.backend.get("apps").status_code == 200
            guess(here)
        first_use = httpx2.get(f"{here.url}/v1/mgmt/outbound/apps", headers=fresh, trust_env=False)
        assert first_use.status_code == 200, "a key that was never used before"
        assert fetch(here, idp.access(user), user).status_code == 200, "a user who was never here before"
        assert here.browser().open(here.backend.connect_url(user)).status_code == 200, "a browser"
    assert flood(lambda: guess(here)).status_code == 429, "and who is wrong still waits"


def test_an_attacker_who_opens_links_that_nobody_made_keeps_nobody_from_connecting(here: Installation) -> None:
    """A person with a link, and a provider that reads who we are, are behind the same address as the flood."""
    user, browser = someone(), here.browser()
    link = here.backend.connect_url(user)
    with Browser().http as http:
        for path in ("/connect/nobodys", "/v1/outbound/oauth/callback?state=nobodys", "/oauth-client/P/nobodys.json"):
            assert flood(partial(http.get, here.url + path)).status_code == 429
    assert browser.connect(link)["outboundStatus"] == "connected"
    assert here.backend.token(user)["accessToken"]
    assert guess(here).status_code == 401, "pages and credentials are counted apart"


def test_an_attacker_who_asks_for_the_pages_of_a_trip_again_and_again_holds_up_that_trip_alone(
    here: Installation,
) -> None:
    """Each page of a trip costs reads, and writes: who has one link does not get any number of them."""
    mine, other = (here.backend.connect_url(someone()) for _ in range(2))
    with Browser().http as http:
        assert flood(lambda: http.get(mine)).status_code == 429
        assert flood(lambda: http.post(mine, data={"decision": "connect"})).status_code == 429
    assert here.browser().connect(other)["outboundStatus"] == "connected"


def test_an_attacker_with_a_whole_ipv6_network_has_one_limit(here: Installation) -> None:
    """Whoever has one IPv6 address has 2^64 of them: they count as one, and as no other network's."""
    own = (f"2001:db8:1:2::{number:x}" for number in itertools.count(1))
    assert flood(lambda: guess(here, next(own)), times=60).status_code == 429
    assert guess(here, "2001:db8:1:3::1").status_code == 401
    assert flood(lambda: guess(here, "::ffff:192.0.2.1"), times=60).status_code == 429
    assert guess(here, "192.0.2.1").status_code == 429, "the same address, written otherwise"
    assert guess(here, "::ffff:192.0.2.2").status_code == 401


def test_an_attacker_with_many_addresses_resets_nobody_who_is_at_the_limit() -> None:
    """Memory is bounded by forgetting those who have most left, never everybody."""
    limit = RateLimit(2, seconds=100_000.0, saved=1)
    for caller in ("first", "second"):
        limit.take(caller)
        limit.take(caller)
    for number in range(3 * MAX_REMEMBERED):
        limit.take(number)
        assert len(limit) <= MAX_REMEMBERED
    for caller in ("first", "second"):
        with pytest.raises(RateLimited):
            limit.take(caller)
    limit.take("somebody new")


def test_a_user_who_floods_is_limited_alone_and_its_project_goes_on(settings: Settings) -> None:
    """A user's limit is its own: the key of its project, and other users, have theirs."""
    user, other = someone(), someone()
    with limited(settings, rate_limit_per_user=2) as here, serving(Issuer()) as idp:
        trust(here.backend, idp)
        here.connected(user)
        here.connected(other)
        token = idp.access(user)
        answer = flood(lambda: fetch(here, token, user))
        assert answer.headers["x-ratelimit-limit"] == "2"
        assert (answer.headers["x-ratelimit-remaining"], answer.headers["x-ratelimit-reset"]) == ("0", "1")
        assert fetch(here, idp.access(other), other).status_code == 200
        assert here.backend.fetch(user).headers["x-ratelimit-limit"] == "3000"
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": APP_ID,
        }
        exchanged = flood(lambda: httpx2.post(f"{here.url}/oauth2/v1/token", data=form, trust_env=False))
        assert exchanged.json()["error"] == "temporarily_unavailable"
        assert exchanged.headers["x-ratelimit-limit"] == "2"


def test_a_user_who_begins_trips_without_end_fills_no_table(settings: Settings) -> None:
    """Each trip is a row, and a record in a log that nobody clears: a user begins so many a minute, a backend more."""
    user = someone()
    with limited(settings, connects_per_user=3) as here, serving(Issuer()) as idp:
        trust(here.backend, idp)
        session = idp.session(user)
        before = len(rows(here.settings, "audit_events"))
        answers = [connect(here, session) for _ in range(12)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert [answer.status_code for answer in answers[:3]] == [200] * 3
        assert len(refused) >= 8
        assert refused[0].headers["x-ratelimit-limit"] == "3"
        assert int(refused[0].headers["retry-after"]) > 1
        began = len(answers) - len(refused)
        assert len(rows(here.settings, "authorization_requests")) == began
        assert len(rows(here.settings, "audit_events")) <= before + began + 1, "and perhaps a key's new address"
        assert connect(here, idp.session(someone())).status_code == 200
        for _ in range(5):
            assert here.backend.connect_url(user)


def test_a_user_who_is_denied_again_and_again_writes_one_record(settings: Settings) -> None:
    """A denial is always told, and recorded once a minute: the log is nobody's to fill."""
    user, other = someone(), someone()
    with limited(settings) as here, serving(Issuer()) as idp:
        trust(here.backend, idp)
        here.backend.post("policies", {"appId": APP_ID, "action": "fetch", "claims": {"role": ["admin"]}})
        tokens = {name: idp.access(name) for name in (user, other)}
        assert {fetch(here, tokens[user], user).status_code for _ in range(10)} == {403}
        assert fetch(here, tokens[other], other).status_code == 403
        denied = [event for event in rows(here.settings, "audit_events") if event["action"] == "policy.denied"]
        assert [event["actor"] for event in denied] == [f"user:{user}", f"user:{other}"]


def test_a_stranger_who_brings_somebodys_answer_again_and_again_writes_one_record(settings: Settings) -> None:
    """An answer in another browser is refused each time, and recorded once a minute; its own browser still ends it."""
    user = someone()
    with limited(settings) as here:
        browser = here.browser()
        callback = browser.allow(browser.agree(here.backend.connect_url(user, options={"redirectUrl": BACK})))
        with Browser().http as http:
            assert {http.get(callback).status_code for _ in range(5)} == {400}
        failed = [event for event in rows(here.settings, "audit_events") if event["action"] == "grant.connect_failed"]
        assert len(failed) == 1
        assert came_back(browser.open(callback))["outboundStatus"] == "connected"
