"""An authorization server that is not ours: Authlib's server framework on Flask, in a thread on loopback.

It has what careful servers have: PKCE required, refresh tokens that rotate and end the consent when one comes back,
signed id_tokens, `iss` in the answer (RFC 9207). The person who signs in is always `carol`, and says yes.
"""

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc9207 import IssuerParameter
from authlib.oidc.core import AuthorizationCodeMixin, UserInfo
from authlib.oidc.core.grants import OpenIDCode
from flask import Flask
from flask import Response as FlaskResponse
from joserfc.jwk import RSAKey
from werkzeug.serving import WSGIRequestHandler, make_server

CLIENT_ID = "evergrant"
CLIENT_SECRET = "a secret with spaces, +plus+ & %percent"
"""Every character that a careless client forgets to encode (RFC 6749 section 2.3.1)."""
ACCESS_TOKEN_SECONDS = 600


@dataclass
class User:
    """Who signs in."""

    id: str = "carol"


class Client(ClientMixin):  # type: ignore[misc]  # Authlib ships no types
    """evergrant, as it is registered here."""

    def __init__(self) -> None:
        self.client_id = CLIENT_ID
        self.redirect_uri = ""
        self.auth_method = ""

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == self.redirect_uri

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(client_secret.encode(), CLIENT_SECRET.encode())

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == self.auth_method

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in ("authorization_code", "refresh_token")


@dataclass
class Code(AuthorizationCodeMixin):  # type: ignore[misc]  # Authlib ships no types
    """An authorization code; the framework reads the attributes that it needs by these names."""

    code: str
    redirect_uri: str
    scope: str
    nonce: str | None
    code_challenge: str | None
    code_challenge_method: str | None
    issued_at: int = field(default_factory=lambda: int(time.time()))

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str | None:
        return self.nonce

    def get_auth_time(self) -> int:
        return self.issued_at


@dataclass
class Issued(TokenMixin):  # type: ignore[misc]  # Authlib ships no types
    """What one successful token request brought."""

    access_token: str
    refresh_token: str
    scope: str
    spent: bool = False

    def check_client(self, client: Client) -> bool:
        return client.client_id == CLIENT_ID

    def get_scope(self) -> str:
        return self.scope


@dataclass
class ForeignServer:
    """What the server knows, for tests to look at."""

    url: str
    client: Client = field(default_factory=Client)
    issued: list[Issued] = field(default_factory=list)
    codes: dict[str, Code] = field(default_factory=dict)
    reused: int = 0
    """Spent refresh tokens that came back. Each revokes everything."""
    revoked: bool = False


@contextmanager
def foreign_server(*, auth_method: str = "client_secret_basic") -> Iterator[ForeignServer]:
    """Run one; the test registers evergrant's `redirect_uri` there."""
    app = Flask("foreign")
    http = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    state = ForeignServer(f"http://127.0.0.1:{http.server_port}")
    state.client.auth_method = auth_method
    _oauth2(app, state, state.client)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    before = os.environ.get("AUTHLIB_INSECURE_TRANSPORT")
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # Authlib's word for "plain http on loopback"
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
        if before is None:
            del os.environ["AUTHLIB_INSECURE_TRANSPORT"]


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing: the lines carry codes."""


def _oauth2(app: Flask, state: ForeignServer, client: Client) -> None:
    key = RSAKey.generate_key(2048, {"kid": "foreign-1", "use": "sig", "alg": "RS256"})

    class CodeGrant(grants.AuthorizationCodeGrant):  # type: ignore[misc]  # Authlib ships no types
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")

        def save_authorization_code(self, code: str, request: Any) -> None:
            data = request.payload.data
            state.codes[code] = Code(
                code,
                request.payload.redirect_uri,
                request.payload.scope,
                data.get("nonce"),
                data.get("code_challenge"),
                data.get("code_challenge_method"),
            )

        def query_authorization_code(self, code: str, client: Client) -> Code | None:
            return state.codes.get(code)

        def delete_authorization_code(self, authorization_code: Code) -> None:
            del state.codes[authorization_code.code]

        def authenticate_user(self, authorization_code: Code) -> User:
            return User()

    class RefreshGrant(grants.RefreshTokenGrant):  # type: ignore[misc]  # Authlib ships no types
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")
        INCLUDE_NEW_REFRESH_TOKEN = True

        def authenticate_refresh_token(self, refresh_token: str) -> Issued | None:
            token = next((one for one in state.issued if one.refresh_token == refresh_token), None)
            if token is not None and token.spent:
                state.reused += 1
                state.revoked = True
            return None if state.revoked else token

        def authenticate_user(self, refresh_token: Issued) -> User:
            return User()

        def revoke_old_credential(self, refresh_token: Issued) -> None:
            refresh_token.spent = True

    class OpenID(OpenIDCode):  # type: ignore[misc]  # Authlib ships no types
        def exists_nonce(self, nonce: str, request: Any) -> bool:
            return any(code.nonce == nonce for code in state.codes.values())

        def resolve_client_private_key(self, client: Client) -> RSAKey:
            return key

        def get_client_algorithm(self, client: Client) -> str:
            return "RS256"

        def get_client_claims(self, client: Client) -> dict[str, Any]:
            return {"iss": state.url}

        def get_encode_header(self, client: Client) -> dict[str, str]:
            return {"alg": "RS256", "kid": "foreign-1"}

        def generate_user_info(self, user: User, scope: str) -> UserInfo:
            return UserInfo(sub=user.id)

    class Issuer(IssuerParameter):  # type: ignore[misc]  # Authlib ships no types
        def get_issuer(self) -> str:
            return state.url

    def save_token(token: dict[str, Any], request: Any) -> None:
        state.issued.append(Issued(token["access_token"], token["refresh_token"], token["scope"]))

    app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
    app.config["OAUTH2_TOKEN_EXPIRES_IN"] = dict.fromkeys(("authorization_code", "refresh_token"), ACCESS_TOKEN_SECONDS)
    server = AuthorizationServer(app, lambda client_id: client if client_id == CLIENT_ID else None, save_token)
    server.register_grant(CodeGrant, [CodeChallenge(required=True), OpenID(require_nonce=True)])
    server.register_grant(RefreshGrant)
    server.register_extension(Issuer())

    @app.get("/authorize")
    def authorize() -> FlaskResponse:
        user = User()
        answer: FlaskResponse = server.create_authorization_response(
            grant_user=user, grant=server.get_consent_grant(end_user=user)
        )
        return answer

    @app.post("/token")
    def token() -> FlaskResponse:
        answer: FlaskResponse = server.create_token_response()
        return answer

    @app.get("/jwks")
    def jwks() -> dict[str, Any]:
        return {"keys": [key.as_dict(private=False)]}

    @app.get("/.well-known/oauth-authorization-server")
    @app.get("/.well-known/openid-configuration")
    def discovery() -> dict[str, Any]:
        return {
            "issuer": state.url,
            "authorization_endpoint": f"{state.url}/authorize",
            "token_endpoint": f"{state.url}/token",
            "jwks_uri": f"{state.url}/jwks",
            "response_types_supported": ["code"],
            "token_endpoint_auth_methods_supported": [client.auth_method],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "id_token_signing_alg_values_supported": ["RS256"],
            "subject_types_supported": ["public"],
        }
