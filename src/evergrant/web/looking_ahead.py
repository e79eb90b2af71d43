"""Browsers that fetch a page before anybody wants to see it: that must use nothing up."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response


def only_looks_ahead(request: Request) -> bool:
    """Tell whether a browser fetches a page before anybody wants to see it."""
    said = [request.headers.get(name, "") for name in ("sec-purpose", "purpose", "x-purpose", "x-moz")]
    return any(word in value.lower() for value in said for word in ("prefetch", "prerender", "preview"))


def not_yet(headers: Mapping[str, str]) -> Response:
    """Answer a browser that looks ahead: it throws an error away, and asks again when somebody goes there."""
    return Response(status_code=503, headers=dict(headers))
