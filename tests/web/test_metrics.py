"""`/metrics`: who may read it, and what it says."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import event, insert

from evergrant import clock
from evergrant.broker.operations import metrics
from evergrant.broker.operations.setup import prepare_database
from evergrant.broker.projects.projects import create_project
from evergrant.broker.refresh import backlog
from evergrant.broker.runtime import breaker
from evergrant.broker.runtime.broker import open_broker
from evergrant.db import Grant, OutboundApp
from evergrant.metrics import FETCH_OUTCOMES
from evergrant.practice.faults import instead
from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.infra.installation import APP_ID, Backend, Installation
from tests.infra.postgres import PostgresServer
from tests.infra.promql import documented_metrics
from tests.infra.rows import execute
from tests.infra.settings import settings_on
from tests.infra.waiting import PATIENCE

TOKEN = "what-prometheus-sends-here"
Labels = Mapping[str, str]


@pytest.fixture(autouse=True)
def _every_scrape_asks_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(metrics, "KEEP_SHARE", 0.0)


class Scrape:
    """What one scrape brought."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The one sample with at least these labels; 0 where there is none yet."""
        found = [s.value for s in self.samples if s.name == f"evergrant_{name}" and labels.items() <= s.labels.items()]
        assert len(found) <= 1, (name, labels)
        return found[0] if found else 0.0


def scrape(here: Installation) -> Scrape:
    answer = httpx2.get(f"{here.url}/metrics", trust_env=False)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(answer.text)


@pytest.fixture
def connected(here: Installation) -> Iterator[Installation]:
    """alice's connection works, and the provider does as it should."""
    here.connected("alice")
    yield here
    here.provider.state.next_token_answers.clear()


def force(here: Installation) -> int:
    """Ask for a refresh at once, whatever went wrong before, and return the status."""
    execute(here.settings, "UPDATE grants SET refresh_not_before = NULL, last_refresh_time = NULL")
    return here.backend.fetch(options={"forceRefresh": True}).status_code


def test_a_fetch_is_timed_under_what_came_of_it(connected: Installation) -> None:
    here = connected
    stranger = Backend(here.url, here.backend.project_id, "evg_wrong")
    faults = here.provider.state.next_token_answers

    def fetch_in_every_way() -> None:
        assert here.backend.fetch().status_code == 200
        assert force(here) == 200
        assert here.backend.fetch("nobody").status_code == 404
        assert stranger.fetch().status_code == 401
        assert here.backend.post("app/user/token", {"appId": APP_ID}).status_code == 400
        faults.append(instead(500, "oops"))
        assert force(here) == 503
        faults.append(instead(401, {"error": "invalid_client"}))
        assert force(here) == 502
        execute(here.settings, "UPDATE grants SET access_token = refresh_token")
        assert here.backend.fetch().status_code == 500
        faults.append(instead(400, {"error": "invalid_grant"}))
        assert force(here) == 404

    before = scrape(here)
    fetch_in_every_way()
    after = scrape(here)
    stranger.http.close()
    counted = {
        o: after.value("fetch_seconds_count", outcome=o) - before.value("fetch_seconds_count", outcome=o)
        for o in FETCH_OUTCOMES
    }
    assert counted == dict.fromkeys(FETCH_OUTCOMES, 1)
    assert after.value("fetch_seconds_sum", outcome="ok") > before.value("fetch_seconds_sum", outcome="ok")
    answered = {
        c: after.value("http_responses_total", code=c) - before.value("http_responses_total", code=c)
        for c in ("2xx", "4xx", "5xx")
    }
    assert answered == {"2xx": 3, "4xx": 4, "5xx": 3}  # the scrape before is among them


def test_refreshes_are_counted_by_app_and_outcome(connected: Installation) -> None:
    here = connected
    app = {"project": here.backend.project_id, "app": APP_ID}
    before = scrape(here)
    force(here)
    here.provider.state.next_token_answers.append(instead(500, "oops"))
    force(here)
    after = scrape(here)
    for outcome in ("refreshed", "unavailable"):
        name = "refreshes_total"
        assert after.value(name, **app, outcome=outcome) == before.value(name, **app, outcome=outcome) + 1, after.text
    assert after.value("refreshes_in_flight") == 0


def test_a_refresh_is_in_flight_until_it_has_landed(connected: Installation) -> None:
    here = connected
    here.provider.state.token_latency = 1.0
    try:
        execute(here.settings, "UPDATE grants SET last_refresh_time = NULL")

        async def fetch_and_look() -> float:
            fetch = asyncio.create_task(asyncio.to_thread(here.backend.fetch, options={"forceRefresh": True}))
            seen = 0.0
            while not fetch.done():
                seen = max(seen, (await asyncio.to_thread(scrape, here)).value("refreshes_in_flight"))
            assert (await fetch).status_code == 200
            return seen

        assert asyncio.run(fetch_and_look()) == 1
    finally:
        here.provider.state.token_latency = 0.0
    assert scrape(here).value("refreshes_in_flight") == 0


