"""A tiny real identity provider: metadata, a key set, and JWTs signed for whoever a test says."""

import time
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from evergrant.broker.runtime.principal import FETCH_SCOPE
from tests.infra.scripted import ScriptedProvider

AUDIENCE = "https://api.example.com"


@dataclass
class Issuer(ScriptedProvider):
    """Signs what a test wants; `...` leaves a claim out."""

    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "key-1", "use": "sig"}))
    rsa: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig"}))

    def __post_init__(self) -> None:
        self.routes = {
            "/.well-known/openid-configuration": lambda request: {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/jwks",
            },
            "/jwks": {"keys": [self.key.as_dict(private=False), self.rsa.as_dict(private=False)]},
        }

    def claims(self, user_id: str = "alice", **changes: Any) -> dict[str, Any]:
        """Return what a session token of the user says."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": user_id, "iat": now, "exp": now + 600}
        return {name: value for name, value in (usual | changes).items() if value is not ...}

    def session(self, user_id: str = "alice", **changes: Any) -> str:
        """Return a user's session token: it has no scope."""
        return jwt.encode({"alg": "ES256", "kid": "key-1"}, self.claims(user_id, **changes), self.key)

    def access(self, user_id: str = "alice", **changes: Any) -> str:
        """Return a user's access token that may fetch."""
        return self.session(user_id, **{"scope": f"openid {FETCH_SCOPE}", **changes})

    def machine(self, *tenants: str, **changes: Any) -> str:
        """Return a machine's access token that may fetch, for its tenants."""
        tenant = tenants[0] if len(tenants) == 1 else list(tenants)
        return self.access("job", **{"client_id": "job", "tenant": tenant, **changes})
