"""The span of a call to somebody outside: where it goes, and never which path, which can have a secret in it."""

from evergrant.oauth2.egress import Target
from evergrant.tracing import Attributes, Span, span


def call_span(method: str, target: Target, *, what: str = "", more: Attributes | None = None) -> Span:
    """Return the span of a call, for a `with` block. Whoever is called is told nothing of the trace.

    Its name is `what` the call is, or its method, and the host. It has `more` attributes beside its own.
    """
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.scheme": target.scheme,
        "server.address": target.host,
        "server.port": target.port,
        **(more or {}),
    }
    return span(f"{what or method} {target.host}", attributes, calls_out=True)
