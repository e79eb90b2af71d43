"""An answer in hand lands, whatever the database does meanwhile and however long that takes."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import pytest

from evergrant.broker.apps.provider_client import CALLBACK_PATH
from evergrant.practice.world import PERSONS
from evergrant.settings import Settings
from tests.faults.cluster import Cluster, cluster_in_this_process, cluster_of_processes, together
from tests.faults.conftest import Book
from tests.faults.ledger import Ledger
from tests.infra.databases import migrate
from tests.infra.installation import APP_ID, CLIENT_ID, SCOPES, Browser, came_back
from tests.infra.postgres import PostgresServer
from tests.infra.rows import execute, rows
from tests.infra.settings import settings_on
from tests.infra.waiting import wait_until

AT_ONCE = 6
LEASE = 1.0
"""Seconds of a lease, in these tests."""


@pytest.fixture
def cluster(own_postgres: PostgresServer, data_dir: Path, tmp_path: Path) -> Iterator[Cluster]:
    """One process on that PostgreSQL, with leases that are soon over."""
    url = own_postgres.create_database("evergrant")
    migrate(url)
    patched = {"evergrant.pace.PACE": {"lease": LEASE}}
    with cluster_of_processes(settings_on(url, data_dir), 1, logs=tmp_path, patched=patched) as cluster:
        yield cluster
        own_postgres.start()  # evergrant cannot read its rows when it stops, otherwise


def in_journal(cluster: Cluster) -> list[Path]:
    return list((cluster.settings.data_dir / "journal").glob("*.json"))


def landings_retried(cluster: Cluster) -> float:
    """Return how often this process has tried a landing again."""
    text = cluster.backends[0].http.get("/metrics").text
    name = "evergrant_landings_retried_total "
    return next(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


def test_a_process_that_has_sealed_nothing_yet_needs_no_database_to_keep_an_answer(
    cluster: Cluster, own_postgres: PostgresServer, book: Book
) -> None:
    consents = cluster.consents(AT_ONCE)
    evergrant = cluster.servers[0]
    evergrant.stop()
    evergrant.start()
    cluster.state.held = True
    consents.set_off()
    own_postgres.stop()
    cluster.state.held = False
    wait_until(lambda: len(in_journal(cluster)) == AT_ONCE, "every answer is in the journal")
    evergrant.kill()
    own_postgres.start()
    evergrant.start()
    assert book(consents.ledger()) == Ledger.clean(AT_ONCE)


def test_a_process_never_sends_what_is_spent_while_it_has_the_answer_however_long_the_database_is_away(
    cluster: Cluster, own_postgres: PostgresServer, book: Book
) -> None:
    cluster.state.held = True
    consents = cluster.consents(AT_ONCE)
    consents.set_off()
    own_postgres.stop()
    cluster.state.held = False
    wait_until(lambda: len(in_journal(cluster)) == AT_ONCE, "every answer is in the journal")
    time.sleep(LEASE * 2)  # every lease is over
    own_postgres.start()
    together([partial(consents.fetch, user) for user in consents.users])
    wait_until(lambda: not in_journal(cluster), "every answer has landed")
    assert book(consents.ledger()) == Ledger.clean(AT_ONCE)
    assert cluster.servers[0].output().count("Traceback") <= AT_ONCE, "not one for each try"


def test_a_stop_in_an_outage_waits_for_nothing_that_the_journal_has(
    cluster: Cluster, own_postgres: PostgresServer, book: Book
) -> None:
    cluster.state.held = True
    consents = cluster.consents(AT_ONCE)
    consents.set_off()
    own_postgres.stop()
    cluster.state.held = False
    wait_until(lambda: len(in_journal(cluster)) == AT_ONCE, "every answer is in the journal")
    evergrant = cluster.servers[0]
    evergrant.stop()
    assert "stopping with work in flight" not in evergrant.output(), "nothing was waited for in vain"
    assert len(in_journal(cluster)) == AT_ONCE
    own_postgres.start()
    evergrant.start()
    assert in_journal(cluster) == []
    assert book(consents.ledger()) == Ledger.clean(AT_ONCE)


def test_what_could_not_land_at_the_start_lands_before_its_connection_is_called(
    cluster: Cluster, own_postgres: PostgresServer, book: Book
) -> None:
    cluster.state.held = True
    consents = cluster.consents(AT_ONCE)
    consents.set_off()
    own_postgres.stop()
    cluster.state.held = False
    wait_until(lambda: len(in_journal(cluster)) == AT_ONCE, "every answer is in the journal")
    evergrant = cluster.servers[0]
    evergrant.kill()
    own_postgres.start()
    # It starts, and can store no answer.
    own_postgres.execute("ALTER TABLE grants RENAME COLUMN fresh_until TO away", database="evergrant")
    evergrant.start()
    assert len(in_journal(cluster)) == AT_ONCE
    own_postgres.execute("ALTER TABLE grants RENAME COLUMN away TO fresh_until", database="evergrant")
    time.sleep(LEASE * 2)  # the leases of the process that was killed are over
    assert book(consents.ledger()) == Ledger.clean(AT_ONCE)
    assert in_journal(cluster) == []


@pytest.mark.parametrize("column", ["access_token", "last_refresh_error"])
def test_answers_survive_a_column_that_is_away(settings: Settings, column: str, book: Book) -> None:
    with cluster_in_this_process(settings) as cluster:
        cluster.state.held = True
        consents = cluster.consents(AT_ONCE)
        consents.set_off()
        execute(cluster.settings, f"ALTER TABLE grants RENAME COLUMN {column} TO away")
        cluster.state.held = False
        wait_until(lambda: landings_retried(cluster) >= AT_ONCE, "every landing was tried in vain")
        execute(cluster.settings, f"ALTER TABLE grants RENAME COLUMN away TO {column}")
        wait_until(lambda: not in_journal(cluster), "every answer has landed")
        assert book(consents.ledger()) == Ledger.clean(AT_ONCE)


@contextmanager
def verified_upload(cluster: Cluster) -> Iterator[Future[int]]:
    """Upload vera's refresh token with `verifyRefresh`; the provider has it, and its answer is held back."""
    family = cluster.state.start_family(client_id=CLIENT_ID, person=PERSONS["practice-ada"], scopes=SCOPES)
    token = cluster.state.issue(family).refresh_token
    body = {"appId": APP_ID, "userId": "vera", "refreshToken": token, "scopes": SCOPES, "verifyRefresh": True}
    cluster.state.held = True
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: cluster.backends[0].post("app/user/oauthtoken/upload", body).status_code)
        wait_until(lambda: cluster.state.on_the_wire[family.id] > 0, "the provider has the refresh token")
        yield answer


