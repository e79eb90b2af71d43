"""Sends a call until it has an answer that stands: once more with a newer token, or after the time an API states."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from evergrant import clock
from evergrant.broker.calls.connections import not_connected, open_credential
from evergrant.broker.calls.outgoing import PreparedCall
from evergrant.broker.calls.sending import send
from evergrant.broker.refresh.refresh import refresh_grant
from evergrant.broker.runtime.broker import REFUSED_TOKEN_SECONDS, Broker
from evergrant.broker.tokens.fetch import WAIT_SECONDS
from evergrant.db.grant_reader import GrantView, OwnerKey
from evergrant.errors import (
    AnswerLost,
    ReauthorizationRequired,
    TokenNotFound,
    Unavailable,
    UpstreamRejected,
    UpstreamUnavailable,
)
from evergrant.oauth2.api_check import says_expired, stated_wait
from evergrant.oauth2.incoming import HttpAnswer
from evergrant.oauth2.lenient_json import read_json, read_text
from evergrant.oauth2.upstream_messages import UpstreamAnswer

READ_BYTES = 64 * 1024
"""How much of an answer is read to see whether it says that the token has ended."""
WAITED_FOR = frozenset({429, 503})


@dataclass(slots=True)
class StandingAnswer:
    """An answer of the API that goes back to the caller."""

    answer: UpstreamAnswer
    body: AsyncIterator[bytes] = field(repr=False)
    url: str = field(default="", repr=False)
    """Where it comes from, where the API has redirected to a file store; empty for the API's own."""
    retry_now: bool = False
    """Whether there is a newer token now, and the caller has to send its body again itself."""


async def answered(prepared: PreparedCall) -> StandingAnswer:
    """Send a call, and return the answer that stands, which the caller ends.

    Raises:
        NotConnected: the API refused the token, and the connection turned out to be dead.
        EgressRefused, UpstreamUnavailable, AnswerLost, UpstreamRejected: as `Upstream.send`.
    """
    waits_left, seconds_left, is_renewed = prepared.asked.retries, prepared.asked.max_wait_seconds, False
    while True:
        answer = await _sent(prepared)
        is_standing = False
        try:
            body, is_refused = await _looked_into(prepared, answer)
            has_newer = is_refused and not is_renewed and await _take_newer_token(prepared)
            is_renewed = is_renewed or is_refused
            wait = None
            if not has_newer:
                wait = _wait(prepared, answer) if waits_left else None
            elif prepared.body.is_replayable:
                continue
            is_standing = has_newer or wait is None or wait > seconds_left
        finally:
            if not is_standing:
                answer.end()
        if is_standing or wait is None:
            return StandingAnswer(answer, body, retry_now=has_newer)
        waits_left, seconds_left = waits_left - 1, seconds_left - wait
        await asyncio.sleep(wait)


async def _sent(prepared: PreparedCall) -> UpstreamAnswer:
    """Send a call; once more where it went over a kept connection that the server closed as it came."""
    prepared.entry.attempts += 1
    try:
        return await send(prepared, prepared.request())
    except AnswerLost as error:
        if not error.on_kept_connection or not prepared.may_repeat:
            raise
    prepared.entry.attempts += 1
    return await send(prepared, prepared.request())


async def _looked_into(prepared: PreparedCall, answer: UpstreamAnswer) -> tuple[AsyncIterator[bytes], bool]:
    """Tell whether an answer refuses the token, and return its body, whatever has been read of it."""
    if answer.status == 401:
        return answer.body, True
    expected = prepared.api.expected
    if all(status != answer.status for status, _, _ in expected.expired):
        return answer.body, False
    kind = next((value.lower() for name, value in answer.headers if name.lower() == b"content-type"), b"")
    if b"json" not in kind:
        return answer.body, False
    parts, size = [], 0
    async for part in answer.body:
        parts.append(part)
        size += len(part)
        if size > READ_BYTES:
            return _both(parts, answer.body), False
    try:
        value = read_json(read_text(b"".join(parts), kind.decode("latin-1")))
    except ValueError:
        value = None
    return _both(parts, answer.body), says_expired(answer.status, value, expected)


async def _both(parts: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    async for part in rest:
        yield part


async def _take_newer_token(prepared: PreparedCall) -> bool:
    """Take a newer token, if there is one or can be one."""
    try:
        newer = await newer_token(prepared.broker, prepared.principal.project_id, prepared.view, now=clock.now())
    except ReauthorizationRequired as error:
        raise not_connected(error) from error
    if newer is None:
        return False
    prepared.broker.ready_connections.clear()  # another process may have refreshed it
    prepared.view = newer
    base = prepared.credential.base.name
    project_id = prepared.principal.project_id
    credential = await open_credential(prepared.broker, project_id, prepared.api, newer, base_name=base)
    # An answer may hold the older one too, which often works on.
    secrets = (*credential.secrets, *prepared.credential.secrets)
    prepared.credential = replace(credential, secrets=tuple(dict.fromkeys(secrets)))
    return True


async def newer_token(broker: Broker, project_id: str, view: GrantView, *, now: datetime) -> GrantView | None:
    """Return a grant whose token an API has refused, with a newer one; None where none can be had now.

    Callers that have seen the same token share one refresh. An API's word forces one a minute, and ends no consent:
    what cannot be refreshed stays as it is.

    Raises:
        ReauthorizationRequired: the token endpoint says that the consent is over.
    """
    if view.refresh_token is None:
        return None
    key = (project_id, view.id)
    since = (now - view.last_refresh_time).total_seconds() if view.last_refresh_time else REFUSED_TOKEN_SECONDS
    is_lately = broker.refused_tokens.get(key) is not None or 0 <= since < REFUSED_TOKEN_SECONDS
    if is_lately and not broker.refreshes.is_running(key):
        return await _already_newer(broker, project_id, view)
    broker.refused_tokens.put(key, True)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            return GrantView.of(
                await refresh_grant(broker, project_id, view.id, seen_version=view.token_version, forced=True)
            )
    except (TimeoutError, TokenNotFound, UpstreamUnavailable, UpstreamRejected, Unavailable) as error:
        if isinstance(error, ReauthorizationRequired):
            raise
        return None


async def _already_newer(broker: Broker, project_id: str, view: GrantView) -> GrantView | None:
    """Return the grant as it is now, if somebody has refreshed it since."""
    owner = OwnerKey(project_id, view.app_id, view.user_id, view.tenant_id, view.external_identifier)
    for now in await broker.grant_reader.of_every_account(owner):
        if now.id == view.id and now.token_version > view.token_version:
            return now
    return None


def _wait(prepared: PreparedCall, answer: UpstreamAnswer) -> float | None:
    """Return the seconds after which an answer says that the call may be repeated; None where it is not."""
    if answer.status not in WAITED_FOR or not prepared.may_repeat:
        return None
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
    return stated_wait(HttpAnswer(answer.status, headers, b""), prepared.api.expected)
