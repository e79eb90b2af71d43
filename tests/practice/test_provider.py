"""The practice provider as a whole: what it says of itself."""

import pytest

from evergrant.practice.provider import create_provider
from tests.practice.oauth_client import ISSUER, PracticeClient


@pytest.mark.parametrize("name", ["oauth-authorization-server", "openid-configuration"])
async def test_the_metadata_names_endpoints_that_are_there(name: str) -> None:
    client = PracticeClient()
    metadata = (await client.http.get(f"/.well-known/{name}")).json()
    assert metadata["issuer"] == ISSUER
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["authorization_response_iss_parameter_supported"] is True
    for endpoint in ("authorization_endpoint", "userinfo_endpoint", "jwks_uri"):
        assert (await client.http.get(metadata[endpoint])).status_code != 404
    for endpoint in ("token_endpoint", "revocation_endpoint"):
        assert (await client.http.post(metadata[endpoint])).status_code == 400


async def test_its_front_page_and_its_assets_are_served() -> None:
    client = PracticeClient()
    page = await client.http.get("/")
    assert "PRACTICE PROVIDER" in page.text
    for asset in ("/static/practice.css", "/static/icon.svg"):
        assert asset in page.text
        assert (await client.http.get(asset)).status_code == 200


def test_two_providers_share_nothing() -> None:
    one, two = (
        create_provider(issuer=ISSUER, clients={"shop": "secret"}, redirect_uris=[]).state.provider for _ in range(2)
    )
    one.redirect_uris.add("http://client.test/")
    assert not two.redirect_uris
    assert one.signing_key.kid != two.signing_key.kid
