"""What holds for every page of evergrant, in a real Chromium: with odd names, light and dark, at any width.

The console's pages are its routes, so that a new one is looked at without being listed here.
"""

import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import pytest
from fastapi.routing import APIRoute
from playwright.sync_api import Browser
from sqlalchemy import event
from sqlalchemy.engine import Engine

from evergrant import clock, pace
from evergrant.broker.runtime.database_health import DatabaseHealth
from evergrant.pace import Pace
from evergrant.settings import Settings
from evergrant.web.app import create_app
from evergrant.web.console.router import router
from tests.infra.chromium import Person
from tests.infra.console import Operator, cookie_of, one_time_link
from tests.infra.crowd import add_crowd
from tests.infra.databases import settings_for
from tests.infra.inspection import ALL_LOOKS, AXE, ONE_LOOK, Inspector
from tests.infra.installation import Backend, new_project
from tests.infra.npm import npm_package
from tests.infra.serving import LiveApp
from tests.infra.waiting import in_a_thread
from tests.infra.world import APPROVAL_ID, PEOPLE, SESSION_ID, STORY_ID, TEST_ID, build_world

PREFIX = "/console/{project}"
NOT_PAGES = {
    "start/steps": "a part of a page",
    "apps/{app_id}/test/{trial_id}/steps": "a part of a page",
    "settings/branding/preview.css": "a stylesheet",
    "audit/export": "a download",
    "calls/export": "a download",
    "{rest:path}": "what there is not",
}
"""Addresses of the console that are no pages, and why."""
VARIANTS = (
    "?p=7d&table=1",
    "apps/new?q=nothing-is-called-so",
    "apps/new?category=ai",
    "apps/openai/credentials",
    "connections?state=reconnect",
    "connections?q=nobody",
    "audit?action=app.updated",
    "calls?agent=inbox-helper",
    "approvals?status=refused",
    f"people/{PEOPLE[0]}?ask=end",
)
"""Pages of the world that say something else by their query."""
LISTS = (
    "",
    "start",
    "apps",
    "connections",
    "keys",
    "agents",
    "approvals",
    "issuers",
    "policies",
    "webhooks",
    "audit",
    "calls",
    "settings/operators",
)
OF_CROWD = ("app_id", "grant_id", "key_id", "issuer_id", "webhook_id", "policy_id", "approval_id", "user")
MOST_BYTES_OF_ODD_ONES = 120_000
"""Fifty rows in which every value is as long as it may be, in letters of two to four bytes each."""
OF_WORLD = {
    "app_id": "google-contacts",
    "grant_id": STORY_ID,
    "trial_id": TEST_ID,
    "key_id": "agentsprod01",
    "issuer_id": "issuer000001",
    "session_id": SESSION_ID,
    "approval_id": APPROVAL_ID,
    "webhook_id": "webhook00001",
    "user": PEOPLE[0],
    "kind": "google-contacts",
}
MOST_STATEMENTS = 6
SECRETS = {
    "clientSecret": "planted-client-secret",
    "accessToken": "planted-access-token",
    "refreshToken": "planted-refresh-token",
}


def paths() -> list[str]:
    """Return what follows the project in the address of each page, with the names of ids in it."""
    gets = [one.path for one in router.routes if isinstance(one, APIRoute) and "GET" in (one.methods or ())]
    found = {path.removeprefix(PREFIX).lstrip("/") for path in gets if path.startswith(PREFIX)}
    assert found > NOT_PAGES.keys()
    return sorted(path.replace(":path}", "}") for path in found - NOT_PAGES.keys())


def names_in(path: str) -> set[str]:
    """Return the names of the ids in a path."""
    return {name for _, name, _, _ in string.Formatter().parse(path) if name}


def pages(ids: Mapping[str, str]) -> list[str]:
    """Return the address of each page that these ids fill in."""
    values = {name: quote(value, safe="") for name, value in ids.items()}
    return [path.format(**values) for path in paths() if names_in(path) <= ids.keys()]


PAGES = (*pages(OF_WORLD), *VARIANTS)


@dataclass
class World:
    """An installation: a project in use, one with fifty odd ones of everything, one with one, one with nothing."""

    settings: Settings
    full: Backend
    many: str
    one: str
    none: str
    crowd: Mapping[str, str]
    """Ids in `many`."""
    planted: Mapping[str, str]
    """Ids of what was made with secrets that are known."""
    secrets: list[str] = field(default_factory=list)

    def url(self, path: str, project_id: str = "") -> str:
        """Return the whole address of a page."""
        whole = f"{self.settings.public_url}/console/{project_id or self.full.project_id}/{path}"
        return re.sub(r"/(?=\?|$)", "", whole)


