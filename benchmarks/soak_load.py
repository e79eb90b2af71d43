"""Callers of a soak run: they fetch tokens from the replicas, and show some of them to the provider."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

FETCH = "/v1/mgmt/outbound/app/user/token"
APP_ID = "soak"
DATABASE_AWAY = "E011009"
CALLERS = 40
TRY_EVERY = 10
"""Of so many tokens handed out one is shown to the provider."""
TRY_SECONDS = 3.0
"""It must live that long, because the provider sees it a little later."""
LAST_CALLERS = 16
LAST_SECONDS = 150.0
"""How long the last fetch of a grant is tried again: a lease that a killed process held runs out after 60 s."""


@dataclass(frozen=True)
class User:
    """A user, and the provider's name for the consent."""

    id: str
    family: str


@dataclass(frozen=True)
class Answer:
    """What came of one fetch."""

    kind: str
    """ok, provider away, database away, dead, no answer, other"""
    token: str = ""
    expires: float = 0.0
    text: str = ""


class Load:
    """Fetches random users' tokens, and counts what came of it."""

    def __init__(
        self, http: httpx2.AsyncClient, replicas: Sequence[str], users: Sequence[User], *, provider: str, forced: float
    ) -> None:
        self._http, self._users, self._provider = http, users, provider
        self.replicas = list(replicas)
        """Those that are asked."""
        self._forced = forced
        self.counts: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.longest = 0.0
        """Seconds that a fetch took which was answered."""
        self.longest_ok = 0.0
        """The same for one that brought a token."""
        self.tried = 0
        self.wrong: dict[str, str] = {}
        """Families whose token did not work at the provider although it should, and what was wrong."""
        self._to_try: list[tuple[User, str]] = []

    async def run(self, stop: asyncio.Event, *, per_second: float) -> None:
        """Fetch until `stop` is set."""
        pause = CALLERS / per_second
        await asyncio.gather(*(self._caller(stop, pause) for _ in range(CALLERS)), self._try_some(stop))

    async def _caller(self, stop: asyncio.Event, pause: float) -> None:
        while not stop.is_set():
            user = random.choice(self._users)
            began = time.monotonic()
            answer = await self.fetch(user, forced=random.random() < self._forced)
            took = time.monotonic() - began
            self.counts[answer.kind] += 1
            if answer.kind == "other":
                self.others[answer.text] += 1
            if answer.kind != "no answer":
                self.longest = max(self.longest, took)
            if answer.kind == "ok":
                self.longest_ok = max(self.longest_ok, took)
                if self.counts["ok"] % TRY_EVERY == 0 and answer.expires > time.time() + TRY_SECONDS:
                    self._to_try.append((user, answer.token))
            await asyncio.sleep(max(0.0, random.expovariate(1 / pause) - took))

    async def fetch(self, user: User, *, forced: bool) -> Answer:
        """Fetch a user's token from any replica."""
        body: dict[str, Any] = {"appId": APP_ID, "userId": user.id, "scopes": ["contacts.readonly"]}
        if forced:
            body |= {"options": {"forceRefresh": True}}
        try:
            response = await self._http.post(random.choice(self.replicas) + FETCH, json=body)
        except httpx2.HTTPError as error:
            # The replica was killed, or has not come back yet.
            return Answer("no answer", text=type(error).__name__)
        if response.status_code == 200:
            token = response.json()["token"]
            return Answer("ok", token["accessToken"], float(token["accessTokenExpiry"] or 0))
        if response.status_code == 503:
            kind = "database away" if DATABASE_AWAY in response.text else "provider away"
            return Answer(kind, text=_message(response))
        if "reauthorization_required" in response.text:
            return Answer("dead", text=_message(response))
        return Answer("other", text=f"{response.status_code} {_message(response)}")

    async def _try_some(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(0.5)
            some, self._to_try = self._to_try, []
            await self.show(some)

    async def show(self, some: Sequence[tuple[User, str]]) -> None:
        """Let the provider look at access tokens that should work."""
        if not some:
            return
        answer = await self._http.post(f"{self._provider}/control/try", json=[token for _, token in some])
        self.tried += len(some)
        for (user, _), family in zip(some, answer.json(), strict=True):
            if family != user.family:
                self.wrong[user.family] = "somebody else's" if family else "refused"

    async def last_fetches(self) -> dict[str, str]:
        """Force a refresh of every grant, when all is well again, and show what comes to the provider.

        Returns:
            What is wrong with those grants that do not bring a working token, by family.
        """
        left = asyncio.Queue[User]()
        for user in self._users:
            left.put_nowait(user)
        failed: dict[str, str] = {}
        good: list[tuple[User, str]] = []
        deadline = time.monotonic() + LAST_SECONDS

        async def work() -> None:
            while not left.empty():
                user = left.get_nowait()
                answer = await self.fetch(user, forced=True)
                while answer.kind not in ("ok", "dead", "other") and time.monotonic() < deadline:
                    await asyncio.sleep(1)
                    answer = await self.fetch(user, forced=True)
                if answer.kind == "ok":
                    good.append((user, answer.token))
                    if len(good) % 100 == 0:
                        await self.show(good[-100:])
                else:
                    failed[user.family] = f"{answer.kind}: {answer.text}"

        work_of: Sequence[Awaitable[None]] = [work() for _ in range(LAST_CALLERS)]
        await asyncio.gather(*work_of)
        await self.show(good[len(good) // 100 * 100 :])
        return failed


def _message(response: httpx2.Response) -> str:
    """Return what an error answer says to a person."""
    try:
        return str(response.json()["errorMessage"])
    except (ValueError, KeyError, TypeError):
        return response.text[:300]
