"""What the faults happen to: servers on one database, a strict rotating provider, and many grants."""

import asyncio
import json
import os
import secrets
import signal
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
from joserfc.jwk import ECKey

from evergrant import clock
from evergrant.practice.state import Family, Machine, ProviderState
from evergrant.practice.world import PERSONS
from evergrant.settings import Settings
from tests.faults.ledger import Ledger, Row, rows_of, take_ledger
from tests.infra.credentials import Uploaded, upload_credentials
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
from tests.infra.rows import is_being_written
from tests.infra.serving import ServerProcess, environment_of
from tests.infra.waiting import PATIENCE

PATCHED_SERVER = Path(__file__).with_name("patched_server.py")
CONSENT, CLIENTS, ROBOTS = APP_ID, "practice-clients", "practice-robots"
"""The apps: of refresh tokens that rotate, of connections with a client of their own (RFC 6749 section 4.4), and of
those whose key signs (RFC 7523)."""
KINDS = (CONSENT, CLIENTS, ROBOTS)
KEY = ECKey.generate_key("P-256")
PRIVATE_KEY = KEY.as_pem(private=True).decode()
ROBOT = """
name = "Practice robots"
category = "other"
documentation_url = "https://example.com/docs"
verification = "unconfirmed"
app_type = "jwt_bearer"
token_endpoint = "https://practice.example.com/token"
token_endpoint_auth_methods_supported = ["none"]
[assertion]
alg = "ES256"
key = "{private_key}"
claims = { iss = "{robot}", aud = "{audience}" }
[fields]
robot = { title = "Robot" }
private_key = { title = "Private key", multiline = true }
[variables]
audience = { title = "Audience", source = "app", required = true }
"""
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

    def app_of(self, family: Family) -> str:
        """Return the app that holds a family's tokens."""
        machine = self.state.machines.get(family.client_id)
        if machine is None:
            return APP_ID
        return CLIENTS if machine.key is None else ROBOTS

    def consents(self, count: int, *, seconds: int = -60, kinds: Sequence[str] = KINDS) -> "Consents":
        """Upload this many users' tokens, whose access tokens live for `seconds` more, and return them.

        They are of all kinds, one after the other and in another order each time, so that every third is not always
        of the same.
        """
        wanted = [kinds[(n + n // len(kinds)) % len(kinds)] for n in range(count)]
        expiry = int(clock.now().timestamp()) + seconds
        consented = self._consented(wanted.count(CONSENT), expiry)
        machines = {kind: self._machines(kind, wanted.count(kind), expiry) for kind in (CLIENTS, ROBOTS)}
        made = {CONSENT: iter(consented.items()), **{kind: iter(found.items()) for kind, found in machines.items()}}
        return Consents(self, dict(next(made[kind]) for kind in wanted))

    def _machines(self, app_id: str, count: int, expiry: int) -> dict[str, Family]:
        """Give users connections of an app that obtains its tokens by itself, each with a machine of its own."""
        families, uploads = {}, {}
        for _ in range(count):
            machine_id = f"machine-{secrets.token_hex(8)}"
            family = self.state.start_family(client_id=machine_id, person=PERSONS["practice-ada"], scopes=SCOPES)
            fields = {"client_id": machine_id, "client_secret": f"secret of {machine_id}"}
            machine = Machine(family, secret=fields["client_secret"])
            if app_id == ROBOTS:
                fields = {"robot": machine_id, "private_key": PRIVATE_KEY}
                machine = Machine(family, key=KEY)
            self.state.machines[machine_id] = machine
            token = self.state.issue(family, with_refresh_token=False).access_token
            families[f"user-{family.id}"] = family
            uploads[f"user-{family.id}"] = Uploaded(fields, token, expiry)
        if uploads:
            upload_credentials(self.settings, self.backends[0].project_id, app_id, uploads)
        return families

    def _consented(self, count: int, expiry: int) -> dict[str, Family]:
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
        if tokens:
            answer = self.backends[0].post("app/user/oauthtoken/batch/upload", {"tokens": tokens})
            assert (answer.status_code, answer.json()) == (200, {"failures": []}), answer.text
        return families


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

    def app_of(self, user: str) -> str:
        """Return the app that holds a user's tokens."""
        return self.cluster.app_of(self.families[user])

    @property
    def consented(self) -> set[str]:
        """The users whose refresh tokens rotate. The others' credentials stay."""
        return {user for user in self.families if self.app_of(user) == CONSENT}

    def fetch(self, user: str, *, at: int = 0, **fields: Any) -> httpx2.Response:
        """Fetch a user's token from one of the servers."""
        return self.cluster.backends[at].fetch(user, appId=self.app_of(user), **fields)

    def fetch_and_hang_up(self, user: str, *, at: int = 0, after: float = 0.3) -> None:
        """Fetch a user's token from one of the servers, and hang up if the answer takes more than so many seconds."""
        body = {"appId": self.app_of(user), "userId": user, "scopes": SCOPES}
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
        return {n for what, n in state.presented.items() if (of := state.family_of(what)) and of.id in ours}

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


def with_robots(settings: Settings) -> Settings:
    """Return settings with an app library of the operator's own, which has the entry of robots."""
    folder = settings.data_dir / "entries"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{ROBOTS}.toml").write_text(ROBOT, encoding="utf-8")
    return settings.model_copy(update={"catalog_dir": folder})


def create_apps(backend: Backend, provider: Provider, *, only_machines: bool = False) -> None:
    """Create an app of each kind."""
    if not only_machines:
        backend.create_app(provider.registration)
    shared = {"tokenUrl": f"{provider.url}/token", "defaultScopes": SCOPES}
    backend.create_app({"id": CLIENTS, "name": CLIENTS, "appType": "client_credentials", **shared})
    robots = {"appType": "jwt_bearer", "templateId": ROBOTS, "variables": {"audience": f"{provider.url}/token"}}
    backend.create_app({"id": ROBOTS, "name": ROBOTS, **robots, **shared})


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
    settings = with_robots(settings).model_copy(update={"refresher": False, "log_level": "warning"})
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
        create_apps(backends[0], provider)
        yield Cluster(settings, provider, backends, servers)


@contextmanager
def cluster_in_this_process(settings: Settings) -> Iterator[Cluster]:
    """Run one server in the test's own process, without a refresher."""
    with installation(with_robots(settings).model_copy(update={"refresher": False})) as here:
        create_apps(here.backend, here.provider, only_machines=True)
        yield Cluster(here.settings, here.provider, [here.backend])


def pause(server: ServerProcess, settings: Settings) -> None:
    """Stop a process, but not between a write and its commit, from where it would keep everybody else from writing."""
    while True:
        server.send(signal.SIGSTOP)
        os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WNOWAIT)
        if not is_being_written(settings):
            return
        server.send(signal.SIGCONT)
        time.sleep(0.01)


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
