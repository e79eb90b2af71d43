"""Where clients of a project's MCP endpoint get their tokens, which tokens are for it, and where its users sign in."""

import pytest

from evergrant import clock
from evergrant.broker.access.authentication import authenticate
from evergrant.broker.runtime.broker import open_broker
from evergrant.broker.runtime.principal import CALL_SCOPE
from evergrant.errors import AuthenticationFailed
from evergrant.web.mcp_address import challenge
from tests.infra.installation import Installation
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.rows import rows
from tests.infra.scripted import serving
from tests.infra.waiting import in_a_thread

WELL_KNOWN = "/.well-known/oauth-protected-resource"


def test_an_mcp_client_learns_which_issuers_it_may_ask(here: Installation, idp: Issuer) -> None:
    project, http = here.backend.project_id, here.backend.http
    before = http.get(f"{WELL_KNOWN}/mcp/{project}", headers={"authorization": ""})
    assert "authorization_servers" not in before.json(), "what has no elements is left out"
    with serving(Issuer()) as marked:
        body = {"issuer": marked.url, "audience": AUDIENCE, "mcp": True}
        issuer = http.post("/v1/mgmt/trustedissuer", json=body).json()["trustedIssuer"]
        for path in (f"/mcp/{project}", f"/mcp/{project}/~contacts"):
            answer = http.get(WELL_KNOWN + path, headers={"authorization": ""})
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.json() == {
                "resource": here.url + path,
                "authorization_servers": [marked.url],
                "scopes_supported": [CALL_SCOPE],
                "bearer_methods_supported": ["header"],
                "resource_name": "Shop",
            }
        http.delete("/v1/mgmt/trustedissuer", params={"id": issuer["id"]})
    assert http.get(f"{WELL_KNOWN}/mcp/Pnobody").status_code == 404
    said = challenge(here.url, project, error="insufficient_scope")
    assert said == (
        f'Bearer error="insufficient_scope", resource_metadata="{here.url}{WELL_KNOWN}/mcp/{project}", '
        f'scope="{CALL_SCOPE}"'
    )


def test_a_token_for_the_endpoint_is_good_there_and_nowhere_else(here: Installation, idp: Issuer) -> None:
    project = here.backend.project_id
    resource = f"{here.url}/mcp/{project}"
    at_endpoint, usual = idp.access("alice", aud=[resource, "other"]), idp.access("alice")

    async def try_all() -> None:
        async with open_broker(here.settings) as broker:

            async def user(token: str, resource: str = "") -> str:
                bearer = f"Bearer {project}:{token}"
                found = await authenticate(
                    broker, bearer, client_address="127.0.0.1", now=clock.now(), resource=resource
                )
                return found.user_id

            assert await user(at_endpoint, resource) == "alice"
            assert await user(usual, resource) == "alice"
            for wrong in ("", f"{resource}2", f"{resource}/~contacts"):
                with pytest.raises(AuthenticationFailed, match="audience"):
                    await user(at_endpoint, wrong)  # not from memory, either

    in_a_thread(try_all())


def test_a_logins_secret_is_sealed_and_its_issuer_must_be_found(here: Installation) -> None:
    http = here.backend.http
    with serving(Issuer()) as idp:
        body = {
            "issuer": idp.url,
            "audience": AUDIENCE,
            "login": {"clientId": "us", "clientSecret": "a-planted-secret"},
        }
        answer = http.post("/v1/mgmt/trustedissuer", json=body)
        stored = answer.json()["trustedIssuer"]
        expected = {"clientId": "us", "hasClientSecret": True, "redirectUri": f"{here.url}/login/callback"}
        assert (stored["mcp"], stored["login"]) == (False, expected)
        assert "a-planted-secret" not in answer.text + http.get("/v1/mgmt/trustedissuer").text
        (row,) = [row for row in rows(here.settings, "trusted_issuers") if row["id"] == stored["id"]]
        assert b"a-planted-secret" not in row["login_client_secret"]
        http.delete("/v1/mgmt/trustedissuer", params={"id": stored["id"]})
        idp.routes["/.well-known/openid-configuration"] = (404, {})
        for more in ({"login": {"clientId": "us"}}, {"mcp": True}):
            unfound = http.post(
                "/v1/mgmt/trustedissuer",
                json={"issuer": idp.url, "audience": AUDIENCE, "jwksUrl": f"{idp.url}/jwks", **more},
            )
            assert unfound.status_code == 400
            assert "whoever is sent there needs it" in unfound.json()["message"]
