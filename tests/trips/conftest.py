"""One installation on each database for all trips: each test has a user, and where it needs one an app, of its own."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from evergrant.broker.projects.projects import update_project
from evergrant.broker.runtime.broker import open_broker
from tests.infra.databases import settings_for
from tests.infra.installation import Installation, installation
from tests.infra.rows import rows
from tests.infra.scripted import TOKENS, ScriptedProvider, serving
from tests.infra.waiting import in_a_thread

CreateApp = Callable[..., str]


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation that the tests of this folder share."""
    with settings_for(request, tmp_path_factory, log_level="warning") as settings, installation(settings) as running:
        yield running


@pytest.fixture
def create_app(here: Installation) -> CreateApp:
    """Create an app at the practice provider that differs from the usual one in these fields; returns its id."""
    return partial(here.backend.new_app, here.provider.registration)


def allow_origins(here: Installation, *origins: str) -> None:
    """Let trips return to these origins and to no other, as the operator's command does."""

    async def allow() -> None:
        async with open_broker(here.settings) as broker:
            await update_project(broker, here.backend.project_id, redirect_origins=origins)

    in_a_thread(allow())


def stored_grants(here: Installation, user: str) -> int:
    """Count a user's rows: no call tells of a grant that nobody may use."""
    return sum(row["user_id"] == user for row in rows(here.settings, "grants"))


@pytest.fixture
def scripted() -> Iterator[ScriptedProvider]:
    """A provider that the test scripts."""
    with serving(ScriptedProvider({"/token": TOKENS})) as provider:
        yield provider
