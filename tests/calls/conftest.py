"""An installation whose app has an API that a test scripts."""

import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx2
import pytest
from sqlalchemy import select, update

from evergrant import clock
from evergrant.broker.access.management_keys import create_key
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.principal import Permission
from evergrant.db import AuditEvent, CallRecord, OutboundApp
from tests.infra.databases import settings_for
from tests.infra.installation import Installation, installation
from tests.infra.people import someone
from tests.infra.raw import RawCaller
from tests.infra.scripted import ScriptedProvider, serving
from tests.infra.waiting import PATIENCE, in_a_thread

T = TypeVar("T")


@dataclass
class Api:
    """An app's API, somebody's connection of it, and a key that may call and not fetch."""

    here: Installation
    provider: ScriptedProvider
    app_id: str
    key: str
    http: httpx2.Client = field(init=False, repr=False)
    user: str = ""
    token: str = ""

    def __post_init__(self) -> None:
        self.http = httpx2.Client(base_url=self.here.url, timeout=PATIENCE, trust_env=False)

    @property
    def headers(self) -> dict[str, str]:
        """What every call has: the key, and whose connection."""
        return {"Authorization": f"Bearer {self.here.backend.project_id}:{self.key}", "Evergrant-User": self.user}

    def connect(self, user: str = "", **fields: Any) -> str:
        """Give a user a connection, and return its token."""
        token = f"token-{uuid.uuid4().hex}"
        body = {"appId": self.app_id, "userId": user or self.user, "accessToken": token, "scopes": ["files"], **fields}
        answer = self.here.backend.post("app/user/oauthtoken/upload", body)
        assert answer.status_code == 200, answer.text
        return str(body["accessToken"])

    def call(self, path: str, method: str = "GET", **options: Any) -> httpx2.Response:
        """Call the API with the user's connection, by the key."""
        headers: dict[str, str | None] = {**self.headers, **options.pop("headers", {})}
        kept = {name: value for name, value in headers.items() if value is not None}
        return self.http.request(method, f"/v1/proxy/{self.app_id}{path}", headers=kept, **options)

    def raw(self, path: str, method: str = "GET", headers: Mapping[str, str | None] | None = None) -> httpx2.Response:
        """The same with a path that no client would send as it is."""
        whole = {**self.headers, **(headers or {})}
        lines = [f"{name}: {value}" for name, value in whole.items() if value is not None]
        head = "\r\n".join([f"{method} /v1/proxy/{self.app_id}{path} HTTP/1.1", "host: h", *lines, "connection: close"])
        with RawCaller(self.here.url) as caller:
            caller.send(f"{head}\r\n\r\n".encode())
            said = caller.rest()
        top, _, body = said.partition(b"\r\n\r\n")
        first, *rest = top.decode().split("\r\n")
        fields = [(name, value) for name, _, value in (line.partition(": ") for line in rest)]
        return httpx2.Response(int(first.split(" ")[1]), headers=fields, content=body)

    def session_key(self, **fields: Any) -> str:
        """Mint a session that may read for the user, and return its key."""
        body = {"userId": self.user, "apps": [{"appId": self.app_id}], "agent": {"id": "bot", "name": "Bot"}, **fields}
        answer = self.here.backend.post("session/create", body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["key"])

    def recorded(self) -> list[str]:
        """Return what the audit log has of the app."""

        async def read(broker: Broker) -> list[str]:
            async with broker.database.read() as session:
                return list(await session.scalars(select(AuditEvent.action).where(AuditEvent.app_id == self.app_id)))

        return self.run(read)

    def logged(self) -> list[CallRecord]:
        """Return what the call log has of the app."""

        async def read(broker: Broker) -> list[CallRecord]:
            async with broker.database.read() as session:
                return list(await session.scalars(select(CallRecord).where(CallRecord.app_id == self.app_id)))

        return self.run(read)

    def set_app(self, **columns: Any) -> None:
        """Change columns of the app, past the API, before its first call."""

        async def change(broker: Broker) -> None:
            async with broker.database.write() as session:
                mine = (OutboundApp.project_id == self.here.backend.project_id, OutboundApp.id == self.app_id)
                await session.execute(update(OutboundApp).where(*mine).values(**columns))

        self.run(change)

    def run(self, work: Callable[[Broker], Awaitable[T]]) -> T:
        """Do something with a broker of one's own on the same database."""

        async def do() -> T:
            async with open_broker(self.here.settings) as broker:
                return await work(broker)

        return in_a_thread(do())


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation that all these tests share."""
    with settings_for(request, tmp_path_factory) as settings, installation(settings) as running:
        yield running


@pytest.fixture(scope="session")
def provider() -> Iterator[ScriptedProvider]:
    """An API, and the token endpoint before it."""
    with serving(ScriptedProvider()) as running:
        yield running


@pytest.fixture
def api(here: Installation, provider: ScriptedProvider) -> Iterator[Api]:
    """An app of this test's own with a base, and a user who has connected it."""
    provider.requests.clear()
    provider.routes.clear()
    provider.answers((200, {"ok": True}))
    app_id = here.backend.new_app(provider.registration("api"))

    async def make_key() -> str:
        async with open_broker(here.settings) as broker, broker.database.write() as session:
            made = await create_key(
                session, here.backend.project_id, name=app_id, now=clock.now(), permissions=[Permission.CALLS]
            )
            return made.text

    made = Api(here, provider, app_id, in_a_thread(make_key()), user=someone())
    made.set_app(api_base_url=f"{provider.url}/base", api_further={"uploads": f"{provider.url}/uploads"})
    made.token = made.connect()
    with made.http:
        yield made
