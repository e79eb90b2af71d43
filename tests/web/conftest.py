"""One running installation per module and database: these tests ask a lot and change little."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from evergrant import clock
from evergrant.broker.access.management_keys import NewKey, create_key
from evergrant.broker.runtime.broker import open_broker
from tests.infra.databases import settings_for
from tests.infra.installation import Backend, Installation, installation, new_project
from tests.infra.issuer import Issuer
from tests.infra.people import trust
from tests.infra.scripted import serving

MakeBackend = Callable[..., Backend]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation that the module shares."""
    with settings_for(request, tmp_path_factory) as settings, installation(settings) as running:
        yield running


@pytest.fixture(scope="module")
def idp(here: Installation) -> Iterator[Issuer]:
    """An identity provider that the project trusts."""
    with serving(Issuer()) as running:
        trust(here.backend, running)
        yield running


@pytest.fixture
def other(here: Installation) -> Iterator[Backend]:
    """The backend of another project of the same installation."""
    made = new_project(here.settings)
    backend = Backend(here.url, made.project_id, made.management_key)
    yield backend
    backend.http.close()


@pytest.fixture
def backend_with(here: Installation) -> Iterator[MakeBackend]:
    """Make a backend whose key has these limits; `project_id` for another project than the installation's own."""
    made: list[Backend] = []

    def make(project_id: str = "", **limits: Any) -> Backend:
        project_id = project_id or here.backend.project_id

        async def create() -> NewKey:
            async with open_broker(here.settings) as broker, broker.database.write() as session:
                return await create_key(session, project_id, name="limited", now=clock.now(), **limits)

        made.append(Backend(here.url, project_id, asyncio.run(create()).text))
        return made[-1]

    yield make
    for backend in made:
        backend.http.close()
