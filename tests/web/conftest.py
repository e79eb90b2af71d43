"""One running installation per module and database: these tests ask a lot and change little."""

import asyncio
import base64
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from evergrant import clock
from evergrant.broker.access.management_keys import NewKey, create_key
from evergrant.broker.runtime.broker import open_broker
from evergrant.settings import Settings
from tests.infra.databases import fresh_postgres_database, fresh_sqlite_database
from tests.infra.installation import Backend, Installation, installation
from tests.infra.serving import free_port

MakeBackend = Callable[..., Backend]


@contextlib.contextmanager
def settings_for(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of an installation that a module shares, on a fresh database of the kind `request.param` names."""
    data_dir: Path = tmp_path_factory.mktemp("data")
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            url = fresh_sqlite_database(request.getfixturevalue("migrated_sqlite_file"), data_dir)
        else:
            url = stack.enter_context(fresh_postgres_database(request.getfixturevalue("postgres_server")))
        yield Settings(
            data_dir=data_dir,
            database_url=SecretStr(url),
            master_keys=SecretStr(base64.b64encode(os.urandom(32)).decode()),
            public_url=f"http://127.0.0.1:{free_port()}",
            egress_allow="127.0.0.0/8",
            refresher=False,
        )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation that the module shares."""
    with settings_for(request, tmp_path_factory) as settings, installation(settings) as running:
        yield running


@pytest.fixture
def backend_with(here: Installation) -> Iterator[MakeBackend]:
    """Make a backend whose key has these limits; `project_id` for another project than the installation's own."""
    made: list[Backend] = []

    def make(project_id: str = "", **limits: Any) -> Backend:
        project_id = project_id or here.backend.project_id

        async def create() -> NewKey:
            async with open_broker(here.settings) as broker, broker.database.write() as session:
                return await create_key(session, project_id, name="limited", now=clock.utcnow(), **limits)

        made.append(Backend(here.url, project_id, asyncio.run(create()).text))
        return made[-1]

    yield make
    for backend in made:
        backend.http.close()
