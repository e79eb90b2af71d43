"""Signing in with the operators' own identity provider: who comes in, as what, and who does not."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from playwright.sync_api import Browser, expect
from pydantic import SecretStr

from evergrant.operator_rules import is_allowed, role_of
from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.infra.chromium import Person
from tests.infra.console import words_of
from tests.infra.databases import settings_for
from tests.infra.installation import CLIENT_ID, CLIENT_SECRET, Provider, new_project, practice_provider
from tests.infra.installation import Browser as Visitor
from tests.infra.issuer import Issuer
from tests.infra.rows import rows
from tests.infra.scripted import serving
from tests.infra.serving import LiveApp

ADA, GRACE = "practice-ada", "practice-grace"


class House:
    """An evergrant whose operators sign in at the practice provider."""

    def __init__(self, settings: Settings, provider: Provider) -> None:
        self.settings, self.provider, self.url = settings, provider, settings.public_url
        self.visitors: list[Visitor] = []

    def visit(self) -> Visitor:
        """Return a new person's browser."""
        self.visitors.append(Visitor())
        return self.visitors[-1]

    def leave(self, visitor: Visitor, then: str = "") -> str:
        """Follow the link of the sign-in page, and return the provider's address."""
        answer = visitor.http.get(f"{self.url}/console/oidc/start", params={"then": then})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def sign_in(self, visitor: Visitor, person: str = ADA, then: str = "", **choices: Any) -> httpx2.Response:
        """Go there and back, and return what the callback answers."""
        return visitor.open(visitor.allow(self.leave(visitor, then), person=person, **choices))


@pytest.fixture(scope="module")
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    request.param = "sqlite"
    with settings_for(request, tmp_path_factory, log_level="warning") as plain, practice_provider() as provider:
        provider.state.redirect_uris.add(f"{plain.public_url}/console/oidc/callback")
        settings = plain.model_copy(
            update={
                "console_oidc_issuer": provider.url,
                "console_oidc_client_id": CLIENT_ID,
                "console_oidc_client_secret": SecretStr(CLIENT_SECRET),
                "console_oidc_allow": ("ada@example.com",),
                "console_oidc_roles": ("operator", "name:Ada Example=admin"),
            }
        )
        new_project(settings)
        with LiveApp(create_app(settings), port=urlsplit(settings.public_url).port or 0):
            house = House(settings, provider)
            yield house
            for visitor in house.visitors:
                visitor.http.close()


def test_an_operator_comes_in_by_their_provider_and_to_the_page_they_wanted(house: House, browser: Browser) -> None:
    with Person(browser) as person:
        page = person.tab()
        page.goto(f"{house.url}/console")
        page.get_by_role("link", name="Sign in with 127.0.0.1").click()
        page.get_by_text("Ada Example").click()
        page.get_by_role("button", name="Allow").click()
        expect(page.get_by_text("ada@example.com")).to_be_visible()
        expect(page.get_by_text("Signed in by your provider")).to_be_visible()
        assert not person.complaints
    signed_in = [row for row in rows(house.settings, "audit_events") if row["action"] == "console.signed_in"]
    assert '"operator": "ada@example.com"' in str(signed_in[-1]["data"]).replace("'", '"')
    visitor = house.visit()
    then = house.sign_in(visitor, then="/console/P/keys").headers["location"]
    assert then == "/console/P/keys"
    assert house.sign_in(house.visit(), then="https://evil.example/console/").headers["location"] == "/console"


def test_the_wrong_person_is_refused_in_plain_words_and_written_down(house: House) -> None:
    visitor = house.visit()
    refused = house.sign_in(visitor, person=GRACE)
    assert refused.status_code == 403
    assert "Your provider says that you are grace@example.com, who may not sign in" in words_of(refused)
    assert visitor.open(f"{house.url}/console").status_code == 303
    actions = [row["action"] for row in rows(house.settings, "audit_events")]
    assert actions.count("console.sign_in_refused") == 1
    house.sign_in(house.visit(), person=GRACE)
    actions = [row["action"] for row in rows(house.settings, "audit_events")]
    assert actions.count("console.sign_in_refused") == 1, "at most one a minute: the provider may know everybody"


