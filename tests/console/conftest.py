"""One installation on each database for the console's tests, and operators who are signed in."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser

from tests.infra.chromium import Person, chromium
from tests.infra.console import Operator, cookie_of
from tests.infra.databases import settings_for
from tests.infra.installation import Installation, installation


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation that the tests of this folder share."""
    with settings_for(request, tmp_path_factory, log_level="warning") as settings, installation(settings) as running:
        yield running


@pytest.fixture
def operator_as(here: Installation) -> Iterator[Callable[[str], Operator]]:
    """Sign an operator in with a role."""
    made: list[Operator] = []

    def sign_in(role: str) -> Operator:
        made.append(Operator(here.settings, here.backend.project_id, role=role))
        return made[-1]

    yield sign_in
    for one in made:
        one.http.close()


@pytest.fixture
def operator(operator_as: Callable[[str], Operator]) -> Operator:
    """An administrator who is signed in."""
    return operator_as("admin")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all people of a file, in which no test is async: while it runs, so does an event loop."""
    with chromium() as running:
        yield running


@pytest.fixture
def admin_person(browser: Browser, here: Installation) -> Iterator[Person]:
    """An administrator in a Chromium; at the end nothing in any page may have complained."""
    with Person(browser) as person:
        name, value = cookie_of(here.settings)
        person.context.add_cookies([{"name": name, "value": value, "url": here.url}])
        yield person
        assert not person.complaints
