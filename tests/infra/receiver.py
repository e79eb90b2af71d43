"""A receiver of webhooks: it keeps what reaches it and answers what the test says."""

import asyncio
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook as Verifier

from tests.infra.scripted import Answer, Request, ScriptedProvider, answer


@dataclass(frozen=True)
class Received:
    """One message."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event

    @property
    def type(self) -> str:
        return str(self.event["type"])

    def verified_with(self, secret: str) -> Any:
        """Return what the published verifier makes of it; it raises when the signature is wrong."""
        return Verifier(secret).verify(self.body, dict(self.headers))


@dataclass
class Receiver(ScriptedProvider):
    """It accepts what nothing else is said about."""

    received: list[Received] = field(default_factory=list)
    statuses: dict[str, list[bytes]] = field(default_factory=dict)
    """What to answer, by path, one after the other; the last one goes on."""
    held: threading.Event = field(default_factory=threading.Event)
    """While it is set, `/held` does not answer."""
    underway: list[str] = field(default_factory=list)
    """Ids of messages at `/held` that have no answer yet."""

    def __post_init__(self) -> None:
        self.answers(self._receive)

    def at(self, path: str) -> list[Received]:
        """What has reached a path."""
        return [one for one in self.received if one.path == path]

    def answer(self, path: str, *statuses: int, **headers: str) -> None:
        """Say what a path answers, one status after the other, the last one from then on."""
        self.statuses[path] = [answer(status, b"", **headers) for status in statuses]

    async def _receive(self, request: Request) -> Answer:
        message = Received(request.path, request.headers, request.body)
        self.received.append(message)
        if message.path == "/held":
            self.underway.append(message.id)
            while self.held.is_set():
                await asyncio.sleep(0.02)
            self.underway.remove(message.id)
        script = self.statuses.get(message.path) or [answer(204)]
        return script.pop(0) if len(script) > 1 else script[0]
