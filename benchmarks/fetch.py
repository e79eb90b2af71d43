"""How much does fetching a fresh token cost, beside a FastAPI endpoint that returns a constant?

Both servers run at the same time, one process each, and are asked in turns by the same load generator with the same
requests, so that whatever else the machine does meets both. What counts is the ratio of the medians. The exit code
tells whether it is at least the floor. A second server has the hot set on, and is asked for few users. Everything stays
on loopback and in a temporary folder.

The constant is returned twice: by a handler as most are written, which is what the floor refers to, and by one with a
return type, for which FastAPI lets pydantic write the JSON.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the file can be run by its path

from benchmarks.load import Orders, Seen
from benchmarks.seed import Seeded, seed
from evergrant.settings import Settings
from tests.infra.postgres import PostgresServer
from tests.infra.serving import ServerProcess, environment_of, free_port
from tests.infra.settings import settings_on

ROOT = Path(__file__).resolve().parents[1]
FLOOR, GOAL = 0.50, 0.65
"""Of the constant endpoint, where each fetch reads its row."""
HOT_FLOOR, HOT_GOAL = 0.85, 1.10
"""The same where the row was read less than a second ago."""
P99_GOAL = 2.0
"""Times the constant endpoint's p99."""
HOT_USERS = 200
FETCH = "/v1/mgmt/outbound/app/user/token"
WARM_UP_SECONDS = 1.5
ALONE = ("--workers", "1", "--no-refresher")


@dataclass(frozen=True)
class Round:
    """One turn at one server."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """Processor time of the server process per request, in microseconds."""


@dataclass(frozen=True)
class Result:
    """The medians of all rounds on one database."""

    database: str
    grants: int
    fetch: Round
    """Of random users among all, with the hot set off: each reads its row."""
    hot: Round
    """Of few users, with the hot set on."""
    constant: Round
    typed_constant: Round
    ratio: float
    """To the constant."""
    hot_ratio: float
    p99_ratio: float
    """The fetch's 99th percentile to the constant's."""
    typed_ratio: float
    """To the constant with a return type."""
    checked: int
    seeding_seconds: float


def main() -> None:
    options = parse()
    results = []
    for database in options.databases:
        with tempfile.TemporaryDirectory(prefix="evergrant-bench-") as folder, _settings(database, folder) as settings:
            progress(f"{database}: storing {options.grants:,} grants")
            seeded = asyncio.run(seed(settings, options.grants))
            progress(f"{database}: stored in {seeded.seconds:.0f} s; measuring")
            results.append(measure(database, settings, seeded, options))
    if options.json:
        print(json.dumps({"machine": machine(), "results": [asdict(result) for result in results]}, indent=2))
    else:
        print(table(results))
    if any(result.ratio < FLOOR or result.hot_ratio < HOT_FLOOR for result in results):
        sys.exit(f"below the floor of {FLOOR:.0%}, or of {HOT_FLOOR:.0%} for hot rows")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--grants", type=int, default=1_000_000, help="rows in the table (default: 1000000)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one turn (default: 4)")
    parser.add_argument("--rounds", type=int, default=7, help="turns at each endpoint (default: 7)")
    parser.add_argument("--connections", type=int, default=32, help="requests in flight (default: 32)")
    parser.add_argument("--databases", nargs="+", default=["postgresql", "sqlite"], choices=["postgresql", "sqlite"])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


@contextlib.contextmanager
def _settings(database: str, folder: str) -> Iterator[Settings]:
    """Settings on a new, empty database that is gone afterwards."""
    with contextlib.ExitStack() as stack:
        url = None
        if database == "postgresql":
            server = PostgresServer()
            stack.callback(server.remove)
            server.start()
            url = server.create_database("benchmark")
        # The limit is on, as usual, but out of the way.
        yield settings_on(url, Path(folder), rate_limit_per_key=1_000_000)


def measure(database: str, settings: Settings, seeded: Seeded, options: argparse.Namespace) -> Result:
    """Ask both servers in turns."""
    log, keeping = settings.data_dir / "evergrant.log", settings.model_copy(update={"hot_set": True})
    with (
        ServerProcess(environment_of(settings), *ALONE, log=log) as evergrant,
        ServerProcess(environment_of(keeping), *ALONE, log=settings.data_dir / "hot.log") as hot_evergrant,
        constant_server() as (constant_port, constant_pid),
    ):
        shared: dict[str, Any] = {
            "authorization": f"Bearer {seeded.project_id}:{seeded.management_key}",
            "users": options.grants,
            "connections": options.connections,
        }
        fetch = shared | {"port": evergrant.port, "path": FETCH, "check_tokens": True}
        hot = fetch | {"port": hot_evergrant.port, "users": min(HOT_USERS, options.grants)}
        plain = shared | {"port": constant_port, "path": "/plain", "check_tokens": False}
        typed = plain | {"path": "/typed"}
        for orders in (fetch, hot, plain, typed):
            load(Orders(**orders, seconds=WARM_UP_SECONDS))
        fetches, hots, constants, typed_constants, checked = [], [], [], [], 0
        for number in range(1, options.rounds + 1):
            seen, turn = one_turn(Orders(**fetch, seconds=options.seconds), evergrant.pid)
            fetches.append(turn)
            checked += seen.checked
            hots.append(one_turn(Orders(**hot, seconds=options.seconds), hot_evergrant.pid)[1])
            constants.append(one_turn(Orders(**plain, seconds=options.seconds), constant_pid)[1])
            typed_constants.append(one_turn(Orders(**typed, seconds=options.seconds), constant_pid)[1])
            progress(
                f"{database}: round {number}: {fetches[-1].per_second:,.0f} fetches/s, {hots[-1].per_second:,.0f} hot, "
                f"{constants[-1].per_second:,.0f} constants/s, {typed_constants[-1].per_second:,.0f} typed"
            )
    of_fetch, of_hot = medians(fetches), medians(hots)
    of_constant, of_typed = medians(constants), medians(typed_constants)
    return Result(
        database=database,
        grants=options.grants,
        fetch=of_fetch,
        hot=of_hot,
        constant=of_constant,
        typed_constant=of_typed,
        ratio=of_fetch.per_second / of_constant.per_second,
        hot_ratio=of_hot.per_second / of_constant.per_second,
        p99_ratio=of_fetch.p99_ms / of_constant.p99_ms,
        typed_ratio=of_fetch.per_second / of_typed.per_second,
        checked=checked,
        seeding_seconds=seeded.seconds,
    )


@contextlib.contextmanager
def constant_server() -> Iterator[tuple[int, int]]:
    """Run the constant endpoint; yields its port and process id."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.constant", "--port", str(port)], cwd=ROOT)
    try:
        wait_until_it_listens(process, port, "the constant endpoint")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(timeout=10)


