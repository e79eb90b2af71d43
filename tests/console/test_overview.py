"""The overview, an app's activity and the health page: what they say, to whom, and what they cost."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import delete, event, update
from sqlalchemy.engine import Engine

from evergrant import clock, pace
from evergrant.broker.apps.logos import set_app_logo
from evergrant.broker.operators.sessions import begin_session
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.database_health import DatabaseHealth
from evergrant.db import Activity, Grant, ManagementKey, OutboundApp, Webhook
from evergrant.db.engine import Database
from evergrant.errors import Unavailable
from evergrant.pace import Pace
from evergrant.settings import Settings
from evergrant.web.app import create_app
from evergrant.web.console.desk import cookie_name
from tests.infra.console import Operator, words_of
from tests.infra.installation import Installation
from tests.infra.pictures import png
from tests.infra.world import build_world

ONE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
MOST_STATEMENTS = 6
PAGES = ("", "?p=30d&table=1", "/apps/google-contacts/activity", "/health")


class Watched:
    """The console of a world inside this test's loop, and every statement that it sends."""

    def __init__(self, http: httpx2.AsyncClient, broker: Broker, project_id: str) -> None:
        self.http = http
        self.broker = broker
        self.home = f"/console/{project_id}"
        self.project_id = project_id
        self.statements: list[str] = []

    async def words(self, path: str = "") -> str:
        answer = await self.http.get(self.home + path)
        assert answer.status_code == 200, answer.text
        return words_of(answer)

    async def change(self, *statements: Any) -> None:
        async with self.broker.database.write() as session:
            for statement in statements:
                await session.execute(statement.execution_options(synchronize_session=False))


@asynccontextmanager
async def watched(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, role: str = "admin", key_id: str = ""
) -> AsyncIterator[Watched]:
    monkeypatch.setattr(pace, "PACE", Pace(beat=600, chores=600))
    monkeypatch.setattr(DatabaseHealth, "seconds", 600.0)  # this process has been here for a while
    made = await build_world(settings, now=clock.now())
    app = create_app(settings.model_copy(update={"refresher": False}))
    async with app.router.lifespan_context(app):
        broker: Broker = app.state.broker
        way, only = ("key", made.project_id) if key_id else ("link", None)
        value = await begin_session(
            broker, operator="noor", way=way, role=role, project_id=only, key_id=key_id, now=clock.now()
        )
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app),
            base_url=settings.public_url,
            cookies={cookie_name(broker): value},
        ) as http:
            here = Watched(http, broker, made.project_id)

            def seen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
                if not statement.startswith(("BEGIN", "ROLLBACK")):
                    here.statements.append(statement)

            event.listen(Engine, "before_cursor_execute", seen)
            try:
                yield here
            finally:
                event.remove(Engine, "before_cursor_execute", seen)