def plant(backend: Backend) -> tuple[Mapping[str, str], list[str]]:
    """Make one of everything that has a secret; return their ids, and the secrets."""
    registration = {
        "id": "planted",
        "name": "Planted",
        "clientId": "client",
        "clientSecret": SECRETS["clientSecret"],
        "authorizationUrl": "https://login.example.com/authorize",
        "tokenUrl": "https://login.example.com/token",
    }
    backend.create_app(registration)
    tokens = {name: SECRETS[name] for name in ("accessToken", "refreshToken")}
    assert (
        backend.post("app/user/oauthtoken/upload", {"appId": "planted", "userId": "ada", **tokens}).status_code == 200
    )
    grant = backend.http.get("/v1/mgmt/outbound/tokens", params={"userId": "ada"}).json()["tokens"][0]
    hook = backend.post(
        "webhook/create", {"url": "https://hooks.example.com/x", "description": "", "eventTypes": []}
    ).json()
    key = backend.http.put("/v1/mgmt/managementkey", json={"name": "planted", "permissions": ["connect"]}).json()
    ids = {
        "app_id": "planted",
        "grant_id": grant["id"],
        "user": "ada",
        "webhook_id": hook["webhook"]["id"],
        "key_id": key["key"]["id"],
    }
    return ids, [*SECRETS.values(), hook["secret"], key["cleartext"], backend.management_key]


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world on SQLite, in a server that does nothing of its own accord."""
    request.param = "sqlite"
    with (
        settings_for(request, tmp_path_factory, log_level="warning") as settings,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(pace, "PACE", Pace(beat=600, chores=600))
        patch.setattr(DatabaseHealth, "seconds", 600.0)
        full = in_a_thread(build_world(settings, now=clock.now()))
        many, one, none = (new_project(settings).project_id for _ in range(3))
        crowd = in_a_thread(add_crowd(settings, many, 50))
        in_a_thread(add_crowd(settings, one, 1))
        backend = Backend(settings.public_url, full.project_id, full.management_key)
        with LiveApp(create_app(settings), port=urlsplit(settings.public_url).port or 0), backend.http:
            planted, secrets = plant(backend)
            yield World(settings, backend, many, one, none, crowd, planted, secrets)


@pytest.fixture(scope="module")
def inspector(world: World, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspector]:
    axe = npm_package(AXE, tmp_path_factory.mktemp("axe")) / "axe.min.js"
    with Person(browser, {"reduced_motion": "reduce"}) as person:
        name, value = cookie_of(world.settings)
        person.context.add_cookies([{"name": name, "value": value, "url": world.settings.public_url}])
        yield Inspector(person, world.settings.public_url, axe)


def test_every_address_of_the_console_is_looked_at() -> None:
    asked_for = set().union(*map(names_in, paths()))
    assert asked_for <= {*OF_WORLD, *OF_CROWD}, "a page is about something that neither the world nor the crowd has"
    with_both = [path for path in paths() if not (names_in(path) <= {*OF_WORLD} or names_in(path) <= {*OF_CROWD})]
    assert with_both == []


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_for_everybody(path: str, world: World, inspector: Inspector) -> None:
    # The library has 700 entries that look alike: a shelf of it is looked at in all ways.
    looks = ONE_LOOK if path == "apps/new" else ALL_LOOKS
    assert inspector.look(world.url(path), looks=looks) == {}


@pytest.mark.parametrize("path", LISTS)
def test_a_page_is_for_everybody_with_nothing_and_with_one_of_everything(
    path: str, world: World, inspector: Inspector
) -> None:
    for project_id in (world.none, world.one):
        assert inspector.look(world.url(path, project_id), looks=ONE_LOOK) == {}


def test_a_page_is_for_everybody_with_names_as_long_and_odd_as_may_be(world: World, inspector: Inspector) -> None:
    # With one look: what differs from the pages of the world is how long the words are, and which way they run.
    assert world.crowd.keys() == set(OF_CROWD)
    named = [path for path in pages(world.crowd) if path in LISTS or path not in paths()]
    wrong = {
        path: inspector.look(world.url(path, world.many), looks=ONE_LOOK, most_bytes=MOST_BYTES_OF_ODD_ONES)
        for path in named
    }
    assert {path: found for path, found in wrong.items() if found} == {}


def test_pages_outside_of_a_project_are_for_everybody(world: World, inspector: Inspector, browser: Browser) -> None:
    ours = world.settings.public_url
    assert inspector.look(f"{ours}/console") == {}
    assert inspector.look(f"{ours}/console/sign-in") == {}
    assert inspector.look(one_time_link(world.settings)) == {}
    assert inspector.look(f"{ours}/console/enter/no-such-code", status=404) == {}
    assert inspector.look(world.url("nothing/here"), status=404) == {}


def test_visitors_pages_are_for_everybody(world: World, inspector: Inspector) -> None:
    ours, backend = world.settings.public_url, world.full
    session = {"userId": "ada", "userLabel": "Ada Lovelace", "returnUrl": "https://assistant.acme.example/settings"}
    accounts = backend.post("accounts/session", session).json()["url"]
    link = backend.post("app/connect", {"appId": "planted", "userId": "ada"}).json()["url"]
    for url, status in (
        (link, 200),
        (accounts, 200),
        (f"{ours}/accounts", 200),
        (f"{ours}/connect-result", 200),
        (f"{ours}/connect/no-such-ticket", 400),
        (f"{ours}/docs", 200),
        (f"{ours}/docs/tokens", 200),
    ):
        assert inspector.look(url, status=status) == {}, url


def test_a_page_asks_the_database_at_most_six_times_and_shows_no_secret(world: World) -> None:
    asked: list[str] = []

    def seen(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(("BEGIN", "ROLLBACK")):
            asked.append(statement)

    operator = Operator(world.settings, world.full.project_id)
    too_many, shown = {}, {}
    event.listen(Engine, "before_cursor_execute", seen)
    try:
        with operator.http as http:
            http.get(world.url(""))  # the session is remembered from here on
            ours = [world.url(path) for path in {*PAGES, *pages(world.planted)}]
            for path in [*ours, *(world.url(path, world.many) for path in pages(world.crowd))]:
                for _ in range(3):  # what a chore asks meanwhile, or a memory that ran out, is not there each time
                    asked.clear()
                    answer = http.get(path)
                    assert answer.status_code == 200, path
                    if len(asked) <= MOST_STATEMENTS:
                        break
                else:
                    too_many[path] = list(asked)
                if found := [secret for secret in world.secrets if secret in answer.text]:
                    shown[path] = found
    finally:
        event.remove(Engine, "before_cursor_execute", seen)
    assert {path: len(statements) for path, statements in too_many.items()} == {}
    assert shown == {}
