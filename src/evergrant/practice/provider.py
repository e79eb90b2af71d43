"""The practice provider: a small but real OAuth 2.0 authorization server with pretend accounts."""

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from evergrant.practice.authorize import authorize_routes
from evergrant.practice.pages import page, static_files
from evergrant.practice.resource import resource_routes
from evergrant.practice.state import ProviderState
from evergrant.practice.token import token_routes
from evergrant.practice.world import SCOPES


def create_provider(
    *,
    issuer: str,
    access_token_seconds: int = 60,
    clients: Mapping[str, str],
    redirect_uris: Collection[str],
) -> FastAPI:
    """Build the provider; its memory is `app.state.provider`, a `ProviderState`.

    Args:
        issuer: where it is reached. With a path, mount the app there and also serve `metadata` at the address
            that RFC 8414 section 3.1 makes of it, as `create_practice_site` does.
        access_token_seconds: how long an access token lives; short, so that refreshing can be watched.
        clients: client secrets by client id.
        redirect_uris: compared exactly, as strings; `https://host/path/*` stands for every address right below it,
            since each app of evergrant has an address that nobody knows before it is made.
    """
    state = ProviderState.new(
        issuer=issuer,
        clients=clients,
        redirect_uris=redirect_uris,
        access_token_seconds=access_token_seconds,
    )
    app = FastAPI(title="Practice provider", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.provider = state
    base = urlsplit(state.issuer).path

    @app.get("/.well-known/oauth-authorization-server")
    @app.get("/.well-known/openid-configuration")
    async def discovery() -> dict[str, Any]:
        return metadata(state)

    @app.get("/jwks")
    async def keys() -> dict[str, Any]:
        return {"keys": [state.signing_key.as_dict(private=False)]}

    @app.get("/")
    async def home() -> Response:
        return page("home.html", form_action="'none'", base=base, issuer=state.issuer, metadata=metadata(state))

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return RedirectResponse(f"{base}/static/icon.svg", 301)

    app.include_router(authorize_routes(state))
    app.include_router(token_routes(state))
    app.include_router(resource_routes(state))
    app.mount("/static", static_files())
    return app


def metadata(state: ProviderState) -> dict[str, Any]:
    """Return the authorization server's metadata (RFC 8414 section 2; OpenID Connect Discovery section 3)."""
    client_authentication = ["client_secret_basic", "client_secret_post"]
    return {
        "issuer": state.issuer,
        "authorization_endpoint": f"{state.issuer}/authorize",
        "token_endpoint": f"{state.issuer}/token",
        "revocation_endpoint": f"{state.issuer}/revoke",
        "userinfo_endpoint": f"{state.issuer}/userinfo",
        "jwks_uri": f"{state.issuer}/jwks",
        "scopes_supported": list(SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": client_authentication,
        "revocation_endpoint_auth_methods_supported": client_authentication,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": ["sub", "name", "email", "email_verified"],
    }
