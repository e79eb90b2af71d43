"""Sending a call to an API, as a span of its own while traces are on."""

from evergrant.broker.calls.outgoing import PreparedCall
from evergrant.oauth2.call_span import call_span
from evergrant.oauth2.egress import origin_of_url, parse_target
from evergrant.oauth2.upstream_messages import UpstreamAnswer, UpstreamRequest
from evergrant.tracing import tracer_in_use


async def send(prepared: PreparedCall, request: UpstreamRequest) -> UpstreamAnswer:
    """Send a request of a call, once. Raises as `Upstream.send`."""
    upstream = prepared.broker.way_out.upstream()
    if tracer_in_use() is None:
        return await upstream.send(request)
    try:
        target = parse_target(origin_of_url(request.url))
    except ValueError:  # nobody is called: this is refused
        return await upstream.send(request)
    entry = prepared.entry
    whose: dict[str, str | int] = {
        "evergrant.project": prepared.principal.project_id,
        "evergrant.app": entry.app_id,
        "evergrant.connection": entry.grant_id,
        "evergrant.attempt": entry.attempts,
    }
    with call_span(request.method, target, what="call", more=whose) as sent:
        answer = await upstream.send(request)
        sent.note("http.response.status_code", answer.status)
        return answer
