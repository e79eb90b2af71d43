"""The practice provider's tokens: issued, rotated, revoked, and refused when they should be."""

import base64
from urllib.parse import quote_plus

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.conftest import Clock
from tests.practice.oauth_client import ISSUER, REDIRECT_URI, VERIFIER, PracticeClient, parameters


@pytest.fixture
def client() -> PracticeClient:
    return PracticeClient()


async def test_a_code_buys_tokens_that_open_the_contacts(client: PracticeClient) -> None:
    answer = await client.redeem(await client.code())
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json()
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 60)
    assert tokens["scope"] == "contacts.readonly openid"
    assert len((await client.contacts(tokens["access_token"])).json()["contacts"]) == 3
    assert client.provider.token_calls == {"authorization_code": 1}


async def test_the_id_token_is_signed_with_the_published_key_and_repeats_the_nonce(
    client: PracticeClient,
) -> None:
    tokens = await client.connect()
    keys = KeySet.import_key_set((await client.http.get("/jwks")).json())
    claims = jwt.decode(tokens["id_token"], keys, algorithms=["ES256"]).claims
    assert (claims["iss"], claims["aud"], claims["nonce"]) == (ISSUER, "shop", "the-nonce")
    who = await client.http.get("/userinfo", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    assert who.json()["sub"] == claims["sub"] == "practice-ada"


async def test_no_private_part_of_the_key_is_published(client: PracticeClient) -> None:
    (key,) = (await client.http.get("/jwks")).json()["keys"]
    assert "d" not in key


async def test_a_partial_grant_is_reported_and_enforced(client: PracticeClient) -> None:
    tokens = await client.connect(scopes=["openid"])
    assert tokens["scope"] == "openid"
    refused = await client.contacts(tokens["access_token"])
    assert refused.status_code == 403
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]


async def test_online_access_gets_no_refresh_token(client: PracticeClient) -> None:
    assert "refresh_token" not in await client.connect(access_type="online")


@pytest.mark.parametrize(
    "changes",
    [{"code_verifier": "wrong" * 10}, {"code_verifier": ""}, {"redirect_uri": "http://client.test/"}],
)
async def test_a_code_is_worth_nothing_without_its_verifier_and_redirect_uri(
    client: PracticeClient, changes: dict[str, str]
) -> None:
    code = await client.code()
    refused = await client.redeem(code, **changes)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert (await client.redeem(code)).status_code == 400, "a code can be tried once"


async def test_a_code_of_another_client_is_unknown(client: PracticeClient) -> None:
    code = await client.code()
    refused = await client.redeem(code, client_id="other", client_secret="other-secret")
    assert refused.json()["error"] == "invalid_grant"
    assert (await client.redeem(code)).status_code == 200


async def test_a_code_that_comes_back_revokes_what_it_bought(client: PracticeClient) -> None:
    code = await client.code()
    tokens = (await client.redeem(code)).json()
    assert (await client.redeem(code)).json()["error"] == "invalid_grant"
    assert client.provider.code_replays == 1
    assert (await client.contacts(tokens["access_token"])).status_code == 401
    assert (await client.refresh(tokens["refresh_token"])).status_code == 400


