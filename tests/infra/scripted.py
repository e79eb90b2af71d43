"""The network's far side as a test scripts it: it keeps every request, and answers what the test says.

Every fake of this folder that speaks HTTP and is not somebody else's software is a `ScriptedProvider`. It speaks HTTP
over a socket by itself, so that it can also break off, drip and answer garbage.
"""

import asyncio
import inspect
import json
import ssl
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from tests.infra.waiting import PATIENCE

TOKENS = {"access_token": "at-1", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "rt-1"}
"""What a token endpoint may answer."""


@dataclass(frozen=True)
class Request:
    """One request as it arrived; header names in small letters."""

    method: str
    target: str
    """Path and query."""
    headers: Mapping[str, str]
    body: bytes
    head: bytes
    """The request line and the headers, as they came."""
    writer: asyncio.StreamWriter = field(repr=False)
    """Where the answer goes: for an answer that is not HTTP, or not all of it."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The form in its body, with what is there twice."""
        return parse_qsl(self.body.decode(), keep_blank_values=True)

    @property
    def form(self) -> dict[str, str]:
        return dict(self.pairs)

    @property
    def all_pairs(self) -> list[tuple[str, Any]]:
        """Its parameters, wherever they stand: in the query and in the body, as a form or as JSON."""
        pairs: list[tuple[str, Any]] = parse_qsl(self.target.partition("?")[2], keep_blank_values=True)
        if self.headers.get("content-type", "").startswith("application/json"):
            return pairs + list(self.json.items())
        return pairs + self.pairs

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.all_pairs)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def local_address(self) -> str:
        """The address that was called."""
        return str(self.writer.get_extra_info("sockname")[0])


Answer = Any
"""Bytes are sent as they are, a pair is a status and JSON, anything else is JSON.

A function of the request returns one of these, at once or as a coroutine, or None where it has answered by itself.
"""


def answer(status: int, body: bytes = b"", content_type: str = "text/plain", **headers: str) -> bytes:
    """Write an HTTP answer; an underscore in a header's name stands for a hyphen."""
    lines = [f"HTTP/1.1 {status} X", f"content-type: {content_type}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def json_answer(status: int, value: Any, **headers: str) -> bytes:
    """The same with JSON."""
    return answer(status, json.dumps(value).encode(), "application/json", **headers)


def form_post_page(request: Request) -> bytes:
    """Answer as an authorization endpoint whose page sends the answer by a form (`response_mode=form_post`)."""
    fields = {"code": "code-1", "state": request.query["state"], "user": '{"name": "Ada & Co"}'}
    inputs = "".join(f'<input type="hidden" name="{n}" value="{escape(v)}">' for n, v in fields.items())
    page = (
        '<!doctype html><title>Scripted</title><link rel="icon" href="data:,">'
        f'<form method="post" action="{escape(request.query["redirect_uri"])}">{inputs}<button>Allow</button></form>'
    )
    return answer(200, page.encode(), "text/html")


NOT_FOUND = answer(404, b"<html>nothing</html>", "text/html")


@dataclass
class ScriptedProvider:
    """Nothing is asked of a person here: a test writes the callback itself, with any code."""

    routes: dict[str, Answer] = field(default_factory=dict)
    """Answers by path. A list is used up from the front, but for its last."""
    others: list[Answer] = field(default_factory=list)
    """The same for every other path."""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answers(self, *answers: Answer) -> None:
        """Say what paths without a route of their own answer, one after the other, the last one from then on."""
        self.others = list(answers)

    def requests_to(self, path: str) -> list[Request]:
        """Return the requests for one path, in their order."""
        return [request for request in self.requests if request.path == path]

    def forms_at(self, path: str) -> list[dict[str, str]]:
        """Return the forms that reached a path."""
        return [request.form for request in self.requests_to(path)]

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

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        try:
            while True:
                request = await _read_request(reader, writer)
                self.requests.append(request)
                found = self.routes.get(request.path, self.others or NOT_FOUND)
                if isinstance(found, list):
                    found = found.pop(0) if len(found) > 1 else found[0]
                if callable(found):
                    made: Any = found(request)
                    found = await made if inspect.isawaitable(made) else made
                    if found is None:
                        continue
                writer.write(_as_bytes(found))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body, head, writer)


def _as_bytes(given: Answer) -> bytes:
    if isinstance(given, bytes):
        return given
    status, value = given if isinstance(given, tuple) else (200, given)
    return json_answer(status, value)


P = TypeVar("P", bound=ScriptedProvider)
T = TypeVar("T")


@contextmanager
def serving(provider: P, host: str = "127.0.0.1", *, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[P]:
    """Run a provider in a thread; give a `port` where it has to be at a known address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="scripted-provider", daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(timeout=PATIENCE)

    try:
        server = run(asyncio.start_server(provider.serve, host, port, ssl=tls))
        provider.port = server.sockets[0].getsockname()[1]
        try:
            yield provider
        finally:
            run(_stop(server))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=PATIENCE)
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
