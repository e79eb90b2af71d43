"""An answer as it goes back: without headers that are not for the caller, and without a token that it may not have."""

from collections.abc import AsyncIterator

from evergrant.broker.audit.record import record
from evergrant.broker.calls.asked import CallAnswer
from evergrant.broker.calls.outgoing import PreparedCall
from evergrant.broker.calls.redirects import rewritten
from evergrant.broker.calls.retries import StandingAnswer
from evergrant.errors import UpstreamRejected
from evergrant.oauth2.hygiene import returned
from evergrant.oauth2.scrub import Scrubber
from evergrant.oauth2.upstream_decoding import plain

WITHOUT_BODY = frozenset({204, 304})


async def cleaned(prepared: PreparedCall, standing: StandingAnswer) -> CallAnswer:
    """Return an answer as its caller gets it.

    Raises:
        UpstreamRejected: it is compressed in a way that cannot be looked into, and the caller may not have the token;
            or it has a status that no HTTP answer has.
    """
    answer = standing.answer
    if not 200 <= answer.status <= 599:
        raise UpstreamRejected(f"The API answered with the status {answer.status}.", provider_error="unusable_answer")
    headers = rewritten(prepared, returned(answer.headers))
    if answer.status in WITHOUT_BODY:
        headers = [header for header in headers if header[0].lower() != b"content-length"]
    if standing.retry_now:
        headers.append((b"evergrant-retry-now", b"1"))
    if not prepared.hidden:
        return CallAnswer(status=answer.status, headers=headers, body=_measured(prepared, standing.body))
    body = standing.body
    if prepared.asked.method != "HEAD" and answer.status not in WITHOUT_BODY:
        plain_headers, body = plain(headers, body)
        headers = list(plain_headers)
    scrubber = Scrubber(prepared.hidden)
    headers = scrubber.headers(headers)
    return CallAnswer(
        status=answer.status, headers=headers, body=_scrubbed(prepared, _measured(prepared, body), scrubber)
    )


async def _measured(prepared: PreparedCall, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for part in body:
        prepared.entry.bytes_received += len(part)
        yield part


async def _scrubbed(prepared: PreparedCall, body: AsyncIterator[bytes], scrubber: Scrubber) -> AsyncIterator[bytes]:
    try:
        async for part in body:
            if clean := scrubber.feed(part):
                yield clean
        if rest := scrubber.end():
            yield rest
    finally:
        if scrubber.found:
            await _tell_of_echo(prepared)


async def _tell_of_echo(prepared: PreparedCall) -> None:
    """Tell the audit log that an API sent a token back, once a minute of one caller and app."""
    broker, principal, owner = prepared.broker, prepared.principal, prepared.wanted.owner
    app_id = prepared.asked.app_id
    if not broker.limits.denials.allows((principal.project_id, principal.name, app_id, "call.token_echoed")):
        return
    async with broker.database.write() as session:
        await record(
            session,
            principal.project_id,
            "call.token_echoed",
            app_id=app_id,
            user_id=owner.user_id,
            tenant_id=owner.tenant_id,
            data={"grantId": prepared.view.id, "method": prepared.asked.method, "agentId": principal.agent},
        )
