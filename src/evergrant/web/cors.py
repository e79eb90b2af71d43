"""Calls from browsers on other origins (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol).

Only the calls that browser SDKs make have this, and only for the redirect origins of the project that the credential
belongs to. A preflight carries no credential, so it is answered for the origins of every project; that gives nothing
away that the call itself would not.
"""

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from evergrant.broker.projects.redirects import origins_by_project
from evergrant.broker.runtime.broker import Broker
from evergrant.errors import PermissionDenied
from evergrant.web.deps import get_broker
from evergrant.web.headers import LIMIT_HEADERS

CALLED_FROM_BROWSERS = {
    "/v1/mgmt/outbound/app/connect": "POST",
    "/v1/outbound/oauth/connect": "POST",
    "/v1/mgmt/outbound/apps-with-user-token": "GET",
    "/v1/mgmt/outbound/tokens": "GET",
    "/v1/mgmt/outbound/accounts/session": "POST",
}
_PREFLIGHT_SECONDS = "600"
_EXPOSED = ", ".join(("Retry-After", "X-Request-Id", *LIMIT_HEADERS))


class BrowserRoute(APIRoute):
    """A route whose answers, errors included, a page on one of the project's origins may read."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; the headers are added when the answer starts, since then the project is known."""
        request = Request(scope)
        origin = request.headers.get("origin")
        if origin is None:
            await super().handle(scope, receive, send)
            return

        async def send_with_origin(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.add_vary_header("Origin")
                if await _may_read(get_broker(request), request, origin):
                    headers["Access-Control-Allow-Origin"] = origin
                    headers["Access-Control-Allow-Credentials"] = "true"
                    headers["Access-Control-Expose-Headers"] = _EXPOSED
            await send(message)

        await super().handle(scope, receive, send_with_origin)


async def _may_read(broker: Broker, request: Request, origin: str) -> bool:
    # Without a credential that is good, it is the project that was named: its own pages may read why it is refused.
    named = request.headers.get("authorization", "").partition(" ")[2].strip().partition(":")[0]
    project_id = getattr(request.state, "project_id", named)
    return origin in (await origins_by_project(broker)).get(project_id, ())


async def _preflight(request: Request) -> Response:
    """Say which methods and headers a page may send."""
    origin = request.headers.get("origin", "")
    by_project = await origins_by_project(get_broker(request))
    if not any(origin in origins for origins in by_project.values()):
        raise PermissionDenied("This origin is not one of a project's redirect origins.")
    asked = request.headers.get("access-control-request-headers", "")
    allowed = [name for name in (part.strip().lower() for part in asked.split(",")) if _is_usual(name)]
    headers = {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Methods": CALLED_FROM_BROWSERS[request.scope["path"]],
        "Access-Control-Allow-Headers": ", ".join(allowed),
        "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
        "Vary": "Origin",
    }
    return Response(status_code=204, headers=headers)


def _is_usual(header: str) -> bool:
    """Tell whether it is a header that these calls need, or one of those that the SDKs add."""
    known = header in ("authorization", "content-type") or header.startswith("x-descope-")
    return known and header.replace("-", "").isalnum() and header.isascii()


PREFLIGHTS = [Route(path, _preflight, methods=["OPTIONS"]) for path in CALLED_FROM_BROWSERS]
