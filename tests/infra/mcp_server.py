"""An MCP server and its authorization server that are not ours: the MCP Python SDK's, on loopback.

Clients register by themselves (RFC 7591), PKCE is required, tokens are bound to the resource that was asked for,
refresh tokens rotate. Who signs in always says yes.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    TokenError,
    construct_redirect_uri,
)
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions
from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl, BaseModel
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.infra.serving import LiveApp, free_port

SCOPE = "notes"


@dataclass
class MemoryProvider(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """What the server knows, for tests to look at and to take away."""

    access_token_seconds: int = 3600
    clients: dict[str, OAuthClientInformationFull] = field(default_factory=dict)
    codes: dict[str, AuthorizationCode] = field(default_factory=dict)
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict)
    access_tokens: dict[str, AccessToken] = field(default_factory=dict)
    refreshes: int = 0

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        assert client_info.client_id
        self.clients[client_info.client_id] = client_info

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        assert client.client_id
        code = secrets.token_urlsafe(32)
        self.codes[code] = AuthorizationCode(
            code=code,
            scopes=params.scopes or [],
            expires_at=time.time() + 60,
            client_id=client.client_id,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        return construct_redirect_uri(str(params.redirect_uri), code=code, state=params.state)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        del self.codes[authorization_code.code]
        return self._issue(authorization_code.client_id, authorization_code.scopes, authorization_code.resource)

    async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> RefreshToken | None:
        return self.refresh_tokens.get(refresh_token)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        if self.refresh_tokens.pop(refresh_token.token, None) is None:
            raise TokenError("invalid_grant")
        self.refreshes += 1
        return self._issue(refresh_token.client_id, scopes, refresh_token.resource)

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self.access_tokens.get(token)

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        self.access_tokens.pop(token.token, None)
        self.refresh_tokens.pop(token.token, None)

    def _issue(self, client_id: str, scopes: list[str], resource: str | None) -> OAuthToken:
        access, refresh = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self.access_tokens[access] = AccessToken(
            token=access,
            client_id=client_id,
            scopes=scopes,
            expires_at=int(time.time()) + self.access_token_seconds,
            resource=resource,
            subject="ada",
        )
        self.refresh_tokens[refresh] = RefreshToken(
            token=refresh, client_id=client_id, scopes=scopes, resource=resource, subject="ada"
        )
        return OAuthToken(
            access_token=access,
            token_type="Bearer",
            expires_in=self.access_token_seconds,
            refresh_token=refresh,
            scope=" ".join(scopes),
        )


@dataclass
class McpServer:
    """Where it is, and what it knows."""

    url: str
    """The MCP endpoint: all that an operator has to know."""
    provider: MemoryProvider
    heard: list[tuple[str, str]] = field(default_factory=list)
    """Method and session id of each request to the endpoint."""
    go_on: threading.Event = field(default_factory=threading.Event)
    """What its tool `slowly` waits for, having reported that it began."""

    def listening(self, app: ASGIApp) -> ASGIApp:
        """Return the same application; each request to the endpoint is written down."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["path"] == "/mcp":
                self.heard.append((scope["method"], Headers(scope=scope).get("mcp-session-id", "")))
            await app(scope, receive, send)

        return serve


class Name(BaseModel):
    """What `greet` asks its user for."""

    name: str


def _ask() -> Elicit[Name]:
    return Elicit("Who are you?", Name)


def _add_talk(server: MCPServer, state: McpServer) -> None:
    """Add tools that need more than one answer."""

    @server.tool()
    async def slowly(context: Context) -> str:
        """Report a beginning, and wait until that has arrived."""
        await context.report_progress(1, 2)
        return "streamed" if await asyncio.to_thread(state.go_on.wait, 10) else "held back"

    @server.tool()
    async def greet(who: Annotated[Name, Resolve(_ask)]) -> str:
        """Ask who it is, and greet them."""
        return f"Hello {who.name}"

    @server.tool()
    async def announce(context: Context) -> str:
        """Tell everybody who listens that the tools have changed."""
        await context.session.send_tool_list_changed()
        return "announced"


@contextmanager
def mcp_server(*, client_secret_seconds: int | None = None, talks: bool = False) -> Iterator[McpServer]:
    """Run one with a tool, `shout`. `client_secret_seconds` is how long a registration lives; None for ever.

    One that `talks` answers by streams, keeps sessions, and has tools that need more than one answer.
    """
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    provider = MemoryProvider()
    server = MCPServer(
        "notes",
        log_level="ERROR",
        auth_server_provider=provider,
        auth=AuthSettings(
            issuer_url=AnyHttpUrl(origin),
            resource_server_url=AnyHttpUrl(f"{origin}/mcp"),
            validate_token_resource=True,  # a token that was not asked for this server is refused
            required_scopes=[SCOPE],
            client_registration_options=ClientRegistrationOptions(
                enabled=True, valid_scopes=[SCOPE], client_secret_expiry_seconds=client_secret_seconds
            ),
        ),
    )

    @server.tool()
    def shout(text: str) -> str:
        """Say it louder."""
        return text.upper()

    state = McpServer(f"{origin}/mcp", provider)
    if talks:
        _add_talk(server, state)
    app = server.streamable_http_app(json_response=not talks, stateless_http=not talks)
    with LiveApp(state.listening(app), port=port):
        yield state
