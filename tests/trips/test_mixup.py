"""Mix-up: an answer to one app's question, passed off as another's, never gets to the other's server (RFC 9700 4.4)."""

from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest

from tests.infra.installation import Installation, came_back
from tests.infra.rows import execute
from tests.infra.scripted import Request, ScriptedProvider, answer, serving

SHARED = "/v1/outbound/oauth/callback"


def own(here: Installation, app_id: str) -> str:
    return str(here.backend.app(app_id)["callbackUrl"])


def as_before(here: Installation, *app_ids: str) -> None:
    """Let these apps share the old callback address, as apps do that were made by an earlier version."""
    for app_id in app_ids:
        execute(here.settings, f"UPDATE outbound_apps SET own_callback = false WHERE id = '{app_id}'")


class Attack:
    """An honest app and an evil one, whose authorization endpoint sends the browser on to the honest server."""

    def __init__(self, here: Installation, user: str, honest: ScriptedProvider, evil: ScriptedProvider) -> None:
        self.here, self.user, self.honest, self.evil = here, user, honest, evil
        self.browser = here.browser()
        self.iss = ""
        self.honest_app, self.evil_app = f"honest-{user}", f"evil-{user}"
        here.backend.create_app(honest.registration(self.honest_app))
        here.backend.create_app(evil.registration(self.evil_app))
        honest.routes["/authorize"] = self._consent
        evil.routes["/authorize"] = self._bounce

    def _bounce(self, request: Request) -> bytes:
        theirs = {**request.query, "redirect_uri": own(self.here, self.honest_app)}
        return answer(302, location=f"{self.honest.url}/authorize?{urlencode(theirs)}")

    def _consent(self, request: Request) -> bytes:
        """The honest server answers the client that it knows, at the address that is registered."""
        assert request.query["redirect_uri"] == own(self.here, self.honest_app)
        params = {"code": "honest-code", "state": request.query["state"], **({"iss": self.iss} if self.iss else {})}
        return answer(302, location=f"{request.query['redirect_uri']}?{urlencode(params)}")

    def run(self) -> httpx2.Response:
        """Connect the evil app, and go wherever the browser is sent; return what evergrant says in the end."""
        browser = self.browser
        bounced = browser.open(browser.agree(self.here.backend.connect_url(self.user, appId=self.evil_app)))
        callback = browser.open(bounced.headers["location"]).headers["location"]
        return browser.open(callback)


@pytest.fixture
def evil() -> Any:
    with serving(ScriptedProvider({"/token": {"access_token": "of-the-attacker", "token_type": "Bearer"}})) as provider:
        yield provider


@pytest.fixture
def attack(here: Installation, user: str, scripted: ScriptedProvider, evil: ScriptedProvider) -> Attack:
    return Attack(here, user, scripted, evil)


def test_the_code_of_an_honest_server_never_reaches_the_attackers(attack: Attack) -> None:
    end = attack.run()
    assert came_back(end)["err"] == "callback_mismatch"
    assert attack.evil.requests_to("/token") == attack.honest.requests_to("/token") == []
    assert attack.here.backend.fetch(attack.user, appId=attack.evil_app, scopes=["files"]).status_code == 404


@pytest.mark.parametrize("old", ["honest", "evil"])
def test_one_of_the_two_with_an_address_of_its_own_is_enough(attack: Attack, old: str) -> None:
    as_before(attack.here, f"{old}-{attack.user}")
    end = attack.run()
    assert came_back(end)["err"] == "callback_mismatch"
    assert attack.evil.requests_to("/token") == []


def test_at_a_shared_address_an_iss_that_the_app_does_not_know_is_refused(attack: Attack) -> None:
    as_before(attack.here, attack.honest_app, attack.evil_app)
    attack.iss = attack.honest.url
    end = attack.run()
    back = came_back(end)
    assert back["err"] == "issuer_mismatch"
    assert f"is from {attack.honest.url}" in back["errDescription"]
    assert "set the app's issuer" in back["errDescription"]
    assert attack.evil.requests_to("/token") == []


def test_a_trip_whose_answer_came_to_another_address_is_over(attack: Attack) -> None:
    end = attack.run()
    state = attack.evil.requests_to("/authorize")[0].query["state"]
    later = attack.browser.open(f"{own(attack.here, attack.evil_app)}?code=another&state={state}")
    assert later.headers["location"] == end.headers["location"]
    assert attack.evil.requests_to("/token") == []


def test_an_iss_at_the_origin_of_an_endpoint_is_the_apps_provider(
    here: Installation, user: str, scripted: ScriptedProvider
) -> None:
    app_id = f"plain-{user}"
    callback = here.backend.create_app(scripted.registration(app_id))["callbackUrl"]
    browser = here.browser()
    state = parse_qs(urlsplit(browser.agree(here.backend.connect_url(user, appId=app_id))).query)["state"][0]
    end = browser.open(f"{callback}?{urlencode({'code': 'c', 'state': state, 'iss': f'{scripted.url}/realms/one'})}")
    assert came_back(end)["outboundStatus"] == "connected"


