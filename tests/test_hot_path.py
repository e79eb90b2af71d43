"""What the hot path may cost, in statements instead of seconds; benchmarks/fetch.py measures the seconds."""

import asyncio
import contextlib
import json
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import event, update
from sqlalchemy.engine import Engine

from evergrant import pace
from evergrant.broker.access.management_keys import create_key
from evergrant.broker.access.policies import create_policy
from evergrant.broker.grants.grants import new_grant_id, token_slot
from evergrant.broker.operations.setup import prepare_database
from evergrant.broker.projects.projects import create_project
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.vault import Vault
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.db import Grant, OutboundApp
from evergrant.db.grant import scope_key
from evergrant.db.grant_reader import OwnerKey
from evergrant.logs import redact
from evergrant.oauth2.upstream_messages import UpstreamAnswer, UpstreamRequest
from evergrant.oauth2.way_out import WayOut
from evergrant.pace import Pace
from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.infra.settings import settings_on
from tests.infra.waiting import PATIENCE

SCOPES = ["contacts.readonly", "openid"]
OTHER_KEY = "other-key"
FETCH = "/v1/mgmt/outbound/app/user/token"


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every SQL statement that this process sends, through SQLAlchemy or past it; but for its heartbeat."""
    monkeypatch.setattr(pace, "PACE", Pace(beat=600))
    seen: list[str] = []

    def through_sqlalchemy(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    fetch, fetchrow, connect = asyncpg.Connection.fetch, asyncpg.Connection.fetchrow, sqlite3.connect

    async def seen_fetch(self: asyncpg.Connection, query: str, *arguments: Any, **options: Any) -> Any:
        seen.append(query)
        return await fetch(self, query, *arguments, **options)

    async def seen_fetchrow(self: asyncpg.Connection, query: str, *arguments: Any, **options: Any) -> Any:
        seen.append(query)
        return await fetchrow(self, query, *arguments, **options)

    def traced_connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(seen.append)
        return connection

    monkeypatch.setattr(asyncpg.Connection, "fetch", seen_fetch)
    monkeypatch.setattr(asyncpg.Connection, "fetchrow", seen_fetchrow)
    monkeypatch.setattr(sqlite3, "connect", traced_connect)
    event.listen(Engine, "before_cursor_execute", through_sqlalchemy)
    yield seen
    event.remove(Engine, "before_cursor_execute", through_sqlalchemy)


class Service:
    """evergrant inside this test's loop, with one user's fresh token."""

    def __init__(self, http: httpx2.AsyncClient, app: FastAPI) -> None:
        self.http = http
        self.app = app
        self.broker: Broker = app.state.broker

    async def ask(self, *, latest: bool = False, **members: Any) -> httpx2.Response:
        body: dict[str, Any] = {"appId": "practice", "userId": "alice", "scopes": SCOPES} | members
        return await self.http.post(f"{FETCH}/latest" if latest else FETCH, json=body)

    def asgi(
        self, path: str, body: dict[str, Any] | None, *, method: str = "POST", **more: str
    ) -> Callable[[], Awaitable[int]]:
        """Make a function that asks past HTTP, whose own calls are so few that ours can be counted."""
        sent = json.dumps(body).encode() if body is not None else b""
        headers = [
            (b"authorization", self.http.headers["authorization"].encode()),
            (b"content-length", b"%d" % len(sent)),
            *((name.replace("_", "-").encode(), value.encode()) for name, value in more.items()),
        ]
        client = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1), "scheme": "http", "http_version": "1.1"}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": sent, "more_body": False}

        async def ask() -> int:
            statuses: list[int] = []

            async def send(message: Any) -> None:
                if "status" in message:
                    statuses.append(message["status"])

            place = {"method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""}
            await self.app({"type": "http", "headers": headers, **client, **place}, receive, send)
            return statuses[0]

        return ask

    async def fetch(self, *, latest: bool = False) -> dict[str, Any]:
        answer = await self.ask(latest=latest)
        assert answer.status_code == 200, answer.text
        token: dict[str, Any] = answer.json()["token"]
        return token


@asynccontextmanager
async def service(settings: Settings) -> AsyncIterator[Service]:
    settings = settings.model_copy(update={"refresher": False})
    await prepare_database(settings)
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        broker: Broker = app.state.broker
        now = datetime.now(UTC)
        async with broker.database.write() as session:
            await create_project(broker, session, project_id="Pshop", name="Shop", redirect_origins=[], now=now)
            key = await create_key(session, "Pshop", name="backend", now=now)
            await create_key(session, "Pshop", name="other", key_id=OTHER_KEY, now=now)
            session.add(OutboundApp(project_id="Pshop", id="practice", name="Practice", created_at=now, updated_at=now))
        grant_id = new_grant_id()
        slot = token_slot(OwnerKey("Pshop", "practice", "alice", "", ""), grant_id, "access_token")
        sealed = await broker.vault.seal(slot, SecretStr("alice's token"))
        async with broker.database.write() as session:
            session.add(
                Grant(
                    project_id="Pshop",
                    id=grant_id,
                    app_id="practice",
                    user_id="alice",
                    scope_key=scope_key(SCOPES),
                    scopes=SCOPES,
                    consented_at=now,
                    access_token=sealed,
                    expires_at=now + timedelta(hours=1),
                    fresh_until=now + timedelta(minutes=50),
                )
            )
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app),
            base_url=settings.public_url,
            headers={"Authorization": f"Bearer Pshop:{key.text}"},
        ) as http:
            yield Service(http, app)


@pytest.mark.parametrize("latest", [False, True])
async def test_a_fetch_of_a_fresh_token_is_one_select_once_the_key_is_remembered(
    settings: Settings, statements: list[str], latest: bool
) -> None:
    async with service(settings) as here:
        await here.fetch(latest=latest)
        statements.clear()
        assert (await here.fetch(latest=latest))["accessToken"] == "alice's token"
        assert len(statements) == 1, statements
        assert re.match(r"SELECT .*\sFROM grants\s", statements[0], flags=re.DOTALL)


async def test_the_first_fetch_with_a_key_writes_nothing_either(settings: Settings, statements: list[str]) -> None:
    async with service(settings) as here:
        statements.clear()
        await here.fetch()
        assert statements
        writes = [sql for sql in statements if re.match(r"\s*(INSERT|UPDATE|DELETE)|BEGIN IMMEDIATE", sql)]
        # Signs of life come when they come, also those of other installations in this process, on whichever database.
        beats = [sql for sql in writes if sql.startswith("UPDATE holders")]
        begun = [sql for sql in writes if sql == "BEGIN IMMEDIATE"]
        assert len(writes) == len(beats) + len(begun), writes
        assert len(begun) <= len(beats), writes


async def test_many_at_once_look_up_their_key_and_the_policies_once(settings: Settings, statements: list[str]) -> None:
    async with service(settings) as here:
        statements.clear()
        answers = await asyncio.gather(*(here.ask() for _ in range(30)))
        assert {answer.status_code for answer in answers} == {200}
        for table in ("management_keys", "access_policies"):
            looks = [sql for sql in statements if re.search(rf"\sFROM {table}\s", sql)]
            assert len(looks) == (2 if settings.uses_sqlite else 1), looks  # SQLite's trace shows each once more


MOST_PYTHON_CALLS = 165
"""Python functions that a fetch enters while the row is read: 140 to 155. Through the framework it was over 250."""
OF_THE_LOOP = ("/asyncio/", "/selectors.py", "/asyncpg/", "/tests/")
"""Whose functions do not count: the server has another loop, and the driver's are what they are."""


