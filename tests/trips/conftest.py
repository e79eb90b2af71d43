"""One installation on each database for all trips: each test has a user, and where it needs one an app, of its own."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import func, select

from evergrant.broker.projects.projects import set_redirect_origins
from evergrant.broker.runtime.broker import open_broker, open_database
from evergrant.db import Grant
from tests.infra.databases import settings_for
from tests.infra.installation import Installation, installation
from tests.infra.scripted import ScriptedProvider, scripted_provider

CreateApp = Callable[..., str]


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation that the tests of this folder share."""
    with settings_for(request, tmp_path_factory, log_level="warning") as settings, installation(settings) as running:
        yield running


@pytest.fixture
def user() -> str:
    """A user whom no other test has connected."""
    return f"user-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def create_app(here: Installation) -> CreateApp:
    """Create an app at the practice provider that differs from the usual one in these fields; returns its id."""

    def create(**fields: Any) -> str:
        app_id = f"app-{uuid.uuid4().hex[:12]}"
        here.backend.create_app({**here.provider.registration, "id": app_id, "name": app_id, **fields})
        return app_id

    return create


def allow_origins(here: Installation, *origins: str) -> None:
    """Let trips return to these origins and to no other, as the operator's command does."""

    async def allow() -> None:
        async with open_broker(here.settings) as broker:
            await set_redirect_origins(broker, here.backend.project_id, origins)

    # In a thread of its own: Playwright keeps an event loop running in this one.
    thread = threading.Thread(target=lambda: asyncio.run(allow()))
    thread.start()
    thread.join()


def stored_grants(here: Installation, user: str) -> int:
    """Count a user's rows: no call tells of a grant that nobody may use."""

    async def count() -> int:
        database = open_database(here.settings)
        async with database.read() as session:
            found = await session.scalar(select(func.count()).select_from(Grant).where(Grant.user_id == user))
        await database.engine.dispose()
        return found or 0

    return asyncio.run(count())


@pytest.fixture
def scripted() -> Iterator[ScriptedProvider]:
    """A provider that the test scripts."""
    with scripted_provider() as provider:
        yield provider
