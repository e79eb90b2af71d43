"""The span of a call to somebody outside: where it goes, and never which path, which can have a secret in it."""

from evergrant.oauth2.egress import Target
from evergrant.tracing import Span, span


def call_span(method: str, target: Target) -> Span:
    """Return the span of a call, for a `with` block. Whoever is called is told nothing of the trace."""
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.scheme": target.scheme,
        "server.address": target.host,
        "server.port": target.port,
    }
    return span(f"{method} {target.host}", attributes, calls_out=True)
