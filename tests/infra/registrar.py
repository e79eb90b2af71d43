"""An authorization server at which clients register by themselves, and which a test scripts."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.infra.serving import LiveApp

WELL_KNOWN = "/.well-known/oauth-authorization-server"


@dataclass
class Registrar:
    """What it answers, and what it has seen."""

    url: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Members of its metadata that differ from the usual ones; None leaves one out."""
    refusal: tuple[int, Mapping[str, Any]] | None = None
    """What the registration endpoint answers, where it refuses."""
    token_answer: tuple[int, Mapping[str, Any]] | None = None
    """What the token endpoint answers to a client that it knows, where that is not `invalid_grant`."""
    together: int = 1
    """So many registrations have to come before the first is answered."""
    registered: list[dict[str, Any]] = field(default_factory=list)
    """The requests that were granted; the n-th made the client `client-n`, with the secret `secret-n`."""
    token_requests: list[dict[str, str]] = field(default_factory=list)

    def knows(self, client_id: str, secret: str) -> bool:
        """Tell whether a client is registered, with this secret."""
        return any((client_id, secret) == (f"client-{n}", f"secret-{n}") for n in range(len(self.registered)))

    def document(self) -> dict[str, Any]:
        """Its metadata (RFC 8414)."""
        usual = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "registration_endpoint": f"{self.url}/register",
        }
        return {name: value for name, value in (usual | self.metadata).items() if value is not None}


@contextmanager
def registrar() -> Iterator[Registrar]:
    """Run one."""
    state = Registrar()

    async def metadata(request: Request) -> Response:
        return JSONResponse(state.document())

    async def register(request: Request) -> Response:
        if state.refusal is not None:
            status, members = state.refusal
            return JSONResponse(members, status)
        wish = json.loads(await request.body())
        number = len(state.registered)
        state.registered.append(wish)
        async with asyncio.timeout(20):
            while len(state.registered) < state.together:
                await asyncio.sleep(0.01)
        made = {"client_id": f"client-{number}", "client_secret": f"secret-{number}", "client_secret_expires_at": 0}
        return JSONResponse(wish | made, 201)

    async def token(request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        state.token_requests.append(form)
        if not state.knows(form.get("client_id", ""), form.get("client_secret", "")):
            return JSONResponse({"error": "invalid_client"}, 401)
        status, members = state.token_answer or (400, {"error": "invalid_grant"})
        return JSONResponse(members, status)

    async def authorize(request: Request) -> Response:
        return Response("what do you want?", 400)

    app = Starlette(
        routes=[
            Route(WELL_KNOWN, metadata),
            Route("/register", register, methods=["POST"]),
            Route("/token", token, methods=["POST"]),
            Route("/authorize", authorize),
        ]
    )
    with LiveApp(app) as live:
        state.url = live.url
        yield state
