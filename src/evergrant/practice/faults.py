"""Scripted bad days of the token endpoint, as tests push them to `ProviderState.next_token_answers`.

A fault says three things: whether the normal work is done (codes are spent, refresh tokens rotate), how long
the answer is held back, and what becomes of it. The functions below build the usual ones.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What /token does with one request, by the order in which requests arrive.

    Attributes:
        lands: whether the normal work is done, before the delay.
        delay: seconds that the answer is held back.
        answer: turns the normal answer into the one sent. Without landing it is given an empty 503.
    """

    lands: bool = True
    delay: float = 0.0
    answer: Callable[[Response], Response] = lambda normal: normal

    async def play(self, work: Callable[[], Response]) -> Response:
        """Return the answer to send; `work` does the normal work."""
        normal = work() if self.lands else Response(status_code=503)
        if self.delay:
            await asyncio.sleep(self.delay)
        return self.answer(normal)


def instead(
    status: int,
    body: str | Mapping[str, Any] = "",
    *,
    headers: Mapping[str, str] | None = None,
    media_type: str = "application/json",
    delay: float = 0.0,
    lands: bool = False,
) -> Fault:
    """Answer `status` and `body` (a mapping is sent as JSON) instead of the normal answer."""
    text = body if isinstance(body, str) else json.dumps(body)
    return Fault(
        lands=lands,
        delay=delay,
        answer=lambda _normal: Response(text, status, headers, media_type),
    )


def slow(seconds: float) -> Fault:
    """Do the work at once, and hold the normal answer back."""
    return Fault(delay=seconds)


def edited(**fields: Any) -> Fault:
    """Do the work, and change the JSON answered: a field given as None is left out."""

    def edit(normal: Response) -> Response:
        answer = json.loads(bytes(normal.body)) | fields
        kept = {name: value for name, value in answer.items() if value is not None}
        return Response(json.dumps(kept), normal.status_code, {"Cache-Control": "no-store"}, "application/json")

    return Fault(answer=edit)


def html(status: int = 200, *, lands: bool = False) -> Fault:
    """Answer a web page, as overloaded providers and their proxies do."""
    return instead(status, "<!doctype html><title>Be right back</title>", media_type="text/html", lands=lands)


def half_a_body(*, lands: bool = True) -> Fault:
    """Announce the whole answer, send half of it and close the connection; without landing, of a made-up one."""
    made_up = JSONResponse({"access_token": "made-up", "token_type": "Bearer", "expires_in": 3600})
    return Fault(lands=lands, answer=lambda normal: _Cut(normal if lands else made_up, keeps=0.5))


def dropped(*, lands: bool = True, delay: float = 0.0) -> Fault:
    """Close the connection without a byte of an answer; by default after the work landed, the cruel case."""
    return Fault(lands=lands, delay=delay, answer=lambda normal: _Cut(normal, keeps=0.0))


class _Cut(Response):
    """An answer cut off after `keeps` (a part of 1) of its body; at 0 not even the status is sent."""

    def __init__(self, whole: Response, *, keeps: float) -> None:
        super().__init__(bytes(whole.body), whole.status_code, media_type="application/json")
        self.keeps = keeps

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        # ASGI has no word for hanging up. uvicorn hands out `receive` as a method of the object that owns the
        # connection; on any other server an exception is the nearest thing.
        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        if self.keeps:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            part = bytes(self.body)[: int(len(self.body) * self.keeps)]
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if transport is None:
            raise ConnectionResetError("the practice provider hangs up")
        transport.close()
        while (await receive())["type"] != "http.disconnect":
            pass
