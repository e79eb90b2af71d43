"""Several server processes on one PostgreSQL, as in production."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from evergrant.settings import Settings
from tests.infra.installation import APP_ID, SCOPES, Backend, Browser, Provider, new_project, practice_provider
from tests.infra.serving import ServerProcess, environment_of, free_port

FETCH: dict[str, Any] = {"appId": APP_ID, "userId": "alice", "scopes": SCOPES}


class Replicas:
    def __init__(self, servers: list[ServerProcess], backends: list[Backend], provider: Provider) -> None:
        self.servers, self.backends, self.provider = servers, backends, provider

    @property
    def refreshes(self) -> int:
        return self.provider.state.token_calls["refresh_token"]


@pytest.fixture
def replicas(postgresql_url: str, data_dir: Path, tmp_path: Path) -> Iterator[Replicas]:
    """Three processes without a refresher; alice's token lives for two seconds."""
    settings = Settings(
        data_dir=data_dir,
        database_url=SecretStr(postgresql_url),
        master_keys=SecretStr("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
        public_url=f"http://127.0.0.1:{free_port()}",
        egress_allow="127.0.0.0/8",
        refresher=False,
        log_level="warning",
    )
    made = new_project(settings)
    port = int(settings.public_url.rsplit(":", 1)[1])
    environment = environment_of(settings)
    with ExitStack() as stack:
        callback = f"{settings.public_url}/v1/outbound/oauth/callback"
        provider = stack.enter_context(practice_provider(callback, access_token_seconds=2))
        servers = [
            stack.enter_context(ServerProcess(environment, port=p, log=tmp_path / f"{p}.log"))
            for p in (port, free_port(), free_port())
        ]
        backends = [Backend(server.url, made.project_id, made.management_key) for server in servers]
        for backend in backends:
            stack.callback(backend.http.close)
        backends[0].create_app(provider.registration)
        browser = Browser()
        stack.callback(browser.http.close)
        assert browser.connect(backends[0].connect_url("alice"))["outboundStatus"] == "connected"
        yield Replicas(servers, backends, provider)


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
