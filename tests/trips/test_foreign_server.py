"""The whole job against an authorization server that we did not write: Authlib's own server framework."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.conftest import Clock
from tests.infra.foreign import ACCESS_TOKEN_SECONDS, CLIENT_ID, CLIENT_SECRET, ForeignServer, foreign_server
from tests.infra.installation import Installation, came_back

SCOPES = ["openid", "mail"]


@pytest.fixture(params=["client_secret_basic", "client_secret_post"])
def foreign(request: pytest.FixtureRequest) -> Iterator[ForeignServer]:
    """A foreign server that authenticates evergrant in this way and in no other."""
    with foreign_server(auth_method=request.param) as server:
        yield server


@pytest.fixture(params=["by its metadata", "by explicit URLs"])
def app_id(request: pytest.FixtureRequest, here: Installation, foreign: ForeignServer, user: str) -> str:
    """An app at the foreign server, configured in either way."""
    found = httpx2.get(f"{foreign.url}/.well-known/openid-configuration", trust_env=False).json()
    explicit = {
        "authorizationUrl": found["authorization_endpoint"],
        "tokenUrl": found["token_endpoint"],
        "issuer": found["issuer"],
        "jwksUrl": found["jwks_uri"],
        "tokenEndpointAuthMethod": found["token_endpoint_auth_methods_supported"][0],
    }
    app = here.backend.create_app(
        {
            "id": f"foreign-{user}",
            "name": f"Foreign {user}",
            "clientId": CLIENT_ID,
            "clientSecret": CLIENT_SECRET,
            "defaultScopes": SCOPES,
            **({"discoveryUrl": foreign.url} if request.param == "by its metadata" else explicit),
        }
    )
    foreign.client.redirect_uri = app["callbackUrl"]
    return f"foreign-{user}"


def test_connect_fetch_refresh_and_force(
    here: Installation, foreign: ForeignServer, app_id: str, user: str, clock: Clock
) -> None:
    browser = here.browser()
    at_the_server = browser.open(browser.agree(here.backend.connect_url(user, appId=app_id)))
    back = came_back(browser.open(at_the_server.headers["location"]))
    assert back == {"outboundAppId": app_id, "outboundStatus": "connected"}

    def fetch(**options: object) -> str:
        token = here.backend.token(user, appId=app_id, scopes=SCOPES, options=options)
        assert token["tokenSub"] == "carol"
        return str(token["accessToken"])

    first = fetch()
    assert first == fetch() == foreign.issued[-1].access_token

    clock.advance(ACCESS_TOKEN_SECONDS - 60)
    refreshed = fetch()
    assert refreshed == foreign.issued[-1].access_token != first

    clock.advance(10)
    forced = fetch(forceRefresh=True)
    assert forced == foreign.issued[-1].access_token != refreshed

    clock.advance(ACCESS_TOKEN_SECONDS)
    with ThreadPoolExecutor(8) as callers:
        answers = set(callers.map(lambda _: fetch(), range(8)))
    assert answers == {foreign.issued[-1].access_token}
    assert len(foreign.issued) == 4
    assert (foreign.reused, foreign.revoked) == (0, False)


def test_a_consent_that_ended_there_asks_for_a_new_one(
    here: Installation, foreign: ForeignServer, app_id: str, user: str
) -> None:
    browser = here.browser()
    at_the_server = browser.open(browser.agree(here.backend.connect_url(user, appId=app_id)))
    browser.open(at_the_server.headers["location"])
    foreign.revoked = True
    answer = here.backend.fetch(user, appId=app_id, scopes=SCOPES, options={"forceRefresh": True})
    assert answer.status_code == 404
    assert answer.json()["details"]["reason"] == "reauthorization_required"
