"""What the faults happen to: servers on one database, a strict rotating provider, and many grants."""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx2
import pytest

from evergrant import clock
from evergrant.practice.state import Family, ProviderState
from evergrant.practice.world import PERSONS
from evergrant.settings import Settings
from tests.faults.ledger import Ledger, Row, rows_of, take_ledger
from tests.infra.installation import (
    APP_ID,
    CLIENT_ID,
    SCOPES,
    Backend,
    Provider,
    installation,
    new_project,
    practice_provider,
)
from tests.infra.serving import ServerProcess, environment_of
from tests.infra.waiting import PATIENCE

together_in_a_worker = pytest.mark.xdist_group("replicas")
"""Marks the tests that share the replicas: a second worker would have to start its own."""
PATCHED_SERVER = Path(__file__).with_name("patched_server.py")
SCALE = 6
"""Where a test is about leases and slow calls, a second stands for six."""


@dataclass
class Cluster:
    """The servers (none where evergrant runs in the test's own process), a backend at each, and the provider."""

    settings: Settings
    provider: Provider
    backends: list[Backend]
    servers: list[ServerProcess] = field(default_factory=list)

    @property
    def state(self) -> ProviderState:
        """The provider's memory."""
        return self.provider.state

    def good_day(self) -> None:
        """Let the provider work as it should again."""
        state = self.state
        state.next_token_answers.clear()
        state.token_latency, state.held, state.rotates, state.forgives_repeats = 0.0, False, True, False

    def works(self, answer: httpx2.Response) -> bool:
        """Tell whether a fetch was answered with a token that the protected resource lets in."""
        return answer.status_code == 200 and self.provider.lets_in(answer.json()["token"])

    def consents(self, count: int, *, seconds: int = -60) -> "Consents":
        """Upload this many users' tokens, whose access tokens live for `seconds` more, and return them."""
        expiry = int(clock.now().timestamp()) + seconds
        families, tokens = {}, []
        for _ in range(count):
            family = self.state.start_family(client_id=CLIENT_ID, person=PERSONS["practice-ada"], scopes=SCOPES)
            issued = self.state.issue(family)
            families[f"user-{family.id}"] = family
            tokens.append(
                {
                    "appId": APP_ID,
                    "userId": f"user-{family.id}",
                    "accessToken": issued.access_token,
                    "refreshToken": issued.refresh_token,
                    "accessTokenExpiry": expiry,
                    "scopes": SCOPES,
                }
            )
        answer = self.backends[0].post("app/user/oauthtoken/batch/upload", {"tokens": tokens})
        assert (answer.status_code, answer.json()) == (200, {"failures": []}), answer.text
        return Consents(self, families)


@dataclass
class Consents:
    """The grants that a fault is about."""

    cluster: Cluster
    families: dict[str, Family]

    @property
    def users(self) -> list[str]:
        return list(self.families)

    @property
    def rows(self) -> dict[str, Row]:
        """The grants as they are in the database."""
        rows = rows_of(self.cluster.settings)
        return {user: rows[user] for user in self.families}

    @property
    def on_the_wire(self) -> set[str]:
        """The users whose refresh has reached the provider and is not answered."""
        waiting = self.cluster.state.on_the_wire
        return {user for user, family in self.families.items() if waiting[family.id]}

    @property
    def unheard(self) -> set[str]:
        """The users whose refresh was answered when its caller was gone."""
        gone = {family.id for family in self.cluster.state.unheard}
        return {user for user, family in self.families.items() if family.id in gone}

    @property
    def landed(self) -> set[str]:
        """The users who have had a refresh stored."""
        return {user for user, row in self.rows.items() if row.version > 1}

    def fetch(self, user: str, *, at: int = 0, **fields: Any) -> httpx2.Response:
        """Fetch a user's token from one of the servers."""
        return self.cluster.backends[at].fetch(user, **fields)

    def fetch_and_hang_up(self, user: str, *, at: int = 0, after: float = 0.3) -> None:
        """Fetch a user's token from one of the servers, and hang up if the answer takes more than so many seconds."""
        body = {"appId": APP_ID, "userId": user, "scopes": SCOPES}
        with suppress(httpx2.TimeoutException):
            self.cluster.backends[at].http.post(
                "/v1/mgmt/outbound/app/user/token", json=body, timeout=httpx2.Timeout(PATIENCE, read=after)
            )

    def set_off(self, *, at: int = 0) -> None:
        """Have every token fetched by callers who hang up, until the provider has every refresh."""
        deadline = time.monotonic() + PATIENCE
        while missing := set(self.users) - self.on_the_wire:
            # On a busy machine a caller can be gone before its request has been read, and then it sets off nothing.
            assert time.monotonic() < deadline, "asked in vain"
            together([partial(self.fetch_and_hang_up, user, at=at) for user in missing])

    def times_presented(self, users: Collection[str] | None = None) -> set[int]:
        """Return how often the refresh tokens of these users (or all) that reached the provider did so."""
        state = self.cluster.state
        ours = {self.families[user].id for user in (self.families if users is None else users)}
        return {n for token, n in state.presented.items() if state.refresh_tokens[token].family.id in ours}

    def ledger(self, *, in_doubt: Collection[str] = (), at: int = 0) -> Ledger:
        """Fetch every token once more, from one of the servers, try it at the provider, and close the books."""
        cluster = self.cluster
        works = together([partial(self.works, user, at=at) for user in self.users], threads=8)
        fetched = dict(zip(self.users, works, strict=True))
        return take_ledger(cluster.settings, cluster.state, self.families, fetched, in_doubt=in_doubt)

    def works(self, user: str, *, at: int = 0) -> bool:
        """Fetch a user's token from one of the servers, and tell whether the protected resource lets it in."""
        return self.cluster.works(self.fetch(user, at=at))


