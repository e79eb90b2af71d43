"""One pure ASGI layer: a request id, a body limit, one log line, a count. Layers cost; the hot path has only this."""

import logging
import secrets
import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evergrant.broker.runtime.broker import Broker
from evergrant.errors import RequestTooLarge
from evergrant.logs import request_id

log = logging.getLogger("evergrant.access")

MAX_BODY_BYTES = 1024 * 1024
MAX_BATCH_BODY_BYTES = 10 * 1024 * 1024
BATCH_PATHS = frozenset(f"/v1/mgmt/outbound/app/{owner}/oauthtoken/batch/upload" for owner in ("user", "tenant"))


class RequestMiddleware:
    """Gives every request an id, refuses bodies that are too large and writes the access log."""

    def __init__(self, app: ASGIApp, *, on_bug: Callable[[Request], Response]) -> None:
        self._app = app
        self._on_bug = on_bug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        rid = secrets.token_hex(8)
        token = request_id.set(rid)
        started, status, received, answering = time.perf_counter(), 500, 0, False

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES and (received > MAX_BATCH_BODY_BYTES or scope["path"] not in BATCH_PATHS):
                raise RequestTooLarge
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status, answering
            if message["type"] == "http.response.start":
                answering = True
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", rid.encode())]
            await send(message)

        try:
            await self._app(scope, limited_receive, send_with_id)
        except Exception:  # here, where the request still has its id
            log.exception("a bug")
            if answering:
                raise
            await self._on_bug(Request(scope))(scope, receive, send_with_id)
        finally:
            broker: Broker = scope["app"].state.broker
            broker.metrics.responded(status)
            if log.isEnabledFor(logging.INFO):
                # The path only: query strings carry codes and states. What is secret in a path, the formatter redacts.
                log.info(
                    "%s %s %d",
                    scope["method"],
                    scope["path"],
                    status,
                    extra={"ms": round((time.perf_counter() - started) * 1000, 1)},
                )
            request_id.reset(token)
