"""One installation on each database for all trips: each test has a user, and where it needs one an app, of its own."""

import asyncio
import base64
import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from evergrant.broker.projects.projects import set_redirect_origins
from evergrant.broker.runtime.broker import open_broker, open_database
from evergrant.db import Grant
from evergrant.settings import Settings
from tests.infra.databases import fresh_postgres_database, fresh_sqlite_database
from tests.infra.installation import Installation, installation
from tests.infra.scripted import ScriptedProvider, scripted_provider
from tests.infra.serving import free_port

CreateApp = Callable[..., str]


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation that the tests of this folder share."""
    data_dir = tmp_path_factory.mktemp("trips")
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            url = fresh_sqlite_database(request.getfixturevalue("migrated_sqlite_file"), data_dir)
        else:
            url = stack.enter_context(fresh_postgres_database(request.getfixturevalue("postgres_server")))
        settings = Settings(
            data_dir=data_dir,
            database_url=SecretStr(url),
            master_keys=SecretStr(base64.b64encode(os.urandom(32)).decode()),
            public_url=f"http://127.0.0.1:{free_port()}",
            egress_allow="127.0.0.0/8",
            refresher=False,
            log_level="warning",
        )
        yield stack.enter_context(installation(settings))


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
