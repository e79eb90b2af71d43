"""A provider that a test scripts: it records what reaches it and answers what the test says."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.infra.serving import LiveApp

TOKENS = {"access_token": "at-1", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "rt-1"}


@dataclass
class ScriptedProvider:
    """Nothing is asked of the person here: a test writes the callback itself, with any code."""

    url: str = ""
    tokens: Mapping[str, Any] = field(default_factory=lambda: dict(TOKENS))
    """What the token endpoint answers."""
    userinfo: Mapping[str, Any] = field(default_factory=dict)
    token_requests: list[list[tuple[str, str]]] = field(default_factory=list)
    """The forms that reached the token endpoint."""
    revocations: list[dict[str, str]] = field(default_factory=list)
    """The forms that reached the revocation endpoint."""
    revocation_status: int = 200
    revocation_error: str = ""

    def registration(self, app_id: str, **fields: Any) -> dict[str, Any]:
        """What `app/create` is told about it: explicit URLs, no discovery."""
        return {
            "id": app_id,
            "name": f"Scripted {app_id}",
            "clientId": "evergrant",
            "clientSecret": "secret",
            "authorizationUrl": f"{self.url}/authorize",
            "tokenUrl": f"{self.url}/token",
            "defaultScopes": ["files"],
            **fields,
        }


@contextmanager
def scripted_provider() -> Iterator[ScriptedProvider]:
    """Run one."""
    provider = ScriptedProvider()

    async def token(request: Request) -> Response:
        provider.token_requests.append(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        return _json(provider.tokens)

    async def userinfo(request: Request) -> Response:
        known = request.headers.get("authorization") == f"Bearer {provider.tokens['access_token']}"
        return _json(provider.userinfo) if known else Response(status_code=401)

    async def revoke(request: Request) -> Response:
        provider.revocations.append(dict(parse_qsl((await request.body()).decode(), keep_blank_values=True)))
        answer = _json({"error": provider.revocation_error} if provider.revocation_error else {})
        answer.status_code = provider.revocation_status
        return answer

    app = Starlette(
        routes=[
            Route("/token", token, methods=["POST"]),
            Route("/userinfo", userinfo),
            Route("/revoke", revoke, methods=["POST"]),
        ]
    )
    with LiveApp(app) as live:
        provider.url = live.url
        yield provider


def _json(value: Mapping[str, Any]) -> Response:
    return Response(json.dumps(value), media_type="application/json", headers={"Cache-Control": "no-store"})
