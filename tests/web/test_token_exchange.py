"""Token exchange (RFC 8693), by clients that know the standard and nothing of evergrant."""

import asyncio
from typing import Any

import httpx2
import pytest
from authlib.integrations.httpx_client import AsyncOAuth2Client

from tests.infra.installation import APP_ID, SCOPES, Backend, Installation, new_project
from tests.infra.issuer import Issuer
from tests.infra.people import trust
from tests.infra.rows import execute
from tests.infra.scripted import serving

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
PATH = "/oauth2/v1/token"


@pytest.fixture(scope="module")
def idp(here: Installation, idp: Issuer) -> Issuer:
    """The identity provider that the project trusts; alice and the tenant acme are connected."""
    here.connected("alice")
    here.connected("alice", tenantId="acme")
    here.connected("alice", tenantId="acme", tenantLevel=True)
    return idp


def exchange(here: Installation, subject_token: str | None, **fields: Any) -> httpx2.Response:
    form = {
        "grant_type": GRANT_TYPE,
        "subject_token": subject_token,
        "subject_token_type": ACCESS_TOKEN,
        "audience": APP_ID,
        **fields,
    }
    form = {name: value for name, value in form.items() if value is not None}
    with httpx2.Client(base_url=here.url, trust_env=False) as http:
        return http.post(PATH, data=form)


def oauth_error(answer: httpx2.Response, error: str, status: int = 400) -> bool:
    """Whether it is this error in the form of RFC 6749 section 5.2."""
    body = answer.json()
    return (
        (answer.status_code, body.get("error")) == (status, error)
        and set(body) == {"error", "error_description"}
        and answer.headers["cache-control"] == "no-store"
    )


def test_a_standard_client_exchanges_a_users_token(here: Installation, idp: Issuer) -> None:
    async def by_authlib() -> dict[str, Any]:
        async with AsyncOAuth2Client(client_id="agent", token_endpoint_auth_method="none", trust_env=False) as client:
            answer: dict[str, Any] = await client.fetch_token(
                f"{here.url}{PATH}",
                grant_type=GRANT_TYPE,
                subject_token=idp.access("alice"),
                subject_token_type=ACCESS_TOKEN,
                audience=APP_ID,
                scope=" ".join(SCOPES),
            )
            return answer

    answer = asyncio.run(by_authlib())
    assert answer["access_token"] == here.backend.token("alice")["accessToken"]
    assert answer["issued_token_type"] == ACCESS_TOKEN
    assert answer["token_type"] == "Bearer"
    assert sorted(answer["scope"].split()) == sorted(SCOPES)
    assert 0 < answer["expires_in"] <= 3600


def test_without_scopes_the_latest_connection_answers(here: Installation, idp: Issuer) -> None:
    answer = exchange(here, idp.access("alice"), subject_token_type=JWT)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "refresh_token" not in answer.json()


def test_the_app_may_be_named_by_its_resource(here: Installation, idp: Issuer) -> None:
    made = new_project(here.settings)
    other = Backend(here.url, made.project_id, made.management_key)
    other.create_app(here.provider.registration)  # another project's app for the same resource is no second one
    other.http.close()
    execute(here.settings, f"UPDATE outbound_apps SET resource = 'https://mcp.example.com' WHERE id = '{APP_ID}'")
    for resource in ("https://mcp.example.com", "https://mcp.example.com/"):
        answer = exchange(here, idp.access("alice"), audience=None, resource=resource)
        assert answer.status_code == 200, answer.text
    assert oauth_error(
        exchange(here, idp.access("alice"), audience=None, resource="https://x.example"), "invalid_target"
    )


