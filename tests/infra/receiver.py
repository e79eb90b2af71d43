"""A receiver of webhooks: it keeps what reaches it and answers what the test says."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook as Verifier
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.infra.serving import LiveApp


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
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
        return Verifier(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """It accepts what nothing else is said about."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    answers: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    """What to answer, by path, one after the other; the last one goes on."""
    held: threading.Event = field(default_factory=threading.Event)
    """While it is set, `/held` does not answer."""
    underway: list[str] = field(default_factory=list)
    """Ids of messages at `/held` that have no answer yet."""

    def at(self, path: str) -> list[Received]:
        """What has reached a path."""
        return [one for one in self.received if one.path == path]

    def answer(self, path: str, *statuses: int, **headers: str) -> None:
        """Say what a path answers, one status after the other, the last one from then on."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = [(status, named) for status in statuses]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run one."""
    here = Receiver()

    async def receive(request: Request) -> Response:
        path = request.url.path
        here.received.append(Received(path, dict(request.headers), await request.body()))
        if path == "/held":
            here.underway.append(request.headers["webhook-id"])
            while here.held.is_set():
                await asyncio.sleep(0.02)
            here.underway.remove(request.headers["webhook-id"])
        script = here.answers.get(path) or [(204, {})]
        status, headers = script.pop(0) if len(script) > 1 else script[0]
        return Response(status_code=status, headers=headers)

    with LiveApp(Starlette(routes=[Route("/{path:path}", receive, methods=["POST", "GET"])])) as live:
        here.url = live.url
        try:
            yield here
        finally:
            here.held.clear()
