"""The practice provider on bad days: a process of its own, with an address by which the soak run steers it.

One in ten calls of the token endpoint goes wrong, in every way that is known from real providers. In all of them but
the cruel ones the provider either does nothing or answers well: nothing can be lost. The cruel ones rotate the refresh
token and let the answer vanish.
"""

import argparse
import asyncio
import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evergrant import clock
from evergrant.practice.faults import Fault, dropped, edited, half_a_body, html, instead
from evergrant.practice.provider import create_provider
from evergrant.practice.state import ProviderState
from evergrant.practice.world import PERSONS

CLIENT_ID = "evergrant"
CLIENT_SECRET = "the provider's secret for evergrant"
SCOPES = ["contacts.readonly"]
LIFETIME_SECONDS = 30
HANG_SECONDS = 40
"""Longer than evergrant waits."""


@dataclass
class Call:
    """One refresh, as the provider saw it. Times are epoch seconds."""

    family: str
    fault: str
    port: int
    """Of the caller's end of the connection: it tells which process called."""
    began: float
    ended: float = 0.0


_current: ContextVar[tuple[Call, Fault | None] | None] = ContextVar("current", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class WithoutRotation(Fault):
    """This answer brings no refresh token, because the one that was sent stays good (RFC 6749 section 6)."""

    state: ProviderState

    async def play(self, work: Callable[[], Response]) -> Response:
        self.state.rotates = False
        try:
            return work()
        finally:
            self.state.rotates = True


def faults(state: ProviderState) -> dict[str, tuple[float, Fault]]:
    """What goes wrong, by name: how often, compared with the others, and how."""
    return {
        "500": (1, instead(500, "Internal Server Error", media_type="text/plain")),
        "429 with Retry-After": (1, instead(429, {"error": "rate_limited"}, headers={"Retry-After": "2"})),
        # A call that hangs occupies its place for as long as evergrant waits, hence so few.
        "hang": (0.05, dropped(lands=False, delay=HANG_SECONDS)),
        "reset": (1, dropped(lands=False)),
        "HTML with 200": (1, html()),
        "HTML with 502": (1, html(502)),
        "half a body": (1, half_a_body(lands=False)),
        "no expires_in": (1, edited(expires_in=None)),
        "no refresh token": (1, WithoutRotation(state=state)),
        "empty scope": (1, edited(scope="")),
    }


CRUEL: dict[str, tuple[float, Fault]] = {
    "reset after the rotation": (0.3, dropped(lands=True)),
    "half a body after the rotation": (0.3, half_a_body(lands=True)),
    "HTML after the rotation": (0.3, html(502, lands=True)),
}


class Weather:
    """Decides what happens to each call of the token endpoint, and writes it down."""

    def __init__(self, app: ASGIApp, state: ProviderState, *, share: float, cruel: bool) -> None:
        self._app, self._state = app, state
        self._bad = faults(state) | (CRUEL if cruel else {})
        self._weights = [weight for weight, _ in self._bad.values()]
        self.share = share
        self.per_second = 0
        """How many calls it takes in a second; 0 for any number."""
        self._allowance, self._allowed_at = 0.0, 0.0
        self.limited = 0
        self.calls: list[Call] = []
        self.played: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/token":
            await self._app(scope, receive, send)
            return
        first = await receive()
        body = first.get("body", b"")
        while first.get("more_body"):
            first = await receive()
            body += first.get("body", b"")
        if self.per_second and not self._is_allowed():
            self.limited += 1
            answer = JSONResponse({"error": "rate_limited"}, 429, headers={"Retry-After": "1"})
            await answer(scope, receive, send)
            return
        token = self._state.refresh_tokens.get(parse_qs(body.decode("utf-8", "replace")).get("refresh_token", [""])[0])
        name, fault = "", None
        if random.random() < self.share:
            (name,) = random.choices(list(self._bad), self._weights)
            fault = self._bad[name][1]
            self.played[name] += 1
        call = Call(token.family.id if token else "", name, scope["client"][1], time.time())
        self.calls.append(call)
        _current.set((call, fault))
        whole: deque[Message] = deque([{"type": "http.request", "body": body, "more_body": False}])
        try:
            await self._app(scope, _Replayed(receive, whole).receive, send)
        finally:
            call.ended = time.time()

    def _is_allowed(self) -> bool:
        """Tell whether one more call is within the limit; what is not used within a second is gone."""
        now = time.monotonic()
        self._allowance = min(self.per_second, self._allowance + (now - self._allowed_at) * self.per_second)
        self._allowed_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


class _Replayed:
    """Gives a body again that was read already, then what comes after it."""

    def __init__(self, receive: Receive, messages: deque[Message]) -> None:
        self._receive, self._messages = receive, messages
        self.transport = getattr(getattr(receive, "__self__", None), "transport", None)  # faults hang up on it

    async def receive(self) -> Message:
        return self._messages.popleft() if self._messages else await self._receive()


class _FaultOfThisCall(deque[Fault]):
    """What the provider takes for its script: always the fault of the very call that asks."""

    def __bool__(self) -> bool:
        current = _current.get()
        return current is not None and current[1] is not None

    def popleft(self) -> Fault:
        current = _current.get()
        assert current is not None
        assert current[1] is not None
        return current[1]


def create_app(*, issuer: str, share: float, cruel: bool) -> ASGIApp:
    """Make the provider with its weather."""
    provider = create_provider(
        issuer=issuer,
        clients={CLIENT_ID: CLIENT_SECRET},
        redirect_uris=[],
        access_token_seconds=LIFETIME_SECONDS,
    )
    state: ProviderState = provider.state.provider
    state.next_token_answers = _FaultOfThisCall()
    weather = Weather(provider, state, share=share, cruel=cruel)
    _add_control(provider, state, weather)
    return weather


def _add_control(provider: FastAPI, state: ProviderState, weather: Weather) -> None:
    @provider.post("/control/consents", response_model=None)
    async def consents(count: int) -> Response:
        """Record consents as if so many users had given theirs some time ago: their tokens end at different times."""
        made = []
        for number in range(count):
            person = list(PERSONS.values())[number % len(PERSONS)]
            family = state.start_family(client_id=CLIENT_ID, person=person, scopes=SCOPES)
            tokens = state.issue(family)
            ends = clock.now() + timedelta(seconds=random.uniform(0.4, 1.0) * LIFETIME_SECONDS)
            state.access_tokens[tokens.access_token].expires_at = ends
            made.append([family.id, tokens.access_token, tokens.refresh_token, int(ends.timestamp())])
        return JSONResponse(made)

    @provider.post("/control/fair", response_model=None)
    async def fair() -> Response:
        """No more faults."""
        weather.share, weather.per_second = 0.0, 0
        return Response()

    @provider.post("/control/limit", response_model=None)
    async def limit(per_second: int) -> Response:
        """Take so many calls a second, and answer 429 to what is more; 0 takes all."""
        weather.per_second = per_second
        return Response()

    @provider.get("/control/counts", response_model=None)
    async def counts() -> Response:
        played = {"calls": len(weather.calls), "reused": state.reuse_detections, "faults": sum(weather.played.values())}
        return JSONResponse(played)

    @provider.get("/control/ledger", response_model=None)
    async def ledger() -> Response:
        """Everything, for the end."""
        revoked: dict[str, Any] = {family.id: family.revoked_because for family in state.revoked_families}
        calls = await asyncio.to_thread(lambda: [asdict(call) for call in weather.calls])
        played = {**weather.played, **({"429 of a limit": weather.limited} if weather.limited else {})}
        return Response(json.dumps({"revoked": revoked, "played": played, "calls": calls}))

    @provider.post("/control/try", response_model=None)
    async def try_tokens(tokens: list[str]) -> Response:
        """Say of each access token what a protected resource says: whose it is, or that it does not work."""
        known = [state.access_tokens.get(token) for token in tokens]
        return JSONResponse([token.family.id if token is not None and token.works else "" for token in known])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--share", type=float, required=True, help="of the calls go wrong")
    parser.add_argument("--cruel", action="store_true")
    options = parser.parse_args()
    uvicorn.run(
        create_app(issuer=f"http://127.0.0.1:{options.port}", share=options.share, cruel=options.cruel),
        host="127.0.0.1",
        port=options.port,
        loop="uvloop",
        http="httptools",
        log_level="error",
        access_log=False,
    )
