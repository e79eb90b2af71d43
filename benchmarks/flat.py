"""Do a fetch and a refresh cost the same, however many grants, apps and processes there are?

The same 10,000 users' tokens are fetched and refreshed in databases of any size: they are spread among grants that
nobody asks for. All databases are there at once and take turns, so that whatever else the machine does meets all of
them; what counts is the ratio of the medians to those of the smallest. Then fetches are asked of servers with 1, 2 and
4 processes, and of one beside a refresher that works at full speed. Everything stays on loopback and in a temporary
folder.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the file can be run by its path

from benchmarks import sweep
from benchmarks.backlog import Backlog
from benchmarks.databases import DATABASES, PRODUCTION, configure
from benchmarks.fetch import FETCH, cpu_seconds, load, machine, progress
from benchmarks.load import Orders
from benchmarks.many import Many
from benchmarks.memory import Memory, largest, memory_of, wait_for_workers
from benchmarks.running import Provider, Workers
from benchmarks.seed import Seeded, add_grants, seed, settle
from evergrant.broker.runtime.broker import open_broker
from evergrant.settings import Settings
from tests.infra.postgres import ROOM, PostgresServer
from tests.infra.serving import ServerProcess, environment_of
from tests.infra.settings import settings_on

FEW_APPS = 20
PARTS = 3
"""The users' grants come in so many parts, with a part of the others between them: they are not side by side."""
BYTES_OF_A_GRANT = 4_000
"""With its entry in the directory and all indexes, and with room to build these."""
WARM_UP_SECONDS = 1.5
BESIDE_SECONDS = 2.0
SERVER = ("--no-refresher", "--workers")


@dataclass(frozen=True)
class Size:
    """One database."""

    grants: int
    apps: int

    def __str__(self) -> str:
        return f"{self.grants:,} grants, {self.apps:,} apps"


@dataclass
class Turns:
    """What was measured in one database, or with so many processes."""

    per_second: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    """Processor time of evergrant's processes for each."""

    def add(self, per_second: float, cpu_us: float) -> None:
        self.per_second.append(per_second)
        self.cpu_us.append(cpu_us)


@dataclass(frozen=True)
class Line:
    """The medians of all turns."""

    database: str
    what: str
    """`fetch` or `refresh`, and of what."""
    where: str
    per_second: float
    cpu_us: float
    of_first: float
    """How many of the first line's of its kind, per second."""
    cpu_of_first: float
    memory: Memory | None = None
    """Of the largest process that answers, after the load."""


@dataclass(frozen=True)
class Filled:
    """A database with its grants."""

    size: Size
    settings: Settings
    seeded: Seeded
    users: int
    provider: Provider

    def orders(self, running: ServerProcess, *, connections: int, seconds: float, checked: bool = True) -> Orders:
        """Return what a load generator is told: to fetch from this server.

        Tokens that were refreshed are others than those that were stored: they cannot be `checked`, only their answers.
        """
        return Orders(
            port=running.port,
            path=FETCH,
            authorization=f"Bearer {self.seeded.project_id}:{self.seeded.management_key}",
            users=self.users,
            seconds=seconds,
            connections=connections,
            check_tokens=checked,
        )


def main() -> None:
    options = parse()
    lines: list[Line] = []
    for database in options.databases:
        with filled(database, options) as all_filled:
            lines += sizes_of_fetches(database, all_filled, options)
            lines += numbers_of_processes(database, all_filled[0], options)
            lines += sizes_of_refreshes(database, all_filled, options)
            lines += beside_a_refresher(database, all_filled[0], options)
    if options.json:
        print(json.dumps({"machine": machine(), "lines": [asdict(line) for line in lines]}, indent=2))
    else:
        print(table(lines))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", type=sweep.sizes, default=sweep.sizes("10k,1M,10M"), help="grants in all")
    parser.add_argument("--apps", type=int, default=20_000, help="apps they belong to (default: 20000)")
    parser.add_argument("--users", type=int, default=10_000, help="users that are asked for (default: 10000)")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4], help="server processes (default: 1 2 4)")
    parser.add_argument("--connections", type=int, default=32, help="fetches in flight (default: 32)")
    parser.add_argument("--in-flight", type=int, default=16, help="refreshes in flight (default: 16)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one turn (default: 4)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each kind (default: 5)")
    parser.add_argument("--databases", nargs="+", default=list(DATABASES), choices=DATABASES)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


