"""A provider on loopback, a way out that may reach it, and a client registered there."""

from collections.abc import AsyncIterator, Iterator

import pytest
from pydantic import SecretStr

from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.transport import Http, open_http
from tests.infra.scripted import ScriptedProvider, serving
from tests.oauth2.network import LOOPBACK, TLS


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with serving(ScriptedProvider()) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with open_http(LOOPBACK, tls=TLS) as opened:
        yield opened


@pytest.fixture
def server(provider: ScriptedProvider) -> ServerMetadata:
    return ServerMetadata(
        issuer="https://provider.example",
        authorization_endpoint=f"{provider.url}/authorize",
        token_endpoint=f"{provider.url}/token",
        revocation_endpoint=f"{provider.url}/revoke",
        userinfo_endpoint=f"{provider.url}/userinfo",
        jwks_uri=f"{provider.url}/jwks",
    )


@pytest.fixture
def client() -> ClientRegistration:
    return ClientRegistration(
        client_id="client-1",
        client_secret=SecretStr("client-secret-1"),
        auth_method="client_secret_post",
        name="Example",
    )
