"""An authorization server at which clients register by themselves, and which a test scripts."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.infra.scripted import Answer, Request, ScriptedProvider
from tests.infra.waiting import PATIENCE

WELL_KNOWN = "/.well-known/oauth-authorization-server"


@dataclass
class Registrar(ScriptedProvider):
    """What it answers, and what it has seen."""

    metadata: dict[str, Any] = field(default_factory=dict)
    """Members of its metadata that differ from the usual ones; None leaves one out."""
    refusal: tuple[int, Mapping[str, Any]] | None = None
    """What the registration endpoint answers, where it refuses."""
    token_answer: tuple[int, Mapping[str, Any]] = (400, {"error": "invalid_grant"})
    """What the token endpoint answers to a client that it knows."""
    forgotten: int = 0
    """It does not know so many of the first clients any more."""
    together: int = 1
    """So many registrations have to come before the first is answered."""
    registered: list[dict[str, Any]] = field(default_factory=list)
    """The requests that were granted; the n-th made the client `client-n`, with the secret `secret-n`."""

    def __post_init__(self) -> None:
        self.routes = {
            WELL_KNOWN: lambda request: self.document(),
            "/register": self._register,
            "/token": lambda request: self.token_answer if self._knows(request.form) else INVALID_CLIENT,
            "/authorize": (400, "what do you want?"),
        }

    def document(self) -> dict[str, Any]:
        """Its metadata (RFC 8414)."""
        usual = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "registration_endpoint": f"{self.url}/register",
        }
        return {name: value for name, value in (usual | self.metadata).items() if value is not None}

    async def _register(self, request: Request) -> Answer:
        if self.refusal is not None:
            return self.refusal
        number = len(self.registered)
        self.registered.append(request.json)
        async with asyncio.timeout(PATIENCE):
            while len(self.registered) < self.together:
                await asyncio.sleep(0.01)
        made = {"client_id": f"client-{number}", "client_secret": f"secret-{number}", "client_secret_expires_at": 0}
        return 201, request.json | made

    def _knows(self, form: Mapping[str, str]) -> bool:
        pair = form.get("client_id"), form.get("client_secret")
        return pair in [(f"client-{n}", f"secret-{n}") for n in range(self.forgotten, len(self.registered))]


INVALID_CLIENT = (401, {"error": "invalid_client"})
