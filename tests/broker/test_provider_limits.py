"""A provider that says that too much is asked: it says so to one client, and no connection has failed."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from evergrant import refresher
from evergrant.broker.refresh import failures, sweep
from evergrant.broker.runtime.broker import open_broker
from evergrant.settings import Settings
from tests.infra.installation import Installation, installation
from tests.infra.rows import execute, rows
from tests.infra.scripted import Answer, Request, ScriptedProvider, json_answer, serving
from tests.infra.waiting import PATIENCE


@dataclass
class Server(ScriptedProvider):
    """A token endpoint of many clients, which takes so many refreshes of each, and holds back the rest."""

    left: dict[str, int] = field(default_factory=dict)
    """By client; without a number, any."""
    held_back: int | None = None
    """After so many that were held back, it takes everything again."""
    headers: dict[str, str] = field(default_factory=dict)
    refused: int = 0

    def __post_init__(self) -> None:
        self.routes["/token"] = self._token

    def _token(self, request: Request) -> Answer:
        client, token = request.form["client_id"], request.form["refresh_token"]
        if self.left.get(client, 1) <= 0 and self.refused != self.held_back:
            self.refused += 1
            return json_answer(429, {"error": "rate_limited"}, **self.headers)
        self.left[client] = self.left.get(client, 1_000_000) - 1
        return {"access_token": f"at-{token}", "refresh_token": f"{token}+", "expires_in": 3600}


@pytest.fixture
def here(settings: Settings) -> Iterator[Installation]:
    with installation(settings.model_copy(update={"refresher": False})) as running:
        yield running


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as running:
        yield running


def connected(here: Installation, server: Server, client: str, users: int) -> list[str]:
    """Make an app with this client, and return so many users of it whose tokens have ended."""
    registration = {**server.registration(client), "clientId": client, "tokenEndpointAuthMethod": "client_secret_post"}
    here.backend.create_app(registration)
    names = [f"{client}-{n}" for n in range(users)]
    for name in names:
        body = {"appId": client, "userId": name, "refreshToken": f"rt-{name}"}
        here.backend.post("app/user/oauthtoken/upload", body).raise_for_status()
    return names


def fetch(here: Installation, user: str) -> Any:
    body = {"appId": user.partition("-")[0], "userId": user}
    return here.backend.post("app/user/token/latest", body)


def grants(here: Installation) -> dict[str, dict[str, Any]]:
    return {row["user_id"]: row for row in rows(here.settings, "grants")}


def test_one_clients_limit_is_nobody_elses(here: Installation, server: Server) -> None:
    greedy, modest = connected(here, server, "greedy", 8), connected(here, server, "modest", 4)
    server.left["greedy"] = 0
    server.headers = {"Retry_After": "1800"}
    answers = [fetch(here, user) for user in greedy]
    assert [answer.status_code for answer in answers] == [503] * 8
    assert server.refused == 1, "who comes later is told to wait, and the provider is not asked"
    waits = [int(answer.headers["retry-after"]) for answer in answers]
    assert waits[0] in (1800, 1801)
    assert all(1 < wait <= 120 for wait in waits[1:]), "for the others it is not sure that it is about them"
    assert [fetch(here, user).status_code for user in modest] == [200] * 4


def test_a_limit_is_no_failure_of_the_connection(here: Installation, server: Server) -> None:
    (user,) = connected(here, server, "one", 1)
    server.left["one"] = 0
    for _ in range(3):
        execute(here.settings, "UPDATE grants SET refresh_not_before = NULL")
        assert fetch(here, user).status_code == 503
    row = grants(here)[user]
    assert (row["refresh_failures"], row["status"], row["lease_owner"]) == (0, "active", None)
    assert row["interrupted_at"] is None
    server.left["one"] = 5
    execute(here.settings, "UPDATE grants SET refresh_not_before = NULL")
    assert fetch(here, user).status_code == 200


async def test_the_background_brings_everybody_through(
    here: Installation, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "POLL_SECONDS", (0.05, 0.05))
    monkeypatch.setattr(failures, "BACKGROUND_PAUSE", (0.1, 0.5))
    monkeypatch.setattr(failures, "ON_DEMAND_PAUSE", (0.1, 0.5))
    users = await asyncio.to_thread(connected, here, server, "one", 12)
    past = "datetime('now', '-1 minute')" if here.settings.uses_sqlite else "now() - interval '1 minute'"
    await asyncio.to_thread(execute, here.settings, f"UPDATE grants SET next_refresh_at = {past}")
    server.left["one"], server.held_back = 4, 6
    stop = asyncio.Event()
    async with open_broker(here.settings) as broker:
        running = asyncio.create_task(refresher.refresh_until(broker, stop))
        async with asyncio.timeout(PATIENCE):
            while server.left["one"] != 4 - len(users):
                await asyncio.sleep(0.05)
        stop.set()
        await running
        assert not broker.endpoints.at(f"{server.url}/token").is_open
    assert server.refused == 6
    found = await asyncio.to_thread(grants, here)
    assert {found[user]["token_version"] for user in users} == {2}
    assert {found[user]["refresh_failures"] for user in users} == {0}