def test_an_answer_counts_once_and_only_in_the_browser_that_left(house: House) -> None:
    victim, attacker = house.visit(), house.visit()
    answer = attacker.allow(house.leave(attacker), person=ADA)
    assert "not for this browser" in words_of(victim.open(answer))
    house.leave(victim)
    assert victim.open(answer).status_code == 400, "nor where another trip is under way"
    assert attacker.open(answer).status_code == 303
    assert attacker.open(answer).status_code == 400, "it was used already"


def test_an_answer_of_another_provider_and_a_no_are_told(house: House) -> None:
    visitor = house.visit()
    answer = visitor.allow(house.leave(visitor), person=ADA)
    mixed_up = answer.replace("iss=http", "iss=https")
    assert mixed_up != answer
    assert "another provider than the one that was asked" in words_of(visitor.open(mixed_up))
    visitor = house.visit()
    said_no = visitor.open(visitor.allow(house.leave(visitor), action="deny"))
    assert said_no.status_code == 400
    assert "Your provider did not sign you in" in words_of(said_no)


@pytest.fixture(scope="module")
def idp() -> Iterator[Issuer]:
    with serving(Issuer()) as running:
        yield running


@pytest.fixture(scope="module")
def strict(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, idp: Issuer) -> Iterator[Settings]:
    """An evergrant whose provider says what a test wants."""
    request.param = "sqlite"
    with settings_for(request, tmp_path_factory, log_level="error") as plain:
        settings = plain.model_copy(
            update={
                "console_oidc_issuer": idp.url,
                "console_oidc_client_id": "console",
                "console_oidc_allow": ("groups=staff", "@example.com"),
            }
        )
        new_project(settings)
        with LiveApp(create_app(settings), port=urlsplit(settings.public_url).port or 0):
            yield settings


@pytest.mark.parametrize(
    ("changes", "status", "why"),
    [
        ({}, 303, ""),
        ({"groups": ["others"], "email": "mallory@example.com", "email_verified": False}, 403, "you are alice"),
        ({"groups": ["others"], "email": "bob@sub.example.com", "email_verified": True}, 403, "bob@sub.example.com"),
        ({"nonce": "of another trip"}, 400, "it belongs to another trip"),
        ({"nonce": ...}, 400, "it belongs to another trip"),
        ({"aud": "somebody else"}, 400, "it is for another client"),
        ({"aud": ["console", "other"]}, 400, "it is for several clients"),
        ({"azp": "other"}, 400, "issued to another client"),
        ({"iss": "https://evil.example"}, 400, "it is from another issuer"),
        ({"exp": 1_000_000_000}, 400, "it has expired"),
        ({"sub": ...}, 400, "it names no subject"),
    ],
)
def test_an_id_token_is_believed_wholly_or_not_at_all(
    changes: dict[str, Any], status: int, why: str, strict: Settings, idp: Issuer
) -> None:
    with httpx2.Client(base_url=strict.public_url, trust_env=False) as http:
        away = parse_qs(urlsplit(http.get("/console/oidc/start").headers["location"]).query)
        assert away["code_challenge_method"] == ["S256"]
        claims = {"aud": "console", "nonce": away["nonce"][0], "groups": ["staff"], **changes}
        token = {"access_token": "a", "token_type": "Bearer", "id_token": idp.session("alice", **claims)}
        idp.routes["/token"] = token
        answer = http.get("/console/oidc/callback", params={"code": "c", "state": away["state"][0]})
        assert answer.status_code == status, words_of(answer)
        assert why in words_of(answer)
        assert (http.get("/console").headers["location"] == "/console/sign-in?then=%2Fconsole") == (status != 303)


def test_rules_say_who_comes_in_and_as_what() -> None:
    ada = {"sub": "1", "email": "Ada@Example.com", "email_verified": True, "groups": ["admins", "staff"]}
    assert is_allowed(["ada@example.com"], ada)
    assert is_allowed(["@example.com"], ada)
    assert is_allowed(["groups=staff"], ada)
    assert not is_allowed(["@ample.com", "example.com@example.com", "groups=staf", "email=x"], ada)
    assert not is_allowed(["@example.com", "ada@example.com"], {**ada, "email_verified": False})
    assert not is_allowed(["@example.com"], {**ada, "email": "ada@evil.example@example.com"})
    assert role_of([], ada) == "viewer"
    assert role_of(["operator"], ada) == "operator"
    assert role_of(["operator", "groups:staff=viewer"], ada) == "viewer"
    assert role_of(["groups:staff=viewer", "groups:admins=admin", "groups:staff=operator"], ada) == "admin"
