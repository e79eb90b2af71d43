"""One installation, an API, and people who follow links, for all tests of the MCP server."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.infra.databases import fresh_sqlite_database
from tests.infra.installation import APP_ID, BACK, Browser, Installation, installation
from tests.infra.scripted import Request, ScriptedProvider, serving
from tests.infra.settings import settings_on


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave frameworks out, unless everything is asked for: importing one takes seconds."""
    if not config.getoption("everywhere"):
        left_out = [item for item in items if item.get_closest_marker("frameworks")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@dataclass
class Api(ScriptedProvider):
    """An API that says whose token it was called with, and a door at which programs tell a person of a link."""

    here: Installation | None = None
    user: str = ""
    """Who the person is."""
    action: str = "accept"
    """What the person does: `accept` connects first."""
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.routes = {
            "/me": lambda request: {"path": request.target, "method": request.method},
            "/person": self._visit,
        }

    async def _visit(self, request: Request) -> dict[str, Any]:
        url = request.query["url"]
        self.links.append(url)
        if self.action == "accept":
            await asyncio.to_thread(follow, self.here, self.user, url)
        return {"action": self.action}


def follow(here: Installation | None, user: str, url: str) -> None:
    """Be the person whom an agent gave a link: connect, and let the application confirm who it was."""
    assert here is not None
    browser = Browser()
    came = browser.connect(url)
    browser.http.close()
    if confirmation := came.get("confirmation"):
        answer = here.backend.post("app/connect/confirm", {"confirmation": confirmation, "userId": user})
        assert answer.status_code == 200, answer.text


@dataclass
class Agents:
    """An installation with an app that has an API, and sessions for it."""

    here: Installation
    api: Api

    @property
    def url(self) -> str:
        return f"{self.here.url}/mcp/{self.here.backend.project_id}"

    def session(self, user: str, **fields: Any) -> str:
        """Mint a session for a user, and return its key."""
        app = {"appId": APP_ID, "access": "write", **fields.pop("app", {})}
        body = {
            "userId": user,
            "agent": {"id": "helper", "name": "Helper"},
            "apps": [app],
            "connect": True,
            **fields,
        }
        answer = self.here.backend.post("session/create", body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["key"])


@pytest.fixture(scope="session")
def agents(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    """On SQLite alone: what is asked of the database here, others ask of both."""
    with contextlib.ExitStack() as stack:
        folder = tmp_path_factory.mktemp("mcp")
        settings = settings_on(fresh_sqlite_database(migrated_sqlite_file, folder), folder, refresher=False)
        here = stack.enter_context(installation(settings))
        api = stack.enter_context(serving(Api(here=here)))
        here.backend.change_app(apiBaseUrl=api.url, defaultRedirectUrl=BACK)
        yield Agents(here, api)