async def test_every_refresh_rotates_the_refresh_token(client: PracticeClient) -> None:
    first = await client.connect()
    second = (await client.refresh(first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert second["access_token"] != first["access_token"]
    assert second["scope"] == first["scope"]
    third = await client.refresh(second["refresh_token"])
    assert third.status_code == 200
    assert client.provider.rotations == 2
    assert not client.provider.revoked_families


async def test_a_spent_refresh_token_revokes_the_whole_family_access_tokens_included(
    client: PracticeClient,
) -> None:
    first = await client.connect()
    second = (await client.refresh(first["refresh_token"])).json()
    refused = await client.refresh(first["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert client.provider.reuse_detections == 1
    assert [family.revoked_because for family in client.provider.revoked_families] == ["refresh token reuse"]
    assert (await client.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"
    for tokens in (first, second):
        assert (await client.contacts(tokens["access_token"])).status_code == 401


async def test_a_refresh_cannot_ask_for_more_than_was_granted(client: PracticeClient) -> None:
    tokens = await client.connect()
    refused = await client.refresh(tokens["refresh_token"], scope="openid contacts")
    assert refused.json()["error"] == "invalid_scope"
    assert (await client.refresh(tokens["refresh_token"], scope="openid")).json()["scope"] == "openid"


async def test_an_access_token_stops_working_when_it_expires(client: PracticeClient, clock: Clock) -> None:
    tokens = await client.connect()
    clock.advance(59)
    assert (await client.contacts(tokens["access_token"])).status_code == 200
    clock.advance(1)
    refused = await client.contacts(tokens["access_token"])
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]


async def test_a_request_without_a_token_is_told_how_to_authenticate_and_no_more(
    client: PracticeClient,
) -> None:
    refused = await client.http.get("/api/contacts")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Bearer realm="practice"'


async def test_revoking_the_refresh_token_ends_the_consent(client: PracticeClient) -> None:
    tokens = await client.connect()
    form = {"client_id": "shop", "client_secret": "shop secret:%", "token": tokens["refresh_token"]}
    assert (await client.http.post("/revoke", data=form)).status_code == 200
    assert (await client.contacts(tokens["access_token"])).status_code == 401
    assert (await client.refresh(tokens["refresh_token"])).status_code == 400
    assert client.provider.reuse_detections == 0


async def test_revoking_an_access_token_leaves_the_consent(client: PracticeClient) -> None:
    tokens = await client.connect()
    form = {"client_id": "shop", "client_secret": "shop secret:%", "token": tokens["access_token"]}
    assert (await client.http.post("/revoke", data=form)).status_code == 200
    assert (await client.contacts(tokens["access_token"])).status_code == 401
    assert (await client.refresh(tokens["refresh_token"])).status_code == 200


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"client_secret": "shop secret:%", "token": "unknown"}, 200),
        ({"client_secret": "shop secret:%"}, 400),
        ({"client_secret": "wrong", "token": "unknown"}, 401),
    ],
)
async def test_revocation_answers_as_rfc_7009_says(client: PracticeClient, form: dict[str, str], status: int) -> None:
    answer = await client.http.post("/revoke", data={"client_id": "shop", **form})
    assert answer.status_code == status


async def test_a_client_authenticates_by_header_with_form_encoded_credentials(client: PracticeClient) -> None:
    pair = base64.b64encode(f"shop:{quote_plus('shop secret:%')}".encode()).decode()
    form = {"grant_type": "authorization_code", "code": await client.code(), "code_verifier": VERIFIER}
    answer = await client.http.post(
        "/token", data={**form, "redirect_uri": REDIRECT_URI}, headers={"Authorization": f"Basic {pair}"}
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("header", ["Basic c2hvcDp3cm9uZw==", "Basic not-base64", "basic Og=="])
async def test_a_wrong_client_is_challenged_by_the_scheme_it_used(client: PracticeClient, header: str) -> None:
    answer = await client.http.post("/token", data={"grant_type": "refresh_token"}, headers={"Authorization": header})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert client.provider.token_errors == {"invalid_client": 1}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("client_id=shop&client_secret=shop+secret:%25", "invalid_request"),
        ("grant_type=password&client_id=shop&client_secret=shop+secret:%25", "unsupported_grant_type"),
        ("grant_type=refresh_token&grant_type=refresh_token", "invalid_request"),
        ("grant_type=refresh_token&client_id=shop&client_secret=shop+secret:%25", "invalid_grant"),
    ],
)
async def test_a_request_that_makes_no_sense_gets_an_error_of_rfc_6749(
    client: PracticeClient, body: str, error: str
) -> None:
    answer = await client.http.post(
        "/token", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_a_contact_is_added_for_the_person_alone_and_only_with_the_scope_for_it(client: PracticeClient) -> None:
    both = {"scope": "contacts", "scopes": ("contacts",)}
    tokens = await client.connect(**both)
    writing = {"Authorization": f"Bearer {tokens['access_token']}"}
    contact = {"name": "Barbara Imaginary", "email": "barbara@example.com", "phone": ""}
    made = await client.http.post("/api/contacts", headers=writing, json=contact)
    assert (made.status_code, made.json()) == (201, contact)
    assert (await client.contacts(tokens["access_token"])).json()["contacts"][3:] == [contact]
    for wrong in ({"name": ""}, {"name": "B", "token": "x"}, {"name": 7}, ["name"], {"name": "B" * 201}):
        assert (await client.http.post("/api/contacts", headers=writing, json=wrong)).status_code == 400, wrong
    reading = {"Authorization": f"Bearer {(await client.connect())['access_token']}"}
    refused = await client.http.post("/api/contacts", headers=reading, json=contact)
    assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")
    assert [len(added) for added in client.provider.added_contacts.values()] == [1]
    page = await client.open_consent_page(scope="contacts")
    code = parameters(await client.decide(page, person="practice-grace", scopes=("contacts",)))["code"]
    other = (await client.redeem(code)).json()["access_token"]
    assert len((await client.contacts(other)).json()["contacts"]) == 3