def wait_until_it_listens(process: subprocess.Popen[bytes], port: int, name: str) -> None:
    """Wait until a process that was just started takes connections.

    Raises:
        RuntimeError: it ended, or took longer than 20 seconds.
    """
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start") from None
            time.sleep(0.05)
        else:
            return


def one_turn(orders: Orders, server_pid: int) -> tuple[Seen, Round]:
    before = cpu_seconds(server_pid)
    seen = load(orders)
    used = cpu_seconds(server_pid) - before
    return seen, Round(seen.answers / seen.seconds, seen.p50_ms, seen.p99_ms, used / seen.answers * 1_000_000)


def load(orders: Orders) -> Seen:
    """Run the load generator.

    Raises:
        RuntimeError: an answer was wrong, so there is nothing to measure.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=json.dumps(asdict(orders)),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        timeout=orders.seconds + 60,
        check=True,
    )
    seen = Seen(**json.loads(done.stdout))
    if seen.wrong or (orders.check_tokens and not seen.checked):
        raise RuntimeError(f"{seen.wrong} of {seen.answers} answers were wrong, the first: {seen.first_wrong}")
    return seen


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used (0 where the system does not tell through /proc)."""
    try:
        # The name in parentheses may hold spaces; user and system time are the 12th and 13th field behind it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def medians(rounds: Sequence[Round]) -> Round:
    return Round(*(statistics.median(asdict(turn)[name] for turn in rounds) for name in Round.__annotations__))


def machine() -> dict[str, Any]:
    return {"cpus": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}


def table(results: Sequence[Result]) -> str:
    lines = [
        "| database | what | per second | of the constant | CPU us | p50 ms | p99 ms |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        for name, turn, ratio in (
            ("token fetch", result.fetch, f"{result.ratio:.0%}"),
            ("hot token fetch", result.hot, f"{result.hot_ratio:.0%}"),
            ("constant endpoint", result.constant, ""),
            ("the same with a return type", result.typed_constant, ""),
        ):
            lines.append(
                f"| {result.database} | {name} | {turn.per_second:,.0f} | {ratio} | {turn.cpu_us:.0f} "
                f"| {turn.p50_ms:.1f} | {turn.p99_ms:.1f} |"
            )
    about = machine()
    checked = sum(result.checked for result in results)
    lines.append("")
    for result in results:
        for name, value, goal in (("fetch", result.ratio, GOAL), ("hot fetch", result.hot_ratio, HOT_GOAL)):
            verdict = "PASS" if value >= goal else f"{goal - value:.0%} missing"
            lines.append(f"{result.database}: {name} {value:.0%} of the constant, goal {goal:.0%}: {verdict}")
        verdict = "PASS" if result.p99_ratio <= P99_GOAL else "too slow"
        lines.append(
            f"{result.database}: p99 {result.p99_ratio:.1f} times the constant's, goal {P99_GOAL:.0f}: {verdict}"
        )
    lines.append("")
    lines.append(
        f"{results[0].grants:,} grants; {about['cpus']} CPUs shared by server, database and load generator; "
        f"Python {about['python']}; {checked:,} answers compared with what was stored."
    )
    return "\n".join(lines)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