async def test_a_fetch_opens_one_column_and_enters_few_functions(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_one = Vault.open

    async def seen_open(self: Vault, slot: Slot, sealed: Sealed) -> SecretStr:
        opened.append(slot.column)
        return await open_one(self, slot, sealed)

    monkeypatch.setattr(Vault, "open", seen_open)
    async with service(settings) as here:
        await here.fetch()
        opened.clear()
        ask = here.asgi(FETCH, {"appId": "practice", "userId": "alice", "scopes": SCOPES})
        assert await ask() == 200
        opened.clear()
        status, entered = await entered_by(ask)
        assert (status, opened) == (200, ["access_token"])
        assert entered.total() <= MOST_PYTHON_CALLS, entered.most_common()


async def entered_by(ask: Callable[[], Awaitable[int]]) -> tuple[int, Counter[str]]:
    """Ask, and return the answer's status and the functions that were entered meanwhile."""
    entered: Counter[str] = Counter()

    def count(frame: FrameType, what: str, _argument: object) -> None:
        if what == "call" and not any(part in frame.f_code.co_filename for part in OF_THE_LOOP):
            entered[frame.f_code.co_qualname] += 1

    sys.setprofile(count)
    try:
        return await ask(), entered
    finally:
        sys.setprofile(None)


MOST_OF_A_CALL = 160
"""The same of a call that reads from an API, with a connection that is ready: 148, but for those of the HTTP client."""


class Answering:
    """An API, in place of the HTTP client, which has no part in what is counted."""

    async def send(self, _: UpstreamRequest) -> UpstreamAnswer:
        async def body() -> AsyncIterator[bytes]:
            yield b'{"ok": true}'

        return UpstreamAnswer(200, ((b"content-type", b"application/json"), (b"content-length", b"12")), body())


async def test_a_call_of_an_api_enters_few_functions(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WayOut, "upstream", lambda _: Answering())
    async with service(settings) as here:
        async with here.broker.database.write() as session:
            await session.execute(update(OutboundApp).values(api_base_url="https://api.example.com/v1"))
        ask = here.asgi("/v1/proxy/practice/files", None, method="GET", evergrant_user="alice")
        assert await ask() == 200
        # Of several, because the process's own chores may fall into one.
        seen = [await entered_by(ask) for _ in range(3)]
        assert [status for status, _ in seen] == [200] * 3
        entered = min((entered for _, entered in seen), key=Counter.total)
        assert entered.total() <= MOST_OF_A_CALL, entered.most_common()


async def test_a_hot_row_is_not_read_again_and_everything_else_is_as_ever(
    settings: Settings, statements: list[str]
) -> None:
    async with service(settings.model_copy(update={"hot_set": True})) as here:
        await here.fetch()
        await here.fetch(latest=True)
        statements.clear()
        assert sum(fetches.n for fetches in here.broker.timelines.take_fetches()) == 2
        for latest in (False, True):
            assert (await here.fetch(latest=latest))["accessToken"] == "alice's token"
        assert statements == []
        assert sum(fetches.n for fetches in here.broker.timelines.take_fetches()) == 2

        await create_policy(
            here.broker, "Pshop", app_id="practice", action="fetch", key_ids=[OTHER_KEY], now=datetime.now(UTC)
        )
        assert (await here.ask()).status_code == 403


async def test_a_write_of_the_same_process_ends_a_hot_row_at_once(settings: Settings) -> None:
    async with service(settings.model_copy(update={"hot_set": True})) as here:
        await here.fetch()
        async with here.broker.database.write() as session:
            await session.execute(update(Grant).values(status="pending"))
        assert (await here.ask()).status_code == 404
        async with here.broker.database.write() as session:
            await session.execute(update(Grant).values(status="active"))
        assert (await here.ask()).status_code == 200  # that there was none is not remembered


async def test_a_forced_refresh_never_trusts_a_hot_row(settings: Settings, statements: list[str]) -> None:
    async with service(settings.model_copy(update={"hot_set": True})) as here:
        await here.fetch()
        statements.clear()
        assert (await here.ask(options={"forceRefresh": True})).status_code == 200
        assert [sql for sql in statements if "FROM grants" in sql]


async def test_more_callers_than_held_connections_all_get_their_token(settings: Settings) -> None:
    async with service(settings) as here:
        tokens = await asyncio.gather(*(here.fetch() for _ in range(50)))
        assert {token["accessToken"] for token in tokens} == {"alice's token"}


async def test_sqlite_answers_fetches_while_another_process_writes(sqlite_url: str, data_dir: Path) -> None:
    settings = settings_on(sqlite_url, data_dir)
    async with service(settings) as here:
        with a_writing_process(here.broker.database.engine.url.database or ""):
            assert (await here.fetch())["accessToken"] == "alice's token"


NAMES = ["access_token", "refresh_token", "id_token", "client_secret", "code_verifier", "code", "state", "password"]
NAMES += ["api_key", "apikey", "clientSecret", "accessToken", "refreshToken"]


@pytest.mark.parametrize("spelling", [str, str.upper, str.lower])
@pytest.mark.parametrize("name", NAMES)
def test_sparing_searches_on_the_access_log_spares_no_secret(name: str, spelling: Callable[[str], str]) -> None:
    assert redact(f"GET /callback?{spelling(name)}=planted") == f"GET /callback?{spelling(name)}=[redacted]"


WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
connection.execute("UPDATE grants SET access_token = x'00'")
print("writing", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


@contextlib.contextmanager
def a_writing_process(path: str) -> Iterator[None]:
    """Another process in the middle of a write transaction on every grant."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield
    finally:
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