@contextlib.contextmanager
def filled(database: str, options: argparse.Namespace) -> Iterator[list[Filled]]:
    """Make all databases: the smallest with few apps and with many, and the others with many."""
    wanted = [Size(options.sizes[0], FEW_APPS), *(Size(size, options.apps) for size in options.sizes)]
    with contextlib.ExitStack() as stack:
        server = None
        if database == "postgresql":
            server = PostgresServer(room=ROOM + sum(size.grants for size in wanted) * BYTES_OF_A_GRANT)
            stack.callback(server.remove)
            server.start()
            configure(server, PRODUCTION | {"max_connections": "400"})
        made = []
        for number, size in enumerate(wanted):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evergrant-bench-")))
            url = server.create_database(f"benchmark_{number}") if server else None
            settings = settings_on(url, folder, log_level="warning", rate_limit_per_key=1_000_000)
            progress(f"{database}: storing {size}")
            # A provider for each: it takes the same user's token from another database for one that is used twice.
            provider = stack.enter_context(Provider(0.0))
            users = min(options.users, size.grants)
            seeded = asyncio.run(fill(settings, size, users, provider.token_url))
            made.append(Filled(size, settings, seeded, users, provider))
        yield made


async def fill(settings: Settings, size: Size, users: int, token_url: str) -> Seeded:
    """Fill one of them."""
    seeded = await seed(settings, 0, token_url=token_url)
    many = Many(settings, seeded.project_id, apps=size.apps)
    for part in range(1, PARTS + 1):
        begin, end = (users * number // PARTS for number in (part - 1, part))
        async with open_broker(settings) as broker:
            await add_grants(broker, seeded.project_id, range(begin, end))
        await many.grow((size.grants - users) * part // PARTS)
    await many.enter()
    async with open_broker(settings) as broker:
        if not broker.database.is_sqlite:
            await settle(broker.database.engine.url)
    return seeded


def sizes_of_fetches(database: str, all_filled: Sequence[Filled], options: argparse.Namespace) -> list[Line]:
    """Fetch in all databases in turns."""
    turns = [Turns() for _ in all_filled]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(server(one, 1)) for one in all_filled]
        for number in range(options.rounds):
            for one, running, turn in zip(all_filled, servers, turns, strict=True):
                fetches(one, running, [running.pid], options, turn, warm_up=number == 0)
            progress(f"{database}: fetches/s: " + ", ".join(f"{turn.per_second[-1]:,.0f}" for turn in turns))
    return lines_of(database, "fetch", [str(one.size) for one in all_filled], turns)


def sizes_of_refreshes(database: str, all_filled: Sequence[Filled], options: argparse.Namespace) -> list[Line]:
    """Refresh in all databases in turns."""
    turns = [Turns() for _ in all_filled]
    backlogs = [Backlog(one.settings) for one in all_filled]
    for _ in range(options.rounds):
        for one, backlog, turn in zip(all_filled, backlogs, turns, strict=True):
            backlog.empty()
            with Workers.refreshers(backlog.settings, 1, in_flight=options.in_flight) as workers:
                seen, _ = sweep.one_turn(workers, backlog, one.provider, options.seconds, checked=True)
            turn.add(seen.per_second, seen.cpu_us)
        progress(f"{database}: refreshes/s: " + ", ".join(f"{turn.per_second[-1]:,.0f}" for turn in turns))
    for backlog in backlogs:
        backlog.empty()
        backlog.close()
    return lines_of(database, "refresh", [str(one.size) for one in all_filled], turns)


def numbers_of_processes(database: str, one: Filled, options: argparse.Namespace) -> list[Line]:
    """Fetch from servers with more and more processes, in turns."""
    turns = [Turns() for _ in options.processes]
    memories = []
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(server(one, count)) for count in options.processes]
        found = [
            wait_for_workers(running.pid, count) for running, count in zip(servers, options.processes, strict=True)
        ]
        for number in range(options.rounds):
            for running, pids, turn in zip(servers, found, turns, strict=True):
                fetches(one, running, pids, options, turn, warm_up=number == 0)
        memories = [largest([memory_of(pid) for pid in pids]) for pids in found]
    where = [f"{count} processes" for count in options.processes]
    return lines_of(database, "fetch by processes", where, turns, memories)


