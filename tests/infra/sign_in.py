"""An identity provider that gives MCP clients tokens: they register by themselves, or are known by their document."""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from tests.infra.issuer import Issuer
from tests.infra.scripted import Answer, Request, answer

DOCUMENT = "https://agent.example.com/client.json"
"""The URL of a client's metadata document. Nobody reads it here: the server knows what it says."""


@dataclass
class SignIn(Issuer):
    """Whoever signs in is `person`, and says yes. PKCE is required; a token is for the resource that was asked for."""

    person: str = "alice"
    takes_documents: bool = False
    """Whether a URL may be a client's id, or each has to register (RFC 7591)."""
    audience: str = ""
    """Whom tokens are for, instead of the resource that was asked for."""
    clients: dict[str, list[str]] = field(default_factory=dict)
    """The redirect URIs of each client."""
    codes: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """What was asked for with each code that is not used up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.routes |= {
            "/.well-known/oauth-authorization-server": lambda request: {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "registration_endpoint": f"{self.url}/register",
                "jwks_uri": f"{self.url}/jwks",
                "response_types_supported": ["code"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["none"],
                "authorization_response_iss_parameter_supported": True,
                "client_id_metadata_document_supported": self.takes_documents,
            },
            "/register": self._register,
            "/authorize": self._authorize,
            "/token": self._token,
        }

    def _register(self, request: Request) -> Answer:
        client_id = secrets.token_urlsafe(8)
        self.clients[client_id] = request.json["redirect_uris"]
        return 201, {**request.json, "client_id": client_id, "token_endpoint_auth_method": "none"}

    def _authorize(self, request: Request) -> Answer:
        asked = request.query
        if asked["redirect_uri"] not in self.clients.get(asked["client_id"], ()):
            return 400, {"error": "invalid_client"}
        if asked.get("code_challenge_method") != "S256" or not asked.get("resource"):
            return 400, {"error": "invalid_request"}
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        back = urlencode({"code": code, "state": asked["state"], "iss": self.url})
        return answer(302, location=f"{asked['redirect_uri']}?{back}")

    def _token(self, request: Request) -> Answer:
        sent: dict[str, Any] = request.form
        asked = self.codes.pop(sent["code"], None)
        digest = hashlib.sha256(sent.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        same = ("client_id", "redirect_uri", "resource")
        if asked is None or asked["code_challenge"] != challenge or any(asked[n] != sent.get(n) for n in same):
            return 400, {"error": "invalid_grant"}
        token = self.session(
            self.person,
            aud=self.audience or asked["resource"],
            client_id=asked["client_id"],
            scope=asked["scope"],
        )
        return {"access_token": token, "token_type": "Bearer", "expires_in": 600}
