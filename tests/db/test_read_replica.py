"""Lists come from a standby where it has everything, and from the primary where it has not."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from evergrant.broker.operations.doctor import examine_installation
from evergrant.broker.operations.doctor_finding import Finding
from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.infra.cable import Cable
from tests.infra.databases import migrate
from tests.infra.installation import Backend, new_project
from tests.infra.pair import PostgresPair
from tests.infra.people import someone
from tests.infra.serving import LiveApp
from tests.infra.settings import settings_on
from tests.infra.waiting import in_a_thread

NAME = "evergrant"
APP = {"id": "files", "name": "Files", "clientId": "c", "clientSecret": "s"}
APP |= {"authorizationUrl": "https://files.example/authorize", "tokenUrl": "https://files.example/token"}


@dataclass
class Here:
    """Two servers on a primary, whose standby is at the other end of a cable."""

    pair: PostgresPair
    cable: Cable
    settings: Settings
    one: Backend
    other: Backend

    def is_listed(self) -> bool:
        """Connect somebody at one server, and tell whether the other one's list shows them, and its fetch answers."""
        user = someone()
        body = {"appId": "files", "userId": user, "accessToken": f"at-{user}"}
        assert self.one.post("app/user/oauthtoken/upload", body).status_code == 200
        fetched = self.other.post("app/user/token/latest", {"appId": "files", "userId": user})
        listed = self.other.get(f"tokens?appId=files&userId={user}")
        assert (fetched.status_code, listed.status_code) == (200, 200), fetched.text + listed.text
        return len(listed.json()["tokens"]) == 1

    def lists_on_the_standby(self) -> int:
        """Return how many lists the standby was asked for so far."""
        return (self.pair.standby.folder / "log").read_text().count("FROM grants")


def finding(settings: Settings) -> Finding:
    """Return what the doctor says about the read replica."""

    async def examine() -> Finding:
        found = [one async for one in examine_installation(settings) if one.what == "read replica"]
        return found[0]

    return in_a_thread(examine())


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with PostgresPair(NAME) as pair:
        migrate(pair.url)
        pair.primary.execute("ALTER ROLE postgres SET log_statement = 'all'")
        cable = Cable(pair.standby)
        read_url = SecretStr(cable.url(NAME))
        folder: Path = tmp_path_factory.mktemp("data")
        settings = settings_on(pair.url, folder, refresher=False, database_read_url=read_url)
        made = new_project(settings)
        with LiveApp(create_app(settings)) as one, LiveApp(create_app(settings)) as other:
            first, second = (Backend(at.url, made.project_id, made.management_key) for at in (one, other))
            first.create_app(APP)
            yield Here(pair, cable, settings, first, second)
            for backend in (first, second):
                backend.http.close()
        cable.remove()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evergrant.db.read_replica.REST_SECONDS", 0.0)


def test_a_list_is_read_from_the_standby_and_shows_what_another_server_has_just_written(here: Here) -> None:
    before = here.lists_on_the_standby()
    assert all(here.is_listed() for _ in range(10))
    assert here.lists_on_the_standby() > before
    assert finding(here.settings).text == "has everything that is committed"


def test_while_the_standby_lags_the_primary_answers_lists(here: Here) -> None:
    here.pair.standby.execute("SELECT pg_wal_replay_pause()")
    before = here.lists_on_the_standby()
    try:
        assert here.is_listed()
        assert here.lists_on_the_standby() == before
        assert "behind the primary; the primary answers lists meanwhile" in finding(here.settings).text
    finally:
        here.pair.standby.execute("SELECT pg_wal_replay_resume()")
    assert here.is_listed()


def test_while_the_standby_is_away_or_silent_the_primary_answers_lists(here: Here) -> None:
    assert here.is_listed()
    for trouble in (here.cable.cut, here.cable.hang):
        trouble()
        try:
            assert here.is_listed()
            assert finding(here.settings).advice
        finally:
            here.cable.mend()
    assert here.is_listed()


def test_a_server_that_is_no_standby_of_this_database_is_never_read(here: Here, postgresql_url: str) -> None:
    for url in (postgresql_url, here.pair.primary.url(NAME), here.pair.standby.url("postgres")):
        found = finding(here.settings.model_copy(update={"database_read_url": SecretStr(url)}))
        assert not found.good
        assert found.text.startswith("EVERGRANT_DATABASE_READ_URL names no standby of this database")