def beside_a_refresher(database: str, one: Filled, options: argparse.Namespace) -> list[Line]:
    """Fetch while nothing else happens, and while a refresher works at full speed, in turns."""
    turns = [Turns(), Turns()]
    backlog = Backlog(one.settings)
    with server(one, 1) as running:
        for number in range(options.rounds):
            backlog.empty()
            with Workers.refreshers(one.settings, 1, in_flight=options.in_flight) as workers:
                workers.wait_until_quiet()
                fetches(one, running, [running.pid], options, turns[0], warm_up=number == 0, checked=False)
                stored = backlog.stored()
                backlog.fill()
                load(one.orders(running, connections=4, seconds=BESIDE_SECONDS, checked=False))
                fetches(one, running, [running.pid], options, turns[1], checked=False)
                if backlog.stored() == stored or not backlog.waiting():
                    raise RuntimeError("the refresher did not work all the time: use more --users or fewer --seconds")
                workers.stop()
        backlog.empty()
    backlog.close()
    return lines_of(database, "fetch beside", ["a refresher without work", "a refresher at full speed"], turns)


def server(one: Filled, processes: int) -> ServerProcess:
    log = one.settings.data_dir / f"server-{processes}.log"
    return ServerProcess(environment_of(one.settings), *SERVER, str(processes), log=log)


def fetches(
    one: Filled,
    running: ServerProcess,
    pids: Sequence[int],
    options: argparse.Namespace,
    turn: Turns,
    *,
    warm_up: bool = False,
    checked: bool = True,
) -> None:
    """Fetch for one turn."""
    orders = one.orders(running, connections=options.connections, seconds=options.seconds, checked=checked)
    if warm_up:
        load(replace(orders, seconds=WARM_UP_SECONDS))
    before = sum(map(cpu_seconds, pids))
    seen = load(orders)
    used = sum(map(cpu_seconds, pids)) - before
    turn.add(seen.answers / seen.seconds, used / seen.answers * 1_000_000)


def lines_of(
    database: str,
    what: str,
    where: Sequence[str],
    turns: Sequence[Turns],
    memories: Sequence[Memory | None] = (),
) -> list[Line]:
    """Compare each with the first: in each round by itself, since the machine may be quicker in another."""
    if not turns:
        return []
    first, lines = turns[0], []
    for number, (name, turn) in enumerate(zip(where, turns, strict=True)):
        memory = memories[number] if memories else None
        lines.append(
            Line(
                database,
                what,
                name,
                statistics.median(turn.per_second),
                statistics.median(turn.cpu_us),
                of_first(turn.per_second, first.per_second),
                of_first(turn.cpu_us, first.cpu_us),
                memory,
            )
        )
    return lines


def of_first(values: Sequence[float], firsts: Sequence[float]) -> float:
    return statistics.median(value / (one or 1) for value, one in zip(values, firsts, strict=True))


def table(lines: Sequence[Line]) -> str:
    rows = [
        "| database | what | where | per second | of the first | CPU us | of the first | own MB | resident |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for line in lines:
        memory = (f"{line.memory.own:.0f}", f"{line.memory.resident:.0f}") if line.memory else ("", "")
        rows.append(
            f"| {line.database} | {line.what} | {line.where} | {line.per_second:,.0f} | {line.of_first:.0%} "
            f"| {line.cpu_us:,.0f} | {line.cpu_of_first:.0%} | {memory[0]} | {memory[1]} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
