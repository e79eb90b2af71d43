"""Does anybody notice when a large project is deleted? `evergrant projects delete` beside a neighbour's calls.

A server answers a given number of fetches per second of one project, and some writes, while the command deletes another
project with so many connections. Every answer must be right, and nothing of the deleted project may be left. The exit
code tells whether that was so. Everything stays on loopback and in a temporary folder.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the file can be run by its path

import httpx2

from benchmarks.databases import DATABASES, fresh_settings
from benchmarks.fetch import machine, progress
from benchmarks.rotate import Answers, fetch_until
from benchmarks.seed import Seeded, seed
from evergrant.broker.projects.shredding import count_rows
from evergrant.broker.runtime.broker import open_broker
from evergrant.settings import Settings
from tests.infra.serving import ServerProcess, environment_of

NEIGHBOURS = 2_000
WRITES_PER_SECOND = 5
EVENT = {"action": "shop.sold", "type": "info", "actorId": "benchmark"}


def main() -> None:
    options = parse()
    wrong: list[str] = []
    for database in options.databases:
        with fresh_settings(database, durable=True) as usual:
            settings = usual.model_copy(update={"rate_limit_per_key": 1_000_000})
            progress(f"{database}: storing {options.grants:,} grants")
            large = asyncio.run(seed(settings, options.grants))
            neighbour = asyncio.run(seed(settings, NEIGHBOURS))
            wrong += asyncio.run(measure(database, settings, large, neighbour, options))
    if wrong:
        sys.exit(f"{len(wrong)} answers were wrong, the first: {wrong[0]}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--grants", type=int, default=1_000_000, help="connections to delete (default: 1000000)")
    parser.add_argument("--per-second", type=int, default=200, help="the neighbour's fetches (default: 200)")
    parser.add_argument("--before", type=float, default=20.0, help="seconds of calls without a deletion (default: 20)")
    parser.add_argument("--databases", nargs="+", default=list(DATABASES), choices=DATABASES)
    return parser.parse_args()


async def measure(
    database: str, settings: Settings, large: Seeded, neighbour: Seeded, options: argparse.Namespace
) -> list[str]:
    """Call all the time, first with nothing beside it, then with a deletion. Returns what went wrong."""
    environment = environment_of(settings)
    log = settings.data_dir / "evergrant.log"
    tables: dict[str, tuple[Answers, Answers]] = {}
    with ServerProcess(environment, "--workers", "1", "--no-refresher", log=log) as evergrant:
        headers = {"authorization": f"Bearer {neighbour.project_id}:{neighbour.management_key}"}
        async with httpx2.AsyncClient(base_url=evergrant.url, headers=headers, timeout=60, trust_env=False) as http:
            tables["alone"] = await call_while(http, asyncio.sleep(options.before), options)
            began = time.perf_counter()
            tables["while deleting"] = await call_while(http, delete(environment, large.project_id), options)
            seconds = time.perf_counter() - began
    async with open_broker(settings) as broker:
        left = sum((await count_rows(broker, large.project_id)).values())
    print(f"{database}\n| calls | answers | wrong | p50 ms | p99 ms |\n|---|---:|---:|---:|---:|")
    for name, (fetches, writes) in tables.items():
        print(fetches.line(f"fetches {name}"), writes.line(f"writes {name}"), sep="\n")
    about = machine()
    print(
        f"\n{options.grants:,} connections deleted in {seconds:.0f} s, {left} rows left; {about['cpus']} CPUs shared "
        f"by server, command, database and load; Python {about['python']}."
    )
    wrong = [text for pair in tables.values() for answers in pair for text in answers.wrong]
    return [*wrong, *([f"{left} rows are left"] if left else [])]


async def call_while(
    http: httpx2.AsyncClient, work: Awaitable[None], options: argparse.Namespace
) -> tuple[Answers, Answers]:
    fetches, writes, stop = Answers(), Answers(), asyncio.Event()
    rate = argparse.Namespace(grants=NEIGHBOURS, per_second=options.per_second)
    calls = asyncio.gather(fetch_until(http, fetches, stop, rate), write_until(http, writes, stop))
    try:
        await work
    finally:
        stop.set()
        await calls
    return fetches, writes


async def write_until(http: httpx2.AsyncClient, answers: Answers, stop: asyncio.Event) -> None:
    while not stop.is_set():
        began = time.perf_counter()
        try:
            answer = await http.post("/v1/mgmt/audit/event", json=EVENT)
            if answer.status_code != 200:
                answers.wrong.append(answer.text[:300])
        except httpx2.HTTPError as error:
            answers.wrong.append(repr(error))
        answers.latencies_ms.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(1 / WRITES_PER_SECOND)


async def delete(environment: dict[str, str], project_id: str) -> None:
    """Run the command as an operator does."""
    command = (sys.executable, "-m", "evergrant", "projects", "delete", project_id, "--yes")
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **environment}, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the deletion failed: {err.decode()[-2000:]}")


if __name__ == "__main__":
    main()
