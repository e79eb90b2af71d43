"""A provider with habits of its own: every address answers what a test says, and all that came is kept."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.infra.serving import LiveApp


@dataclass(frozen=True)
class Call:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str

    @property
    def form(self) -> dict[str, str]:
        """Its form."""
        return dict(parse_qsl(self.body, keep_blank_values=True))

    @property
    def json(self) -> Any:
        """Its JSON."""
        return json.loads(self.body)


@dataclass
class StrangeProvider:
    """What it answers, by path; an answer that is a list is used up from the front, but for its last."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def calls_to(self, path: str) -> list[Call]:
        """Return the requests for one path, in their order."""
        return [call for call in self.calls if call.path == path]


@contextmanager
def strange_provider() -> Iterator[StrangeProvider]:
    """Run one. `/posting` is an authorization endpoint whose page sends the answer by a form (form_post)."""
    provider = StrangeProvider()

    async def posting(request: Request) -> Response:
        query = request.query_params
        fields = {"code": "code-1", "state": query["state"], "user": '{"name": "Ada & Co"}'}
        inputs = "".join(f'<input type="hidden" name="{n}" value="{escape(v)}">' for n, v in fields.items())
        return HTMLResponse(
            '<!doctype html><title>Strange</title><link rel="icon" href="data:,">'
            f'<form method="post" action="{escape(query["redirect_uri"])}">{inputs}<button>Allow</button></form>'
        )

    async def anything(request: Request) -> Response:
        body = (await request.body()).decode()
        headers = {name.lower(): value for name, value in request.headers.items()}
        path = request.url.path
        provider.calls.append(Call(request.method, path, dict(request.query_params), headers, body))
        answer = provider.answers.get(path)
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        status = 404 if answer is None else 200
        if isinstance(answer, tuple):
            status, answer = answer
        return Response(json.dumps(answer), status, media_type="application/json")

    routes = [
        Route("/posting", posting),
        Route("/{path:path}", anything, methods=["GET", "POST", "DELETE"]),
    ]
    with LiveApp(Starlette(routes=routes)) as live:
        provider.url = live.url
        yield provider
