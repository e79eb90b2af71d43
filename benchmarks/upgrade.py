"""Does an upgrade cost anybody anything? The release before this one and this one, on one database, under load.

A process of the release before (`scripts/release/previous.toml` names it) serves people who fetch tokens, connect, and
force refreshes. Then, while they go on:

1. `evergrant db upgrade` of this version changes the schema under it;
2. a process of this version serves beside it;
3. this version serves alone;
4. the release before serves alone again, what this version has written too, as after a deployment that was taken back;
5. this version takes over, and the other one ends.

Each part lasts until people have got enough done in it. The exit code is not 0 when anything failed for anybody, or a
consent was lost.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the file can be run by its path

from evergrant.settings import PREFIX, Settings
from scripts.release.previous import load_previous, unpack
from tests.faults.cluster import CONSENT, Cluster, Consents
from tests.faults.ledger import Ledger
from tests.infra.balancer import Balancer
from tests.infra.installation import Backend, Browser, practice_provider
from tests.infra.postgres import PostgresServer
from tests.infra.serving import ServerProcess, environment_of
from tests.infra.settings import settings_on
from tests.infra.waiting import PATIENCE, wait_until

PROJECT, KEY = "P2gradedundertheirfeet", "the-key-of-a-drill-in-32-characters-or-more"
USERS = 48
ENOUGH = 3
"""So many of each act are done in each part."""
PAUSE_SECONDS = 0.02
FETCHES, REFRESHES, CONNECTS = "fetches", "refreshes", "connects"


@dataclass
class People:
    """Those who use evergrant all the time, through the balancer, and what became of it."""

    cluster: Cluster
    consents: Consents
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)
    newest: dict[str, str] = field(default_factory=dict)
    """By user, the token that a forced refresh brought last."""
    over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Let them do what they do while the block runs."""
        acts: Sequence[tuple[str, Callable[[str], bool], Iterator[str]]] = (
            (FETCHES, self._fetch, cycle(self.consents.users)),
            (REFRESHES, self._refresh, cycle(self.consents.users)),
            (CONNECTS, self._connect, (f"person-{n}" for n in count())),
        )
        threads = [threading.Thread(target=self._go_on, args=one, daemon=True) for one in acts]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join(PATIENCE)

    def wait(self) -> Counter[str]:
        """Return, when they have got enough of each act done from here on, how much that is."""
        before = self.done.copy()
        names = (FETCHES, REFRESHES, CONNECTS)
        wait_until(
            lambda: bool(self.failures) or all(self.done[name] - before[name] >= ENOUGH for name in names),
            "people have got something done",
        )
        return self.done - before

    def _go_on(self, name: str, act: Callable[[str], bool], users: Iterator[str]) -> None:
        while not self.over.is_set():
            try:
                self.done[name] += act(next(users))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what the drill is about
                self.failures.append(f"{name}: {error!r}")
                return
            time.sleep(PAUSE_SECONDS)

    def _fetch(self, user: str) -> bool:
        assert self.consents.works(user), f"{user} was not served"
        return True

    def _refresh(self, user: str) -> bool:
        """Force a refresh; it counts where there was one, because some seconds after one there is no other."""
        answer = self.consents.fetch(user, options={"forceRefresh": True})
        assert self.cluster.works(answer), answer.text
        token, known = str(answer.json()["token"]["accessToken"]), self.newest.get(user)
        self.newest[user] = token
        return token != known

    def _connect(self, user: str) -> bool:
        backend, browser = self.cluster.backends[0], Browser()
        with browser.http:
            browser.http.headers["Connection"] = "close"  # each request goes to whom the balancer chooses then
            result = browser.connect(backend.connect_url(user))
        assert result["outboundStatus"] == "connected", result
        self.connected.append(user)
        assert self.cluster.works(backend.fetch(user)), f"{user} has connected in vain"
        return True


@dataclass
class Outcome:
    """What the drill found."""

    ledger: Ledger
    failures: list[str]
    parts: dict[str, Counter[str]]

    @property
    def is_clean(self) -> bool:
        """Whether nothing failed, and no consent was lost."""
        clean = Ledger.clean(USERS, calls=self.ledger.landed, landed=self.ledger.landed)
        return not self.failures and self.ledger == clean


def drill(url: str, folder: Path) -> Outcome:
    """Upgrade an empty PostgreSQL database under load."""
    settings = settings_on(
        url,
        folder / "data",
        bootstrap_project_id=PROJECT,
        bootstrap_management_key=KEY,
        bootstrap_redirect_origins="https://app.example.com",
        log_level="warning",
    )
    with ExitStack() as stack:
        provider = stack.enter_context(practice_provider(settings.public_url))
        balancer = stack.enter_context(Balancer(urlsplit(settings.public_url).port or 0))
        code = unpack(load_previous(), folder / "before")
        _upgrade(settings, PYTHONPATH=str(code))
        before = stack.enter_context(_server(settings, folder / "before.log", PYTHONPATH=str(code)))
        balancer.send_to(before.port)
        backend = Backend(settings.public_url, PROJECT, KEY)
        stack.callback(backend.http.close)
        backend.http.headers["Connection"] = "close"
        backend.create_app(provider.registration)
        cluster = Cluster(settings, provider, [backend])
        people = People(cluster, cluster.consents(USERS, kinds=[CONSENT]))
        parts: dict[str, Counter[str]] = {}
        with people.busy():
            parts["the release before, on its own schema"] = people.wait()
            _upgrade(settings)
            parts["the release before, on the new schema"] = people.wait()
            now = stack.enter_context(_server(settings, folder / "now.log"))
            balancer.send_to(before.port, now.port)
            parts["both"] = people.wait()
            balancer.send_to(now.port)
            parts["this version"] = people.wait()
            balancer.send_to(before.port)
            parts["the release before again"] = people.wait()
            balancer.send_to(now.port)
            before.stop()
        for user in people.connected:
            if not cluster.works(backend.fetch(user)):
                people.failures.append(f"{user} has lost a connection")
        people.failures += [line for log in (before, now) for line in log.output().splitlines() if '"error"' in line]
        return Outcome(people.consents.ledger(), people.failures, parts)


def _upgrade(settings: Settings, **environment: str) -> None:
    command = [sys.executable, "-m", "evergrant", "db", "upgrade"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    ours = clean | environment_of(settings) | environment
    subprocess.run(command, cwd="/", env=ours, check=True, capture_output=True, timeout=PATIENCE)


def _server(settings: Settings, log: Path, **environment: str) -> ServerProcess:
    own = {f"{PREFIX}PUBLIC_URL": settings.public_url, f"{PREFIX}DATA_DIR": str(log.with_suffix(""))}
    return ServerProcess(environment_of(settings) | own | environment, log=log)


def main() -> None:
    server = PostgresServer()
    began = time.monotonic()
    with ExitStack() as stack:
        stack.callback(server.remove)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evergrant-upgrade-")))
        server.start()
        outcome = drill(server.create_database("evergrant"), folder)
    for name, done in outcome.parts.items():
        print(f"{name + ':':42}" + ", ".join(f"{n} {what}" for what, n in sorted(done.items())))
    for heading, number in zip(Ledger.headings(), outcome.ledger.columns(), strict=True):
        print(f"{number:6}    {heading}")
    print(*outcome.failures, f"{time.monotonic() - began:.0f} s", sep="\n")
    sys.exit(not outcome.is_clean)


if __name__ == "__main__":
    main()