T = TypeVar("T")


def together(calls: Sequence[Callable[[], T]], *, threads: int = 0) -> list[T]:
    """Make these calls at once and return their results."""
    with ThreadPoolExecutor(threads or len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
        return [future.result(timeout=PATIENCE) for future in futures]


@contextmanager
def cluster_of_processes(
    settings: Settings,
    count: int,
    *,
    logs: Path,
    patched: dict[str, Any] | None = None,
    clock_offsets: Sequence[Path] = (),
    machine_clock_offsets: Sequence[float] = (),
    faster: float = 1,
    apart: bool = False,
    database_urls: Sequence[str] = (),
) -> Iterator[Cluster]:
    """Run `count` server processes on the database of `settings`, without a refresher.

    `patched` are constants of evergrant by full name; `clock_offsets` are files, one a server, with the seconds by
    which its clock is wrong, and `machine_clock_offsets` the seconds by which its machine's is. They live `faster`
    times as fast, and `apart` where each has a data folder of its own. `database_urls` are their ways to the database,
    where each has its own.
    """
    settings = settings.model_copy(update={"refresher": False, "log_level": "warning"})
    made = new_project(settings)
    environment = environment_of(settings) | {"PATCHED": json.dumps(patched or {}), "FASTER": str(faster)}
    with ExitStack() as stack:
        provider = stack.enter_context(practice_provider())
        servers = []
        for number in range(count):
            own = {"CLOCK_OFFSET": str(clock_offsets[number])} if clock_offsets else {}
            if machine_clock_offsets:
                own["MACHINE_CLOCK_OFFSET"] = str(machine_clock_offsets[number])
            if apart:
                own["EVERGRANT_DATA_DIR"] = str(settings.data_dir / f"server-{number}")
            if database_urls:
                own["EVERGRANT_DATABASE_URL"] = database_urls[number]
            log = logs / f"server-{number}.log"
            servers.append(ServerProcess(environment | own, log=log, program=[str(PATCHED_SERVER)]))
            stack.push(servers[-1].__exit__)
        together([server.start for server in servers])
        backends = [Backend(server.url, made.project_id, made.management_key) for server in servers]
        for backend in backends:
            stack.callback(backend.http.close)
        backends[0].create_app(provider.registration)
        yield Cluster(settings, provider, backends, servers)


@contextmanager
def cluster_in_this_process(settings: Settings) -> Iterator[Cluster]:
    """Run one server in the test's own process, without a refresher."""
    with installation(settings.model_copy(update={"refresher": False})) as here:
        yield Cluster(here.settings, here.provider, [here.backend])


@contextmanager
def locked(settings: Settings, table: str) -> Iterator[None]:
    """Keep everybody out of a table of a PostgreSQL database."""
    assert settings.database_url is not None
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(settings.database_url.get_secret_value()))
    try:
        loop.run_until_complete(connection.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        yield
    finally:
        loop.run_until_complete(connection.close())
        loop.close()
