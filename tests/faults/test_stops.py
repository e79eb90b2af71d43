"""Callers that hang up, and servers that are told to stop, in the middle of refreshes."""

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from evergrant import clock as wall_clock
from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.faults.clocks import Clocks
from tests.faults.cluster import Consents, cluster_in_this_process, cluster_of_processes, together
from tests.faults.conftest import Book
from tests.faults.ledger import Ledger
from tests.infra.serving import LiveApp
from tests.infra.waiting import wait_until


def test_callers_that_disconnect_in_mid_refresh_cancel_no_refresh(settings: Settings, book: Book) -> None:
    with cluster_in_this_process(settings) as cluster:
        consents = cluster.consents(16)
        cluster.state.held = True
        consents.set_off()
        # and those who share what is under way
        together([partial(consents.fetch_and_hang_up, user) for user in consents.users])
        cluster.state.held = False
        wait_until(lambda: consents.landed == set(consents.users), "all have landed although nobody waits")
        assert book(consents.ledger()) == Ledger.clean(16)


def test_sigterm_lets_refreshes_in_flight_land_and_answers_who_still_waits(
    settings: Settings, tmp_path: Path, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clocks(tmp_path, count=1)
    patched = {"evergrant.broker.tokens.fetch.WAIT_SECONDS_WITH_VALID_TOKEN": 0.2}
    with (
        cluster_of_processes(settings, 1, logs=tmp_path, patched=patched, clock_offsets=clocks.files) as cluster,
        ThreadPoolExecutor(20) as pool,
    ):
        (server,), state = cluster.servers, cluster.state
        valid, expired = cluster.consents(15, seconds=3600), cluster.consents(15, seconds=3300)
        clocks.set([0.0], passed=3400)
        monkeypatch.setattr(wall_clock, "now", clocks.utcnow)
        # Nobody waits for these: their callers have been content with a token that is valid for 200 more seconds. They
        # take the longest, so that the server has no callers left when they are still under way.
        state.held, state.token_latency = True, 2.0
        assert {answer.status_code for answer in together([partial(valid.fetch, user) for user in valid.users])} == {
            200
        }
        wait_until(lambda: valid.on_the_wire == set(valid.users), "the refreshes that nobody waits for are on the wire")
        state.token_latency = 0.0
        asked = [pool.submit(expired.fetch, user) for user in expired.users]
        wait_until(lambda: expired.on_the_wire == set(expired.users), "the other refreshes are on the wire as well")
        server.send(signal.SIGTERM)
        wait_until(lambda: not listens(server.port), "the server takes no more callers")
        state.held = False
        assert all(cluster.works(future.result()) for future in asked)
        assert server.wait() in (0, -signal.SIGTERM)
        consents = Consents(cluster, valid.families | expired.families)
        assert consents.landed == set(consents.users)
        with LiveApp(create_app(cluster.settings), port=server.port):
            assert book(consents.ledger()) == Ledger.clean(30)


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
