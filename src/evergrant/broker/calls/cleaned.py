"""An answer as it goes back: without headers that are not for the caller, and without a token that it may not have."""

from collections.abc import AsyncIterator
from typing import Self

from evergrant.broker.audit.record import record
from evergrant.broker.calls.asked import CallAnswer
from evergrant.broker.calls.outgoing import PreparedCall
from evergrant.broker.calls.redirects import rewritten
from evergrant.broker.calls.retries import StandingAnswer
from evergrant.errors import AnswerUnusable
from evergrant.oauth2.hygiene import returned
from evergrant.oauth2.scrub import Scrubber
from evergrant.oauth2.upstream_decoding import plain

WITHOUT_BODY = frozenset({204, 304})


async def cleaned(prepared: PreparedCall, standing: StandingAnswer) -> CallAnswer:
    """Return an answer as its caller gets it.

    Raises:
        AnswerUnusable: it is compressed in a way that cannot be looked into, and the caller may not have the token;
            or it has a status that no HTTP answer has.
    """
    answer = standing.answer
    if not 200 <= answer.status <= 599:
        raise AnswerUnusable(f"The API answered with the status {answer.status}.")
    headers = rewritten(prepared, returned(answer.headers), url=standing.url)
    if answer.status in WITHOUT_BODY:
        headers = [header for header in headers if header[0].lower() != b"content-length"]
    if standing.retry_now:
        headers.append((b"evergrant-retry-now", b"1"))
    if not prepared.hidden:
        return CallAnswer(status=answer.status, headers=headers, body=_CleanBody(prepared, standing.body, None))
    body = standing.body
    if prepared.asked.method != "HEAD" and answer.status not in WITHOUT_BODY:
        plain_headers, body = plain(headers, body)
        headers = list(plain_headers)
    scrubber = Scrubber(prepared.hidden if prepared.may_have_token else prepared.credential.spellings)
    clean_body = _CleanBody(prepared, body, scrubber)
    headers = scrubber.headers(headers)
    if scrubber.found:
        await clean_body.tell()
    return CallAnswer(status=answer.status, headers=headers, body=clean_body)


class _CleanBody:
    """An answer's body, counted and scrubbed. No generator: each of those costs the loop as much as a piece does."""

    __slots__ = ("_body", "_is_told", "_prepared", "_scrubber")

    def __init__(self, prepared: PreparedCall, body: AsyncIterator[bytes], scrubber: Scrubber | None) -> None:
        self._prepared, self._body, self._scrubber = prepared, body, scrubber
        self._is_told = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        scrubber = self._scrubber
        while True:
            try:
                part = await self._body.__anext__()
            except StopAsyncIteration:
                if scrubber is None or not (rest := scrubber.end()):
                    raise
                return rest
            self._prepared.entry.bytes_received += len(part)
            if scrubber is None:
                return part
            clean = scrubber.feed(part)
            if scrubber.found and not self._is_told:
                await self.tell()
            if clean:
                return clean

    async def tell(self) -> None:
        """Tell the audit log that there was a token."""
        self._is_told = True
        await _tell_of_echo(self._prepared)


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
