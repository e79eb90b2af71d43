"""Asks, after the tokens have come, when they end (RFC 7662) and what calls to the provider's API need.

Both are best effort and short: the tokens are there already, and nothing here may lose them.
"""

import asyncio
import functools
import logging
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import SecretStr

from evergrant import clock
from evergrant.errors import EvergrantError
from evergrant.oauth2.lenient_json import read_json, read_text
from evergrant.oauth2.pointers import find
from evergrant.oauth2.quirks import NO_QUIRKS, Quirks
from evergrant.oauth2.registration import ClientRegistration
from evergrant.oauth2.stated_ends import MAX_LIFETIME_SECONDS
from evergrant.oauth2.token_request import request_values, send_to_token_endpoint
from evergrant.oauth2.token_response import TokenResponse, parse_body
from evergrant.oauth2.transport import Http

log = logging.getLogger(__name__)

SECONDS = 5.0
"""How long each of them may take."""


def with_usual_lifetime(answer: TokenResponse, quirks: Quirks) -> TokenResponse:
    """Return the answer with the provider's usual lifetime where it states none, or 0."""
    return answer if answer.expires_in else replace(answer, expires_in=quirks.default_expires_in or answer.expires_in)


async def with_lifetime(http: Http, client: ClientRegistration, answer: TokenResponse, quirks: Quirks) -> TokenResponse:
    """Return the answer with a lifetime where it states none: as introspection tells, or the usual one."""
    if not answer.expires_in:
        told = await introspected(http, client, answer.access_token, quirks)
        answer = replace(answer, expires_in=told or answer.expires_in)
    return with_usual_lifetime(answer, quirks)


async def introspected(http: Http, client: ClientRegistration, token: SecretStr, quirks: Quirks) -> int | None:
    """Return the seconds that a token has left, where the provider tells (RFC 7662)."""
    if not quirks.introspection_endpoint:
        return None
    try:
        async with asyncio.timeout(SECONDS):
            return await _introspected(http, client, token, quirks)
    except (EvergrantError, TimeoutError) as error:
        log.info("a token could not be introspected", extra={"client": client.name, "why": str(error)})
        return None


async def _introspected(http: Http, client: ClientRegistration, token: SecretStr, quirks: Quirks) -> int | None:
    url = quirks.url(quirks.introspection_endpoint, client.name)
    params = [("token", token.get_secret_value()), ("token_type_hint", "access_token")]
    answer, _ = await send_to_token_endpoint(http, url, client, quirks, params, method="POST")
    members = parse_body(answer.body, answer.headers.get("content-type", "")) or {}
    end = members.get("exp")  # RFC 7662 section 2.2: seconds since the epoch
    if not 200 <= answer.status < 300 or members.get("active") is False or isinstance(end, bool):
        return None
    if not isinstance(end, (int, float)) or not 0 < end < 253_402_300_800:
        return None
    left = (datetime.fromtimestamp(end, UTC) - clock.now()).total_seconds()
    return int(left) if 1 <= left <= MAX_LIFETIME_SECONDS else None


async def context(http: Http, client: ClientRegistration, access_token: SecretStr, quirks: Quirks) -> dict[str, str]:
    """Make the context request and return what it finds, by variable and not yet checked; nothing when it fails."""
    wanted = quirks.context_request
    if wanted is None:
        return {}
    values = request_values(client, NO_QUIRKS, access_token=access_token.get_secret_value())
    try:
        headers = {"Accept": "application/json", **dict(quirks.fill_all(wanted.headers, values))}
        content = wanted.json_body.encode() if wanted.json_body else None
        if content is not None:
            headers.setdefault("Content-Type", "application/json")
        async with asyncio.timeout(SECONDS):
            url = quirks.url(wanted.url, client.name)
            answer = await http.request(wanted.method, url, headers=headers, content=content)
        if not 200 <= answer.status < 300:
            log.warning("a context request was refused", extra={"client": client.name, "status": answer.status})
            return {}
        said = read_json(read_text(answer.body, answer.headers.get("content-type", "")).strip())
        return quirks.captured("context", functools.partial(find, said))
    except (EvergrantError, TimeoutError, ValueError) as error:
        log.warning("a context request failed", extra={"client": client.name, "error": type(error).__name__})
        return {}
