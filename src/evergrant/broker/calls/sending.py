"""Sending a call to an API, as a span of its own while traces are on."""

from urllib.parse import urlsplit

from evergrant.broker.calls.outgoing import PreparedCall
from evergrant.oauth2.upstream_messages import UpstreamAnswer, UpstreamRequest
from evergrant.tracing import span, tracer_in_use


async def send(prepared: PreparedCall, request: UpstreamRequest) -> UpstreamAnswer:
    """Send a request of a call, once. Raises as `Upstream.send`."""
    upstream = prepared.broker.way_out.upstream()
    if tracer_in_use() is None:
        return await upstream.send(request)
    entry, host = prepared.entry, urlsplit(request.url).hostname or ""
    attributes: dict[str, str | int] = {
        "http.request.method": request.method,
        "server.address": host,
        "evergrant.project": prepared.principal.project_id,
        "evergrant.app": entry.app_id,
        "evergrant.connection": entry.grant_id,
        "evergrant.attempt": entry.attempts,
    }
    with span(f"call {host}", attributes, calls_out=True) as sent:
        answer = await upstream.send(request)
        sent.note("http.response.status_code", answer.status)
        return answer
