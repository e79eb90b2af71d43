"""Several server processes on one PostgreSQL, as in production."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.infra.installation import APP_ID, SCOPES
from tests.infra.replicas import Replicas, replicas_on

FETCH: dict[str, Any] = {"appId": APP_ID, "userId": "alice", "scopes": SCOPES}


@pytest.fixture
def replicas(postgresql_url: str, data_dir: Path, tmp_path: Path) -> Iterator[Replicas]:
    with replicas_on(postgresql_url, data_dir=data_dir, logs=tmp_path, count=3) as running:
        yield running


def test_120_concurrent_fetches_of_an_expired_grant_over_3_processes_cost_one_call(replicas: Replicas) -> None:
    replicas.provider.state.token_latency = 0.5
    time.sleep(2.1)
    # The refreshed token lives long enough for the slowest of the 120 to see it fresh.
    replicas.provider.state.access_token_seconds = 3600
    with ThreadPoolExecutor(120) as pool:
        answers = list(
            pool.map(lambda n: replicas.backends[n % 3].post("app/user/token", FETCH), range(120), timeout=60)
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["token"]["accessToken"] for answer in answers}) == 1
    assert replicas.refreshes == 1
    assert replicas.provider.state.reuse_detections == 0


def test_sigterm_lets_a_refresh_in_flight_land(replicas: Replicas) -> None:
    replicas.provider.state.token_latency = 1.0
    replicas.provider.state.access_token_seconds = 3600
    time.sleep(2.1)
    with ThreadPoolExecutor(1) as pool:
        # a caller that hangs up at once, so that nothing but the refresh itself keeps the server busy
        impatient = pool.submit(
            replicas.backends[1].http.post, "/v1/mgmt/outbound/app/user/token", json=FETCH, timeout=0.4
        )
        with pytest.raises(httpx2.ReadTimeout):
            impatient.result(timeout=10)
    assert replicas.servers[1].stop() in (0, -signal.SIGTERM)
    token = replicas.backends[0].post("app/user/token", FETCH).json()["token"]
    assert replicas.refreshes == 1
    assert token["lastRefreshTime"] != ""
    assert replicas.provider.state.reuse_detections == 0