def test_tenants_are_as_in_a_fetch(here: Installation, idp: Issuer) -> None:
    tenants_own = here.backend.post("app/tenant/token", {"appId": APP_ID, "tenantId": "acme", "scopes": SCOPES}).json()[
        "token"
    ]["accessToken"]
    assert exchange(here, idp.machine("acme")).json()["access_token"] == tenants_own
    assert exchange(here, idp.machine("acme", "globex"), tenant_id="acme").json()["access_token"] == tenants_own
    assert oauth_error(exchange(here, idp.machine("acme", "globex")), "invalid_request")
    within = exchange(here, idp.access("alice", tenant="acme"), tenant_id="acme").json()["access_token"]
    assert within == here.backend.token("alice", tenantId="acme")["accessToken"]
    assert oauth_error(exchange(here, idp.access("alice"), tenant_id="acme"), "invalid_target")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"grant_type": None}, "invalid_request"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token": "rubbish"}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"audience": None}, "invalid_target"),
        ({"audience": "nothing"}, "invalid_target"),
        ({"audience": [APP_ID, "other"]}, "invalid_target"),
        ({"scope": "contacts.delete"}, "invalid_scope"),
        ({"project_id": "Pnobody"}, "invalid_request"),
    ],
)
def test_a_request_that_cannot_be_granted_says_why(
    here: Installation, idp: Issuer, fields: dict[str, Any], error: str
) -> None:
    answer = exchange(here, **{"subject_token": idp.access("alice"), **fields})
    assert oauth_error(answer, error), answer.text


def test_a_token_that_may_not_fetch_is_not_exchanged(here: Installation, idp: Issuer) -> None:
    assert oauth_error(exchange(here, idp.session("alice")), "invalid_target")
    assert oauth_error(exchange(here, idp.access("alice", aud="https://other.example")), "invalid_request")
    assert oauth_error(exchange(here, idp.access("nobody-connected")), "invalid_grant")


def test_a_management_key_is_nobodys_token(here: Installation, idp: Issuer) -> None:
    key = here.backend.management_key
    for token in (f"{here.backend.project_id}:{key}", key):
        assert oauth_error(exchange(here, token), "invalid_request")
    for fields in ({}, {"tenant_id": "acme"}):
        assert oauth_error(exchange(here, key, project_id=here.backend.project_id, **fields), "invalid_request")


def test_policies_hold_here_too(here: Installation, idp: Issuer) -> None:
    made = here.backend.post("policies", {"appId": APP_ID, "action": "fetch", "claims": {"roles": ["sales"]}})
    try:
        assert oauth_error(exchange(here, idp.access("alice")), "invalid_target")
        assert exchange(here, idp.access("alice", roles="sales")).status_code == 200
    finally:
        here.backend.http.delete(f"/v1/mgmt/outbound/policies?id={made.json()['policy']['id']}")


def test_the_project_is_said_where_several_trust_the_issuer(here: Installation, idp: Issuer) -> None:
    made = new_project(here.settings)
    other = Backend(here.url, made.project_id, made.management_key)
    with serving(Issuer()) as shared:
        trust(here.backend, shared)
        trust(other, shared)
        assert oauth_error(exchange(here, shared.access("alice")), "invalid_request")
        answer = exchange(here, shared.access("alice"), project_id=here.backend.project_id)
        assert answer.status_code == 200, answer.text
    other.http.close()


def test_a_form_is_needed(here: Installation, idp: Issuer) -> None:
    with httpx2.Client(base_url=here.url, trust_env=False) as http:
        body = {"grant_type": GRANT_TYPE, "subject_token": idp.access("alice"), "subject_token_type": ACCESS_TOKEN}
        assert oauth_error(http.post(PATH, json=body), "invalid_request")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert oauth_error(http.post(PATH, content=b"a=%ff&b=\xff", headers=form), "invalid_request")
        assert oauth_error(http.post(PATH, content=b"a=b&" * 60, headers=form), "invalid_request")
        assert oauth_error(http.post(PATH, content=b"x" * 1_100_000, headers=form), "invalid_request", 413)


def test_a_provider_that_is_away_is_worth_another_try(here: Installation) -> None:
    with serving(Issuer()) as away:
        trust(here.backend, away)
    answer = exchange(here, away.access("alice"))
    assert oauth_error(answer, "temporarily_unavailable", 503)
    assert answer.headers["retry-after"]
