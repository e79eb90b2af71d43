"""A user signs in at an MCP client: the SDK's own OAuth client finds the issuer, and brings a token for us."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp.shared.exceptions import MCPError
from pydantic import AnyUrl

from tests.infra.installation import APP_ID
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.people import fetch, trust
from tests.infra.scripted import serving
from tests.infra.sign_in import DOCUMENT, SignIn
from tests.infra.waiting import PATIENCE
from tests.mcp.conftest import Agents

BACK = "http://127.0.0.1:9/back"
"""Where the client wants its code. Nobody listens there: the test looks at the redirect."""
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


@pytest.fixture(scope="module")
def issuer(agents: Agents) -> Iterator[SignIn]:
    with serving(SignIn()) as one:
        trust(agents.here.backend, one, mcp=True)
        yield one


@dataclass
class Kept:
    """What the SDK's client keeps of one user."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@dataclass
class SigningIn:
    """A program with the SDK's OAuth client, and its user's browser."""

    url: str
    document: str | None = None
    kept: Kept = field(default_factory=Kept)
    answered: httpx2.URL | None = None

    async def read(self) -> tuple[list[str], Any]:
        """List the tools, and read something by one of them."""
        auth = OAuthClientProvider(
            self.url,
            OAuthClientMetadata(redirect_uris=[AnyUrl(BACK)], client_name="An agent"),
            self.kept,
            self._open,
            self._came_back,
            client_metadata_url=self.document,
        )
        async with (
            httpx2.AsyncClient(auth=auth, timeout=PATIENCE, trust_env=False) as http,
            Client(streamable_http_client(self.url, http_client=http)) as client,
        ):
            tools = await client.list_tools()
            result = await client.call_tool("api_read", {"app": APP_ID, "path": "/me"})
            return [tool.name for tool in tools.tools], result.structured_content

    async def _open(self, url: str) -> None:
        async with httpx2.AsyncClient(trust_env=False) as browser:
            self.answered = httpx2.URL((await browser.get(url)).headers["location"])

    async def _came_back(self) -> AuthorizationCodeResult:
        assert self.answered is not None
        return AuthorizationCodeResult(**self.answered.params)


@pytest.mark.parametrize("document", [None, DOCUMENT], ids=["registers", "has a document"])
def test_a_user_signs_in_at_an_mcp_client_and_it_reads_with_the_users_connection(
    agents: Agents, issuer: SignIn, user: str, document: str | None
) -> None:
    agents.here.connected(user)
    issuer.person, issuer.takes_documents, issuer.clients = user, document is not None, {DOCUMENT: [BACK]}
    program = SigningIn(agents.url, document)
    tools, said = asyncio.run(program.read())
    assert tools == ["list_connections", "connect_app", "connection_status", "api_read", "api_write"]
    assert said["body"] == {"path": "/me", "method": "GET"}
    assert program.kept.tokens is not None
    assert program.kept.client is not None
    assert (program.kept.client.client_id == DOCUMENT) == (document is not None)
    assert not issuer.codes
    # What it got is for this address alone.
    assert fetch(agents.here, program.kept.tokens.access_token, user).status_code == 401


def test_a_client_whose_issuer_gives_it_a_token_for_somebody_else_is_not_let_in(
    agents: Agents, issuer: SignIn, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents.here.connected(user)
    monkeypatch.setattr(issuer, "person", user)
    monkeypatch.setattr(issuer, "audience", "https://elsewhere.example.com/mcp")
    program, before = SigningIn(agents.url), len(agents.api.requests)
    with pytest.raises((MCPError, ExceptionGroup)):
        asyncio.run(program.read())
    assert program.kept.tokens is not None
    assert len(agents.api.requests) == before
    assert at_mcp(agents, program.kept.tokens.access_token).status_code == 401


def test_a_foreign_issuer_lets_nobody_in_and_a_token_that_may_only_call_hands_nothing_out(
    agents: Agents, issuer: SignIn, user: str
) -> None:
    agents.here.connected(user)
    both = {"aud": [agents.url, AUDIENCE], "scope": "outbound.call"}
    with serving(Issuer()) as foreign:
        assert at_mcp(agents, foreign.session(user, **both)).status_code == 401
        forged = foreign.session(user, **both, iss=issuer.url)
        assert at_mcp(agents, forged).status_code == 401
    token = issuer.session(user, **both)
    assert at_mcp(agents, token).status_code == 200
    assert fetch(agents.here, token, user).status_code == 403
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "audience": APP_ID,
        "project_id": agents.here.backend.project_id,
    }
    exchanged = httpx2.post(f"{agents.here.url}/oauth2/v1/token", data=form, timeout=PATIENCE, trust_env=False)
    assert exchanged.status_code == 400
    assert "outbound.token.fetch" in exchanged.json()["error_description"]


def at_mcp(agents: Agents, token: str) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    return httpx2.post(agents.url, json=LIST, headers=headers, timeout=PATIENCE, trust_env=False)