def test_an_open_breaker_is_told_without_the_query_and_closes_again(
    connected: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = connected
    monkeypatch.setattr(breaker, "PAUSE", (0.0, 0.0))
    endpoint = {"endpoint": f"{here.provider.url.removeprefix('http://')}/token"}
    assert force(here) == 200  # an answer: whatever failed in the tests before counts no more
    for _ in range(breaker.FAILURES_TO_OPEN):
        assert scrape(here).value("endpoint_breaker_open", **endpoint) == 0
        here.provider.state.next_token_answers.append(instead(500, "oops"))
        force(here)
    assert scrape(here).value("endpoint_breaker_open", **endpoint) == 1
    assert force(here) == 200
    assert scrape(here).value("endpoint_breaker_open", **endpoint) == 0


def test_the_backlog_is_told_by_app_and_counted_so_far_only(
    connected: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = connected
    for user in ("bob", "carol"):
        here.connected(user)
    app = {"project": here.backend.project_id, "app": APP_ID}
    execute(here.settings, "UPDATE grants SET next_refresh_at = NULL")
    assert scrape(here).value("grants_due", **app) == 0
    assert scrape(here).value("grants_overdue_seconds", **app) == 0
    ago = "datetime('now', '-1 hour')" if here.settings.uses_sqlite else "now() - interval '1 hour'"
    execute(here.settings, f"UPDATE grants SET next_refresh_at = {ago} WHERE user_id IN ('alice', 'bob', 'carol')")
    found = scrape(here)
    assert found.value("grants_due", **app) == 3
    assert 3590 < found.value("grants_overdue_seconds", **app) < 3700
    monkeypatch.setattr(backlog, "CAP", 1)
    assert scrape(here).value("grants_due", **app) == 2
    execute(here.settings, "UPDATE grants SET next_refresh_at = NULL")


async def test_counting_the_backlog_reads_its_index_and_no_grant(settings: Settings) -> None:
    await prepare_database(settings)
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    async with open_broker(settings) as broker:
        now = clock.now()
        async with broker.database.write() as session:
            await create_project(broker, session, project_id="P", name="Shop", redirect_origins=[], now=now)
            session.add(OutboundApp(project_id="P", id="a", name="A", created_at=now, updated_at=now))
        row = {"project_id": "P", "app_id": "a", "user_id": "u", "scope_key": "", "scopes": [], "consented_at": now}
        async with broker.database.write() as session:
            await session.execute(
                insert(Grant),
                [row | {"id": f"{n:032d}", "next_refresh_at": now if n < 50 else None} for n in range(5000)],
            )
        engine = broker.database.engine
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.exec_driver_sql("ANALYZE" if broker.database.is_sqlite else "VACUUM ANALYZE grants")
        event.listen(engine.sync_engine, "before_cursor_execute", note)
        (found,) = await backlog.read_backlogs(broker, now=now)
        event.remove(engine.sync_engine, "before_cursor_execute", note)
        assert (found.due, found.age(now=now + timedelta(seconds=9))) == (50, 9)
        ((statement, parameters),) = [one for one in sent if "FROM grants" in one[0]]
        explain = "EXPLAIN QUERY PLAN " if broker.database.is_sqlite else "EXPLAIN "
        async with engine.connect() as connection:
            plan = str((await connection.exec_driver_sql(explain + statement, parameters)).all())
    wanted = "COVERING INDEX ix_grants_due" if broker.database.is_sqlite else "Index Only Scan using ix_grants_due"
    assert plan.count(wanted) == 2, plan  # the number, and the first
    assert "SCAN grants" not in plan
    assert "Seq Scan on grants" not in plan


def test_within_ten_seconds_the_database_is_not_asked_again(
    connected: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = connected
    execute(here.settings, "UPDATE grants SET next_refresh_at = NULL")
    assert scrape(here).value("grants_due", app=APP_ID) == 0
    monkeypatch.setattr(metrics, "KEEP_SECONDS", 10.0)
    past = "'2026-01-01 00:00:00.000000'" if here.settings.uses_sqlite else "now()"
    execute(here.settings, f"UPDATE grants SET next_refresh_at = {past}")
    assert scrape(here).value("grants_due", app=APP_ID) == 0
    monkeypatch.setattr(metrics, "KEEP_SECONDS", 0.0)
    assert scrape(here).value("grants_due", app=APP_ID) > 0
    execute(here.settings, "UPDATE grants SET next_refresh_at = NULL")


def test_an_app_that_its_provider_refuses_is_unhealthy(connected: Installation) -> None:
    here = connected
    force(here)  # whatever another test has left
    assert scrape(here).value("app_unhealthy", app=APP_ID) == 0
    here.provider.state.next_token_answers.append(instead(401, {"error": "invalid_client"}))
    force(here)
    assert scrape(here).value("app_unhealthy", app=APP_ID) == 1
    force(here)
    assert scrape(here).value("app_unhealthy", app=APP_ID) == 0


def test_the_journal_tells_what_waits_how_long_and_what_is_broken(here: Installation) -> None:
    folder = here.settings.data_dir / "journal"
    folder.mkdir(exist_ok=True)
    empty = scrape(here)
    assert (empty.value("journal_entries"), empty.value("journal_oldest_seconds")) == (0, 0)
    for name in ("a.json", "b.json", "c.broken"):
        (folder / name).write_text("{}")
    os.utime(folder / "a.json", (time.time() - 500, time.time() - 500))
    found = scrape(here)
    assert (found.value("journal_entries"), found.value("journal_broken")) == (2, 1)
    assert 490 < found.value("journal_oldest_seconds") < 600
    for path in folder.iterdir():
        path.unlink()


def test_labels_name_projects_apps_and_endpoints_and_nobody(connected: Installation) -> None:
    force(connected)
    found = scrape(connected)
    assert {name for sample in found.samples for name in sample.labels} <= {
        *("project", "app", "outcome", "endpoint", "code", "le", "version", "python")
    }
    assert "alice" not in found.text
    assert found.value("build_info") == 1
    assert found.value("database_up") == 1


def test_the_page_names_every_metric_and_no_other(connected: Installation) -> None:
    force(connected)
    found, documented = scrape(connected), documented_metrics()
    assert {line.split()[2] for line in found.text.splitlines() if line.startswith("# TYPE")} == documented.keys()
    for sample in found.samples:
        name = re.sub("^(evergrant_fetch_seconds)_.*", r"\1", sample.name)
        assert set(sample.labels) - {"le"} == documented[name], name


@asynccontextmanager
async def asking(settings: Settings, *, address: str = "127.0.0.1") -> AsyncIterator[httpx2.AsyncClient]:
    """A client at this address, of a server with these settings."""
    app = create_app(settings.model_copy(update={"refresher": False}))
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app, client=(address, 1)), base_url=settings.public_url
        ) as http,
    ):
        yield http


