"""A tiny real identity provider: metadata, a key set that is counted, and JWTs signed for whoever a test says."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from evergrant.broker.runtime.principal import FETCH_SCOPE
from tests.infra.serving import LiveApp

AUDIENCE = "https://api.example.com"


@dataclass
class Issuer:
    """Signs what a test wants; `...` leaves a claim out."""

    url: str = ""
    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "key-1", "use": "sig"}))
    rsa: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig"}))
    jwks_reads: int = 0

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


@contextmanager
def issuer() -> Iterator[Issuer]:
    """Run one."""
    made = Issuer()

    async def metadata(request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": made.url,
                "authorization_endpoint": f"{made.url}/authorize",
                "token_endpoint": f"{made.url}/token",
                "jwks_uri": f"{made.url}/jwks",
            }
        )

    async def jwks(request: Request) -> Response:
        made.jwks_reads += 1
        return JSONResponse({"keys": [made.key.as_dict(private=False), made.rsa.as_dict(private=False)]})

    routes = [Route("/.well-known/openid-configuration", metadata), Route("/jwks", jwks)]
    with LiveApp(Starlette(routes=routes)) as live:
        made.url = live.url
        yield made
