"""The practice provider's consent page and what it sends back."""

import pytest

from tests.conftest import Clock
from tests.practice.oauth_client import ISSUER, REDIRECT_URI, PracticeClient, parameters


@pytest.fixture
def client() -> PracticeClient:
    return PracticeClient()


async def test_allowing_sends_the_browser_back_with_code_state_and_issuer(client: PracticeClient) -> None:
    page = await client.open_consent_page()
    assert page.status_code == 200
    answer = parameters(await client.decide(page))
    assert answer.keys() == {"code", "state", "iss"}
    assert (answer["state"], answer["iss"]) == ("the-state", ISSUER)


async def test_the_page_says_loudly_that_it_is_not_for_production_and_runs_no_inline_script(
    client: PracticeClient,
) -> None:
    page = await client.open_consent_page()
    assert "<strong>PRACTICE PROVIDER</strong>" in page.text
    assert "Not for production" in page.text
    assert "<script" not in page.text
    assert "unsafe-inline" not in page.headers["content-security-policy"]


async def test_denying_tells_the_client_and_grants_nothing(client: PracticeClient) -> None:
    answer = parameters(await client.decide(await client.open_consent_page(), "deny"))
    assert answer["error"] == "access_denied"
    assert answer["state"] == "the-state"
    assert not client.provider.codes


async def test_unticking_every_scope_is_a_no(client: PracticeClient) -> None:
    answer = parameters(await client.decide(await client.open_consent_page(), scopes=[]))
    assert answer["error"] == "access_denied"


async def test_a_page_can_be_answered_once(client: PracticeClient) -> None:
    page = await client.open_consent_page()
    await client.decide(page)
    again = await client.decide(page)
    assert again.status_code == 400
    assert "location" not in again.headers


async def test_the_person_of_the_login_hint_is_preselected(client: PracticeClient) -> None:
    page = await client.open_consent_page(login_hint="grace@example.com", prompt="login")
    assert 'value="practice-grace" required checked' in page.text


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": f"{REDIRECT_URI}/"},
        {"redirect_uri": f"{REDIRECT_URI}?more=1"},
        {"redirect_uri": "https://evil.example/"},
        {"redirect_uri": None},
        {"client_id": "nobody"},
        {"client_id": None},
    ],
)
async def test_a_wrong_client_or_redirect_uri_never_redirects(
    client: PracticeClient, changes: dict[str, str | None]
) -> None:
    answer = await client.open_consent_page(**changes)
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"scope": "openid everything"}, "invalid_scope"),
        ({"prompt": "none"}, "interaction_required"),
    ],
)
async def test_other_mistakes_are_told_to_the_client(
    client: PracticeClient, changes: dict[str, str | None], error: str
) -> None:
    answer = parameters(await client.open_consent_page(**changes))
    assert (answer["error"], answer["state"], answer["iss"]) == (error, "the-state", ISSUER)


async def test_a_code_is_good_for_a_minute(client: PracticeClient, clock: Clock) -> None:
    code = await client.code()
    clock.advance(60)
    refused = await client.redeem(code)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