def of_vera(cluster: Cluster, table: str) -> list[dict[str, object]]:
    return [row for row in rows(cluster.settings, table) if row["user_id"] == "vera"]


def test_a_verified_upload_survives_a_sigkill_while_the_database_is_away(
    cluster: Cluster, own_postgres: PostgresServer
) -> None:
    evergrant = cluster.servers[0]
    with verified_upload(cluster) as answer:
        own_postgres.stop()
        cluster.state.held = False
        wait_until(lambda: len(in_journal(cluster)) == 1, "the answer is in the journal")
        left = {file.name: file.read_bytes() for file in in_journal(cluster)}
        evergrant.kill()
        with pytest.raises(httpx2.TransportError):  # the server is gone
            answer.result()
    own_postgres.start()
    evergrant.start()
    assert cluster.works(cluster.backends[0].fetch("vera"))
    assert cluster.state.reuse_detections == 0
    [grant] = of_vera(cluster, "grants")
    [audited] = of_vera(cluster, "audit_events")
    assert audited["action"] == "token.uploaded"
    assert str(audited["actor"]).startswith("key:")

    # The same file again, as where it could not be removed: nothing is stored twice, and nothing comes back.
    for deleted in (False, True):
        if deleted:
            deletion = cluster.backends[0].http.delete("/v1/mgmt/outbound/token", params={"id": str(grant["id"])})
            assert deletion.status_code == 200, deletion.text
        evergrant.stop()
        for name, text in left.items():
            (cluster.settings.data_dir / "journal" / name).write_bytes(text)
        evergrant.start()
        assert in_journal(cluster) == []
        assert len(of_vera(cluster, "grants")) == (0 if deleted else 1)


def test_a_verified_upload_is_stored_although_its_app_was_changed_meanwhile(settings: Settings) -> None:
    with cluster_in_this_process(settings) as cluster:
        with verified_upload(cluster) as answer:
            execute(cluster.settings, "UPDATE outbound_apps SET app_type = 'apikey'")
            cluster.state.held = False
            assert answer.result() == 200
        assert len(of_vera(cluster, "grants")) == 1


def test_a_verified_upload_of_an_app_that_was_deleted_meanwhile_is_dropped(settings: Settings) -> None:
    with cluster_in_this_process(settings) as cluster:
        with verified_upload(cluster) as answer:
            execute(cluster.settings, "DELETE FROM outbound_apps")
            cluster.state.held = False
            assert answer.result() == 404
        assert (of_vera(cluster, "grants"), in_journal(cluster)) == ([], [])


def test_a_consent_is_stored_when_the_database_was_away_as_the_provider_answered(
    cluster: Cluster, own_postgres: PostgresServer
) -> None:
    evergrant = cluster.servers[0]
    cluster.state.redirect_uris.add(f"{evergrant.url}{CALLBACK_PATH}/*")
    browser = Browser()
    callback = browser.allow(browser.agree(cluster.backends[0].connect_url("carol")))
    cluster.state.held = True
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(browser.open, callback)
        wait_until(lambda: cluster.state.token_calls["authorization_code"] == 1, "the provider has the code")
        own_postgres.stop()
        cluster.state.held = False
        wait_until(lambda: landings_retried(cluster) >= 1, "storing was tried in vain")
        own_postgres.start()
        assert came_back(answer.result())["outboundStatus"] == "connected"
    browser.http.close()
    assert cluster.works(cluster.backends[0].fetch("carol"))
