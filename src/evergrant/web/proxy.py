"""The proxy: a provider's API behind our own address, with a connection's credential. Plain ASGI, first in line.

Path and query go on byte for byte. What the provider answers goes back as it comes; what evergrant has to say has
`Evergrant-Source: evergrant`.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import unquote_plus

from starlette.types import Receive, Scope, Send

from evergrant import clock
from evergrant.broker.calls.asked import AskedCall
from evergrant.broker.calls.bases import api_of
from evergrant.broker.calls.calls import call
from evergrant.broker.calls.redirects import PROXY_PATH
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.limits import Left
from evergrant.broker.runtime.principal import Principal
from evergrant.crypto.opaque import SESSION_PREFIX
from evergrant.errors import AppNotFound, AuthenticationFailed, EvergrantError, InvalidValue, RateLimited
from evergrant.logs import new_request_id, request_id
from evergrant.oauth2.placement import found_key
from evergrant.oauth2.upstream_messages import BrokenOff
from evergrant.web.deps import recognised_in
from evergrant.web.errors import error_body, error_headers, sayable
from evergrant.web.headers import limit_headers, usual_headers
from evergrant.web.middleware import AccessLog
from evergrant.web.protocol import CALLER

log = logging.getLogger(__name__)

_APP_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_NUMBER = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
Headers = list[tuple[bytes, bytes]]
PROVIDER = (b"evergrant-source", b"provider")
MOST_RETRIES, MOST_WAIT, MOST_SECONDS, SECONDS = 3, 20, 300, 60
LONGEST_ID = 255


class _HungUp(Exception):
    """The caller is gone, in the middle of its request or of the answer."""


class Proxy:
    """`ANY /v1/proxy/{appId}/{path}`."""

    def __init__(self, public_url: str, trusted_proxies: str) -> None:
        self._headers = usual_headers(public_url)
        self._access = AccessLog(trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began, named = time.perf_counter(), request_id.set(new_request_id())
        scope.setdefault("state", {})
        answer = _Answer(send)
        try:
            await self._answer(scope, receive, answer)
        finally:
            # What a provider has answered is in the call log, and a line more would cost as much as the call's way out.
            level = logging.DEBUG if answer.is_providers else logging.INFO
            self._access.note(scope, answer.status, began=began, level=level)
            request_id.reset(named)

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        caller, task, is_gone = scope.get("extensions", {}).get(CALLER), asyncio.current_task(), False

        def hang_up() -> None:
            nonlocal is_gone
            if task is not None:
                is_gone = task.cancel()

        try:
            if caller is not None:
                caller.when_gone(hang_up)
            try:
                await _proxy(scope, receive, answer)
            finally:
                if caller is not None:
                    caller.when_gone(None)
        except _HungUp:
            pass  # nobody is there to read an answer
        except asyncio.CancelledError:
            if not is_gone or task is None or task.uncancel():
                raise
        except (BrokenOff, EvergrantError) as error:
            await self._end(answer, error, caller, scope)
        except Exception:  # here, where the request still has its id
            log.exception("a bug")
            await self._end(answer, EvergrantError(), caller, scope)

    async def _end(self, answer: "_Answer", error: Exception, caller: Any, scope: Scope) -> None:
        """Say what went wrong; where the answer has begun, end it so that nobody takes it for whole."""
        if answer.has_begun:
            log.info("an answer was broken off", extra={"why": str(error)})
            if caller is None:
                raise error
            caller.break_off()
            return
        if isinstance(error, BrokenOff):
            raise error  # from a body, which nobody reads before the answer has begun
        said = sayable(error) if isinstance(error, EvergrantError) else EvergrantError()
        body = json.dumps(error_body(said)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"evergrant-source", b"evergrant"),
            (b"x-request-id", request_id.get().encode()),
            *self._headers,
            *((name.lower().encode(), value.encode()) for name, value in error_headers(said).items()),
        ]
        if isinstance(said, RateLimited):
            headers += limit_headers(Left(said.limit, 0, said.retry_after or 1))
        await answer.begin(said.status, headers)
        await answer.send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


class _Answer:
    """The answer to one request, as far as it has begun."""

    __slots__ = ("has_begun", "is_providers", "send", "status")

    def __init__(self, send: Send) -> None:
        self.send = send
        self.has_begun = False
        self.is_providers = False
        self.status = 400
        """Until it has begun: that of a caller who is gone before."""

    async def begin(self, status: int, headers: Headers) -> None:
        self.has_begun, self.status = True, status
        await self.send({"type": "http.response.start", "status": status, "headers": headers})


async def _proxy(scope: Scope, receive: Receive, answer: _Answer) -> None:
    broker: Broker = scope["app"].state.broker
    app_id, path = _place(scope["raw_path"].decode("latin-1"))
    query = scope["query_string"].decode("latin-1")
    headers = scope["headers"]
    principal, query = await _recognised(scope, broker, app_id, headers, query)
    asked = _asked(scope["method"], app_id, path, query, headers, receive)
    async with call(broker, principal, asked, now=clock.now()) as given:
        answer.is_providers = True
        await answer.begin(given.status, [*given.headers, PROVIDER])
        left = -1
        for name, value in given.headers:
            if name == b"content-length":
                left = int(value)
                break
        async for part in given.body:
            left -= len(part)
            await answer.send({"type": "http.response.body", "body": part, "more_body": left != 0})
            if left == 0:
                return
    await answer.send({"type": "http.response.body"})


def _place(raw_path: str) -> tuple[str, str]:
    app_id, slash, path = raw_path.removeprefix(PROXY_PATH).partition("/")
    return app_id, f"/{path}" if slash else "/"


async def _recognised(scope: Scope, broker: Broker, app_id: str, headers: Headers, query: str) -> tuple[Principal, str]:
    """Authenticate a request, also by a session key in the place of the app's credential, which does not go on.

    Raises:
        AuthenticationFailed, RateLimited: as `authenticate`.
        AppNotFound: there is no such app, for whoever is authenticated.
    """
    authorization = ""
    for name, value in headers:
        if name == b"authorization":
            authorization = value.decode("latin-1")
            break
    key = None
    if authorization[:7].lower() != "bearer ":
        # Where the app's credential stands is told to nobody before it is known who asks.
        names = [name.decode("latin-1") for name, _ in headers]
        parameters = [unquote_plus(part.partition("=")[0]) for part in query.split("&")]
        key = found_key(headers, query, header_names=names, parameter_names=parameters)
    principal = await recognised_in(scope, broker, f"Bearer {key}" if key else authorization)
    if not _APP_ID.fullmatch(app_id):
        raise AppNotFound
    if key:
        own = (await api_of(broker, principal.project_id, app_id)).api.credential
        if key != found_key(headers, query, header_names=[own.name], parameter_names=[own.name]):
            raise AuthenticationFailed
    if SESSION_PREFIX in query:
        query = "&".join(part for part in query.split("&") if SESSION_PREFIX not in unquote_plus(part))
    return principal, query


def _asked(method: str, app_id: str, path: str, query: str, headers: Headers, receive: Receive) -> AskedCall:
    """Read what a call is asked for by its `Evergrant-*` headers.

    Raises:
        InvalidValue: one of them cannot be used.
    """
    said = _said(headers)
    length, has_body = None, False
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            has_body = True
    user, tenant = _identifier(said, "evergrant-user"), _identifier(said, "evergrant-tenant")
    account = said.get("evergrant-external-identifier")
    if account is not None:
        account = _identifier(said, "evergrant-external-identifier")
    scopes = said.get("evergrant-scopes")
    return AskedCall(
        app_id=app_id,
        method=method,
        path=path,
        query=query,
        headers=headers,
        body=_body(receive) if has_body or length else None,
        length=length,
        owner=ResourceOwner(user or "", tenant or "") if user or tenant else None,
        base=said.get("evergrant-base", ""),
        external_identifier=account,
        scopes=tuple(dict.fromkeys(scopes.split())) if scopes is not None else None,
        retries=int(_number(said, "evergrant-retry", 0, MOST_RETRIES, usual=0)),
        max_wait_seconds=_number(said, "evergrant-max-wait", 0, MOST_WAIT, usual=MOST_WAIT),
        seconds=_number(said, "evergrant-timeout", 1, MOST_SECONDS, usual=SECONDS),
        begin_connect=said.get("evergrant-connect", "") == "1",
        approval_id=said.get("evergrant-approval", "")[:64],
    )


def _said(headers: Headers) -> Mapping[str, str]:
    """Return our own headers, each of which stands once."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name.startswith(b"evergrant-"):
            known = name.decode("latin-1")
            if known in found:
                raise InvalidValue.of((known.title(), "send it once"))
            try:
                found[known] = value.decode().strip()
            except UnicodeDecodeError:
                raise InvalidValue.of((known.title(), "write it in UTF-8")) from None
    return found


def _identifier(said: Mapping[str, str], name: str) -> str:
    value = said.get(name, "")
    if len(value) > LONGEST_ID:
        raise InvalidValue.of((name.title(), f"use at most {LONGEST_ID} characters"))
    return value


def _number(said: Mapping[str, str], name: str, least: int, most: int, *, usual: float) -> float:
    text = said.get(name)
    if text is None:
        return usual
    if not _NUMBER.fullmatch(text) or not least <= float(text) <= most:
        raise InvalidValue.of((name.title(), f"use a number from {least} to {most}"))
    return float(text)


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _HungUp
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return