@pytest.mark.parametrize("post", [False, True], ids=["query", "form_post"])
def test_both_kinds_of_addresses_take_both_kinds_of_answers(
    here: Installation, user: str, scripted: ScriptedProvider, post: bool
) -> None:
    for old in (False, True):
        app_id = f"app-{old}-{user}"
        here.backend.create_app(scripted.registration(app_id))
        if old:
            as_before(here, app_id)
        callback = own(here, app_id)
        assert urlsplit(callback).path.startswith(SHARED if old else f"{SHARED}/")
        browser = here.browser()
        left = browser.agree(here.backend.connect_url(user, appId=app_id))
        asked = parse_qs(urlsplit(left).query)
        assert asked["redirect_uri"] == [callback]
        params = {"code": "c", "state": asked["state"][0]}
        if post:
            posted = httpx2.post(callback, data=params, trust_env=False)
            end = browser.open(here.url + posted.headers["location"])
        else:
            end = browser.open(f"{callback}?{urlencode(params)}")
        assert came_back(end)["outboundStatus"] == "connected"
        assert scripted.forms_at("/token")[-1]["redirect_uri"] == callback


class TestMoving:
    def test_an_app_from_before_says_so_and_tells_its_address_beforehand(
        self, here: Installation, user: str, scripted: ScriptedProvider
    ) -> None:
        app_id = f"old-{user}"
        wanted = here.backend.create_app(scripted.registration(app_id))
        assert (wanted["ownCallback"], wanted["warnings"]) == (True, [])
        as_before(here, app_id)
        old = here.backend.app(app_id)
        assert (old["callbackUrl"], old["ownCallback"]) == (here.url + SHARED, False)
        (warning,) = old["warnings"]
        assert warning["code"] == "shared_callback"
        assert f"register {wanted['callbackUrl']} at the provider" in warning["text"]
        assert old in here.backend.get("apps").json()["apps"]

        kept = here.backend.post("app/update", {"app": {**old, "description": "changed"}}).json()["app"]
        assert kept["callbackUrl"] == old["callbackUrl"]
        del old["ownCallback"]  # as an SDK sends it that does not know the field
        assert here.backend.post("app/update", {"app": old}).json()["app"]["callbackUrl"] == old["callbackUrl"]
        moved = here.backend.post("app/update", {"app": {**old, "ownCallback": True}}).json()["app"]
        assert (moved["callbackUrl"], moved["ownCallback"], moved["warnings"]) == (wanted["callbackUrl"], True, [])
        assert here.backend.post("app/update", {"app": old}).json()["app"]["callbackUrl"] == wanted["callbackUrl"]

    @pytest.mark.parametrize("path", ["app/create", "app/update"])
    def test_an_app_that_has_an_address_of_its_own_keeps_it(
        self, here: Installation, user: str, scripted: ScriptedProvider, path: str
    ) -> None:
        app = scripted.registration(f"new-{user}", ownCallback=False)
        if path == "app/update":
            here.backend.create_app({**app, "ownCallback": True})
        refused = here.backend.post(path, app if path == "app/create" else {"app": app})
        assert refused.status_code == 400
        (problem,) = refused.json()["details"]["fields"]
        assert problem["field"].endswith("ownCallback")
        assert "keeps it" in problem["problem"]

    def test_a_trip_that_is_under_way_ends_where_it_was_asked_to(
        self, here: Installation, user: str, scripted: ScriptedProvider
    ) -> None:
        app_id = f"moving-{user}"
        here.backend.create_app(scripted.registration(app_id))
        as_before(here, app_id)
        browser = here.browser()
        left = browser.agree(here.backend.connect_url(user, appId=app_id))
        here.backend.post("app/update", {"app": {**here.backend.app(app_id), "ownCallback": True}})
        state = parse_qs(urlsplit(left).query)["state"][0]
        end = browser.open(f"{here.url}{SHARED}?code=c&state={state}")
        assert came_back(end)["outboundStatus"] == "connected"
        assert scripted.forms_at("/token")[-1]["redirect_uri"] == here.url + SHARED

    def test_an_app_that_registers_by_itself_says_what_moving_costs(self, here: Installation, user: str) -> None:
        fields = {"name": user, "useDcr": True, "dcrUrl": f"{here.provider.url}/register"}
        app_id = here.backend.create_app({"id": f"dcr-{user}", **fields})["id"]
        as_before(here, app_id)
        (warning,) = here.backend.app(app_id)["warnings"]
        assert "registers it anew" in warning["text"]
