"""One pure ASGI layer: a request id, a body limit, headers, one log line, a count.

Layers cost: the hot paths have none at all, and do the same themselves (`plain`, `proxy`).
"""

import logging
import time
from collections.abc import Callable
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evergrant.broker.runtime.broker import Broker
from evergrant.errors import MalformedRequest, RequestTooLarge
from evergrant.logs import new_request_id, only_handler, request_id
from evergrant.web.asked import address_of
from evergrant.web.headers import limit_headers, usual_headers
from evergrant.web.proxies import ProxyWatch

log = logging.getLogger("evergrant.access")

MAX_BODY_BYTES = 1024 * 1024
MAX_BATCH_BODY_BYTES = 10 * 1024 * 1024
BATCH_PATHS = frozenset(f"/v1/mgmt/outbound/app/{owner}/oauthtoken/batch/upload" for owner in ("user", "tenant"))

Members = tuple[tuple[str, str], ...]
LONGEST_LOGGED = 300
"""Characters of a path or a name in the access log."""


class AccessLog:
    """Counts answers, and writes a line for each."""

    def __init__(self, trusted_proxies: str, *, is_hot: bool = False) -> None:
        """`is_hot` where the same few paths are asked for again and again, so that a line must cost little."""
        self._proxies = ProxyWatch(trusted_proxies)
        self._is_hot = is_hot

    def note(self, scope: Scope, status: int, *, began: float, level: int = logging.INFO) -> None:
        """Note the answer to a request that began at a second of `time.perf_counter`."""
        broker: Broker = scope["app"].state.broker
        broker.metrics.responded(status)
        state = scope["state"]
        if log.isEnabledFor(level):
            # The path only: query strings carry codes and states. What is secret in a path, the formatter redacts.
            message = f"{scope['method']} {_path(scope['path'])} {status}"
            ms = round((time.perf_counter() - began) * 1000, 1)
            who: Members = (("address", address_of(scope)),)
            where: Members = ()
            if "actor" in state:
                who, where = (("actor", state["actor"][:LONGEST_LOGGED]), *who), (("project", state["project"]),)
            handler = only_handler() if self._is_hot and level == logging.INFO else None
            if handler is not None:
                handler.write_info(log.name, message, who, ms, where)
            else:
                log.log(level, message, extra={**dict(who), "ms": ms, **dict(where)})
        if "actor" not in state:
            self._proxies.look_at(scope)


class RequestMiddleware:
    """Gives every request an id and every answer its headers, refuses bodies that are too large, and logs access."""

    def __init__(
        self, app: ASGIApp, *, on_bug: Callable[[Request], Response], public_url: str, trusted_proxies: str
    ) -> None:
        """`public_url` and `trusted_proxies` are the settings."""
        self._app = app
        self._on_bug = on_bug
        self._headers = usual_headers(public_url)
        self._names = frozenset(name for name, _ in self._headers)
        self._access = AccessLog(trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        rid = new_request_id()
        state = scope.setdefault("state", {})
        token = request_id.set(rid)
        started, status, received, answering = time.perf_counter(), 500, -1, False

        async def limited_receive() -> Message:
            nonlocal received
            if received < 0:
                received = 0
                _check_announced_body(scope)
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                _check_size(scope, received)
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status, answering
            if message["type"] == "http.response.start":
                answering = True
                status = message["status"]
                own = {name for name, _ in message["headers"]}
                usual = self._headers
                if not self._names.isdisjoint(own):
                    usual = [header for header in usual if header[0] not in own]
                left = limit_headers(state["left"]) if "left" in state else ()
                message["headers"] = [*message["headers"], *usual, *left, (b"x-request-id", rid.encode())]
            await send(message)

        try:
            await self._app(scope, limited_receive, send_with_headers)
        except ClientDisconnect:
            status = 400  # half a body; nobody is there to read an answer
        except Exception:  # here, where the request still has its id
            log.exception("a bug")
            if answering:
                raise
            await self._on_bug(Request(scope))(scope, receive, send_with_headers)
        finally:
            self._access.note(scope, status, began=started)
            request_id.reset(token)


def _path(path: str) -> str:
    """Return a path as one word, so that nobody writes into our line by asking for one."""
    if len(path) > LONGEST_LOGGED:
        path = path[:LONGEST_LOGGED] + "..."
    return (
        path if path.isascii() and path.isprintable() and " " not in path else quote(path, safe="/", errors="replace")
    )


async def body_of(scope: Scope, receive: Receive) -> bytes:
    """Read a whole body, as a request's own layers would.

    Raises:
        MalformedRequest, RequestTooLarge: it is encoded, or too large.
        ClientDisconnect: the caller hung up in the middle of it.
    """
    _check_announced_body(scope)
    # Not one body that grows: it would be copied for each part, and a caller chooses how many there are.
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            _check_size(scope, size)
        if not message.get("more_body", False):
            return b"".join(parts)


def _check_announced_body(scope: Scope) -> None:
    """Refuse a body before any of it is read, if its headers say that it would be."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            _check_size(scope, int(value))
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise MalformedRequest.of(("Content-Encoding", "leave it out, and send the body uncompressed"))


def _check_size(scope: Scope, size: int) -> None:
    if size > (MAX_BATCH_BODY_BYTES if scope["path"] in BATCH_PATHS else MAX_BODY_BYTES):
        raise RequestTooLarge
