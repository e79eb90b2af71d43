"""Server processes on one PostgreSQL, as in production: without a refresher, and alice connected."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from evergrant.settings import Settings
from tests.infra.installation import Backend, Browser, Provider, new_project, practice_provider
from tests.infra.serving import ServerProcess, environment_of, free_port


@dataclass(frozen=True)
class Replicas:
    """The servers, a backend at each, and the provider that they share."""

    servers: list[ServerProcess]
    backends: list[Backend]
    provider: Provider

    @property
    def refreshes(self) -> int:
        return self.provider.state.token_calls["refresh_token"]


@contextmanager
def replicas_on(postgresql_url: str, *, data_dir: Path, logs: Path, count: int) -> Iterator[Replicas]:
    """Run `count` processes. alice's first token lives for two seconds."""
    settings = Settings(
        data_dir=data_dir,
        database_url=SecretStr(postgresql_url),
        master_keys=SecretStr("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
        public_url=f"http://127.0.0.1:{free_port()}",
        egress_allow="127.0.0.0/8",
        refresher=False,
        rate_limit_per_key=0,
        rate_limit_per_address=0,
        log_level="warning",
    )
    made = new_project(settings)
    first_port = int(settings.public_url.rsplit(":", 1)[1])
    environment = environment_of(settings)
    with ExitStack() as stack:
        callback = f"{settings.public_url}/v1/outbound/oauth/callback"
        provider = stack.enter_context(practice_provider(callback, access_token_seconds=2))
        servers = [
            stack.enter_context(ServerProcess(environment, port=port, log=logs / f"{port}.log"))
            for port in (first_port, *(free_port() for _ in range(count - 1)))
        ]
        backends = [Backend(server.url, made.project_id, made.management_key) for server in servers]
        for backend in backends:
            stack.callback(backend.http.close)
        backends[0].create_app(provider.registration)
        browser = Browser()
        stack.callback(browser.http.close)
        assert browser.connect(backends[0].connect_url("alice"))["outboundStatus"] == "connected"
        yield Replicas(servers, backends, provider)
