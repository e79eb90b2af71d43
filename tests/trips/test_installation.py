"""Connecting an installation: the provider says whose it is, and only its own tokens are kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.conftest import Clock
from tests.infra.installation import came_back
from tests.infra.rows import dump, expire
from tests.infra.scripted import Request
from tests.infra.sources import KEY, Sources, claims_of, obtaining


@dataclass
class Installed:
    """An app that is installed at a provider, where ada may use the installations 7 and 9."""

    sources: Sources
    app: str

    def connect(self, user: str, **answer: str) -> dict[str, str]:
        """Make the trip of a user who comes back with this answer, and return what the application is told."""
        here = self.sources.here
        browser = here.browser()
        location = urlsplit(browser.agree(here.backend.connect_url(user, appId=self.app)))
        assert location.path == "/install"
        params = {"state": parse_qs(location.query)["state"][0], **answer}
        back = browser.open(str(httpx2.URL(here.backend.app(self.app)["callbackUrl"], params=params)))
        return came_back(back)


@pytest.fixture(scope="module", params=["sqlite"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with obtaining(request, tmp_path_factory) as sources:

        def redeem(request: Request) -> Any:
            assert (request.form["code"], request.form["client_secret"]) == ("code-of-ada", "app-secret")
            return {"access_token": "ada-s-own-token", "token_type": "Bearer", "refresh_token": "ada-s-refresh-token"}

        def theirs(request: Request) -> Any:
            return 200 if request.headers["authorization"] == "Bearer ada-s-own-token" else 401, {}

        def give(request: Request) -> Any:
            assert claims_of(request.headers["authorization"].removeprefix("Bearer "))["iss"] == "ours"
            given = len(sources.provider.requests_to(request.path))
            return 201, {"token": f"installation-token-{given}", "expires_at": "2099-01-01T00:00:00Z"}

        sources.provider.routes = {
            "/token": redeem,
            "/me": {"id": 4711},
            "/installations/7": theirs,
            "/installations/7/token": give,
            "/installations/8": (404, {"message": "Not Found"}),
        }
        yield Installed(sources, sources.app("installed", signingKey=KEY.as_pem(private=True).decode()))


def test_an_installation_gets_tokens_of_its_own_and_its_installer_s_are_kept_nowhere(
    installed: Installed, clock: Clock, user: str
) -> None:
    sources = installed.sources
    back = installed.connect(user, code="code-of-ada", installation_id="7", setup_action="install")
    assert back["outboundStatus"] == "connected", back
    token = sources.fetch(installed.app, user).json()["token"]
    assert (token["accessToken"], token["tokenSub"]) == ("installation-token-1", "4711")
    assert token["details"]["installation_id"] == "7"
    expire(sources.here.settings, user)
    assert sources.token(installed.app, user) == "installation-token-2"
    assert len(sources.provider.requests_to("/token")) == 1
    assert "ada-s" not in repr(dump(sources.here.settings))


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ({"code": "code-of-ada", "installation_id": "8"}, "access_denied", "the installation 8 is not this person's"),
        ({"code": "code-of-ada", "setup_action": "request"}, "installation_pending", "an owner of the account has to"),
        ({"installation_id": "7"}, "invalid_response", "let it request user authorization"),
        ({"code": "code-of-ada", "installation_id": "7/../9"}, "invalid_response", "installation_id"),
    ],
    ids=["somebody else's", "not approved yet", "without a code", "no id at all"],
)
def test_an_installation_that_is_not_known_to_be_theirs_is_not_connected(
    installed: Installed, user: str, answer: dict[str, str], error: str, words: str
) -> None:
    before = len(installed.sources.provider.requests_to("/installations/7/token"))
    back = installed.connect(user, **answer)
    assert (back["outboundStatus"], back["err"]) == ("failed", error), back
    assert words in back["errDescription"]
    assert len(installed.sources.provider.requests_to("/installations/7/token")) == before
    assert installed.sources.fetch(installed.app, user).status_code == 404
