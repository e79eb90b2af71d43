"""A span for each request, outside of every other layer. There is no such layer while traces are off."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evergrant.broker.runtime.path_globs import METHODS
from evergrant.tracing import tracer_in_use

if TYPE_CHECKING:
    from evergrant.tracing.sdk import Tracer


class TracedRequests:
    """Wraps an application. A span names the route and never the path, whose parts can be secrets."""

    def __init__(self, app: ASGIApp, tracer: "Tracer", *, plain: Collection[str], streamed: bytes) -> None:
        """`plain` are paths that are routes without parameters; what begins with `streamed` is the proxy's."""
        self._app = app
        self._tracer = tracer
        self._plain = plain
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        attributes = {"http.request.method": method, "url.scheme": scope["scheme"]}
        with self._tracer.answering(method, attributes, scope["headers"]) as span:

            async def noted_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    span.note("http.response.status_code", status)
                    if status >= 500:
                        span.fail(str(status))
                    for name, value in message["headers"]:
                        if name == b"x-request-id":
                            span.note("evergrant.request_id", value.decode("latin-1"))
                await send(message)

            try:
                await self._app(scope, receive, noted_send)
            finally:
                if route := self._route(scope):
                    span.rename(f"{method} {route}")
                    span.note("http.route", route)
                if project := scope.get("state", {}).get("project"):
                    span.note("evergrant.project", project)

    def _route(self, scope: Scope) -> str:
        if scope["path"] in self._plain:
            return str(scope["path"])
        if scope["raw_path"].startswith(self._streamed):
            return f"{self._streamed.decode()}{{appId}}/{{path}}"
        return str(getattr(scope.get("route"), "path", ""))


def traced(app: ASGIApp, *, plain: Collection[str], streamed: bytes) -> ASGIApp:
    """Return the application with a span for each request, or as it is while traces are off."""
    tracer = tracer_in_use()
    return app if tracer is None else TracedRequests(app, tracer, plain=plain, streamed=streamed)