async def test_without_a_token_only_this_machine_itself_may_read(here: Installation) -> None:
    for address in ("127.0.0.1", "::1"):
        async with asking(here.settings, address=address) as http:
            assert (await http.get("/metrics")).status_code == 200
            for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
                assert (await http.get("/metrics", headers={header: "127.0.0.1"})).status_code == 403
    for address in ("203.0.113.9", "10.0.0.1", "2001:db8::1", ""):
        async with asking(here.settings, address=address) as http:
            refused = await http.get("/metrics")
            assert refused.status_code == 403
            assert "EVERGRANT_METRICS_TOKEN" in refused.text
            assert here.backend.project_id not in refused.text


async def test_with_a_token_whoever_has_it_may_read_and_nobody_else(here: Installation) -> None:
    settings = here.settings.model_copy(update={"metrics_token": SecretStr(TOKEN)})
    for address in ("127.0.0.1", "203.0.113.9"):
        async with asking(settings, address=address) as http:
            for wrong in ("", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer \xe9"):
                refused = await http.get("/metrics", headers=[(b"Authorization", wrong.encode("latin-1"))])
                assert refused.status_code == 401
                assert "EVERGRANT_METRICS_TOKEN" in refused.text
                assert refused.headers["www-authenticate"].startswith("Bearer")
            good = await http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
            assert good.status_code == 200


async def test_while_the_database_is_away_the_rest_is_told(
    postgres_server: PostgresServer, postgresql_url: str, data_dir: Path
) -> None:
    name = postgresql_url.split("?")[0].rsplit("/", 1)[1]
    settings = settings_on(postgresql_url, data_dir)
    async with asking(settings) as http:
        assert Scrape((await http.get("/metrics")).text).value("database_up") == 1
        postgres_server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            found = Scrape((await http.get("/metrics")).text)
        finally:
            postgres_server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        assert found.value("database_up") == 0
        assert found.value("build_info") == 1
        assert not [sample for sample in found.samples if sample.name == "evergrant_grants_due"]
        assert Scrape((await http.get("/metrics")).text).value("database_up") == 1


async def test_a_scrape_does_not_wait_for_a_database_that_is_slow(
    postgresql_url: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "WAIT_SECONDS", 0.2)
    settings = settings_on(postgresql_url, data_dir)
    async with asking(settings) as http:
        other = await asyncpg.connect(postgresql_url)
        try:
            async with other.transaction():
                await other.execute("LOCK TABLE outbound_apps IN ACCESS EXCLUSIVE MODE")
                async with asyncio.timeout(PATIENCE):
                    assert Scrape((await http.get("/metrics")).text).value("database_up") == 0
            async with asyncio.timeout(PATIENCE):  # the reading that was given up on goes on
                while Scrape((await http.get("/metrics")).text).value("database_up") == 0:
                    await asyncio.sleep(0.05)
        finally:
            await other.close()