async def test_a_page_costs_at_most_six_statements(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(settings, monkeypatch) as here:
        await here.words()  # the session is remembered from here on
        for path in PAGES:
            counts = []
            for _ in range(3):  # what others ask meanwhile, or a memory that ran out, is not there each time
                here.broker.to_do.clear()
                here.statements.clear()
                await here.words(path)
                counts.append(len(here.statements))
            assert 0 < min(counts) <= MOST_STATEMENTS, (path, here.statements)


async def test_the_overview_says_what_is_wrong_whose_it_is_and_how_much_was_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(settings, monkeypatch) as here:
        said = await here.words()
        assert "Slack refuses this app for 52 min" in said
        assert "1,204 connections are kept" in said
        assert "Fix Slack" in said
        assert "connections have to be made again" in said
        assert "api.acme.example has not taken webhooks for 84 min" in said
        assert said.index("Slack refuses") < said.index("made again") < said.index("api.acme.example has")
        assert "53,160" in said
        assert "hatched, no refresher ran" in said
        assert "1.8 s average, 7.4 s longest 95% within 2.5 s" in said
        assert "m.okafor at Xero has ended" in said
        assert "The key agents-prod was used from a new address" in said
        table = await here.words("?p=7d&table=1")
        assert "Day (UTC) Refreshed" in table
        assert "Connections 6 to do" in said  # the navigation's red number


@ONE
async def test_apps_have_their_logos_wherever_they_are_listed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(settings, monkeypatch) as here:
        version = await set_app_logo(here.broker, here.project_id, "xero", png(), now=clock.now())
        for path in ("", "/health", "/apps", "/people/ada.lindholm", "/connections?app=xero"):
            page = (await here.http.get(here.home + path)).text
            assert f"/logo/{here.project_id}/xero?v={version}" in page, path
        assert "logos/hubspot.svg" in (await here.http.get(here.home)).text
        grant_id = re.search(r'/connections/([0-9a-f]{32})"', page)
        assert grant_id is not None
        assert f"xero?v={version}" in (await here.http.get(f"{here.home}/connections/{grant_id[1]}")).text


@ONE
async def test_what_needs_nobody_is_not_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(settings, monkeypatch) as here:
        await here.change(
            update(OutboundApp).values(unhealthy_since=None),
            update(Grant).values(status="active", last_refresh_error=""),
            delete(Webhook),
        )
        said = await here.words()
        assert "Everything works." in said
        assert " to do " not in said.replace("Nobody has to do anything", "")


@ONE
async def test_a_missing_refresher_stands_on_top_and_an_expiring_key_at_the_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(settings, monkeypatch) as here:
        soon = clock.now() + timedelta(days=3)
        await here.change(
            delete(Activity).where(Activity.counter == "refresher"),
            update(ManagementKey).where(ManagementKey.name == "dashboard").values(expires_at=soon),
        )
        said = await here.words()
        assert said.index("Nothing refreshes in the background") < said.index("Slack refuses")
        assert said.index("api.acme.example has") < said.index("The key dashboard expires in")
        assert "Nothing refreshes in the background" in await here.words("/health")


@ONE
async def test_at_most_five_things_need_attention_and_the_rest_is_counted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(settings, monkeypatch) as here:
        await here.change(update(OutboundApp).values(unhealthy_since=clock.now(), unhealthy_reason="no"))
        said = await here.words()
        assert said.count("refuses this app") == 5
        assert "Needs attention 11" in said
        assert "And 6 more things" in said


@ONE
async def test_who_may_do_less_sees_less(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(settings, monkeypatch, role="viewer") as here:
        said = await here.words()
        assert "Open Slack" in said
        assert "api.acme.example" not in said
        assert (await here.http.get(f"{here.home}/health")).status_code == 403


@ONE
async def test_who_may_see_some_apps_only_is_told_of_these_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(settings, monkeypatch, role="", key_id="nightlysync1") as here:
        rights = ["audit", "connections:read", "keys", "webhooks"]
        await here.change(update(ManagementKey).where(ManagementKey.name == "nightly-sync").values(permissions=rights))
        said = await here.words("?p=30d")
        assert "Salesforce" in said
        assert "HubSpot" in said
        for other in ("Slack", "Xero", "Google", "api.acme.example", "Latest events", "m.okafor"):
            assert other not in said
        assert "17,573" in said  # 9,118 and 8,455
        await here.change(delete(Activity).where(Activity.app_id.in_(["salesforce", "hubspot"])))
        assert "Tokens fetched 0 none in this period" in await here.words()  # though others have fetched
        for path, status in (("salesforce", 200), ("xero", 403)):
            assert (await here.http.get(f"{here.home}/apps/{path}/activity")).status_code == status


@ONE
async def test_an_app_tells_its_own_and_an_unused_one_that_nothing_has_happened(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(settings, monkeypatch) as here:
        said = await here.words("/apps/google-contacts/activity")
        assert "agents-prod" in said
        assert "invalid_scope 1" in said
        assert "The token endpoint takes 148 ms on average; 95 of 100 calls ended within 250 ms" in said
        assert "Connects" not in await here.words("/apps/openai/activity")  # keys are uploaded, nobody connects
        await here.change(delete(Activity).where(Activity.app_id == "notion"))
        assert "Nothing has happened in this time." in await here.words("/apps/notion/activity")


@ONE
async def test_the_page_says_in_its_frame_that_the_database_is_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(settings, monkeypatch) as here:
        await here.words()
        here.broker.console_sessions.clear()  # as after some seconds

        def away(*_: object) -> None:
            raise Unavailable

        with monkeypatch.context() as patch:
            patch.setattr(Database, "read", away)
            answer = await here.http.get(f"{here.home}?p=7d")
            here.http.cookies.set(cookie_name(here.broker), "another")
            stranger = await here.http.get(f"{here.home}?p=7d")
        assert (answer.status_code, stranger.status_code) == (503, 503)
        assert "The database does not answer Fetches fail too." in words_of(answer)
        assert "Acme Assistant" in words_of(answer)
        assert "Reference" in words_of(answer)
        assert f'href="{here.home}?p=7d" data-retry' in answer.text
        assert "Acme Assistant" not in words_of(stranger)
        assert "The database does not answer" in words_of(stranger)


def test_calls_give_what_the_pages_show(here: Installation, operator: Operator) -> None:
    here.connected("alice")
    assert here.backend.fetch("alice").status_code == 200
    answer = here.backend.get("activity?period=7d")
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["steps"]) == 7
    assert here.backend.get("activity?period=1y").status_code == 400
    glance = here.backend.get("attention").json()
    assert "practice" in [one["appId"] for one in glance["apps"]]


def test_the_checks_of_the_installation_are_those_of_the_command(
    safe_server: None, here: Installation, operator: Operator
) -> None:
    assert "Check the installation" in words_of(operator.get("health"))
    answer = operator.post("health")
    said = words_of(answer)
    assert answer.status_code == 200
    assert "Nothing is wrong" in said
    assert "wraps and unwraps" in said
    assert "evergrant 0." in said


async def test_the_issuers_page_counts_the_tokens_of_a_day(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(settings, monkeypatch) as here:
        assert "1,200 accepted, 1 refused" in await here.words("/issuers")
