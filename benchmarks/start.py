"""How long from the start of `evergrant serve` to its first answer, and how much memory it has then?

With the whole app library, as it is installed. The database has its schema, as at each start but the first. The exit
code is not 0 above the floor. Everything stays on loopback and in a temporary folder.
"""

import argparse
import asyncio
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the file can be run by its path

from benchmarks.databases import DATABASES, fresh_settings
from benchmarks.fetch import ROOT, cpu_seconds, machine, progress
from benchmarks.memory import Memory, memory_of
from evergrant.broker.operations.setup import initialise, upgrade
from evergrant.catalog.loader import load_catalogue
from evergrant.settings import PREFIX, Settings
from tests.infra.serving import environment_of, free_port

SLOWEST_SECONDS = 60.0
LOOK_SECONDS = 0.005


@dataclass(frozen=True)
class Started:
    """The medians of all starts on one database."""

    database: str
    templates: int
    seconds: float
    """To the first answer of /readyz, which asks the database."""
    cpu_seconds: float
    memory: Memory
    refresher: Memory
    """Of `evergrant refresher`, which has no pages and no API."""


def main() -> None:
    options = parse()
    found = []
    for database in options.databases:
        with fresh_settings(database, durable=False) as settings:
            asyncio.run(upgrade(settings))
            asyncio.run(initialise(settings))
            found.append(measure(database, settings, options.starts))
        progress(f"{database}: {found[-1].seconds:.2f} s to the first answer, {found[-1].memory.own:.0f} MB")
    if options.json:
        print(json.dumps({"machine": machine(), "starts": [asdict(one) for one in found]}, indent=2))
    else:
        print(table(found))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--starts", type=int, default=5, help="how often it is started (default: 5)")
    parser.add_argument("--databases", nargs="+", default=list(DATABASES), choices=DATABASES)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def measure(database: str, settings: Settings, starts: int) -> Started:
    """Start it so often, and once more before that: the first reads everything from the disk, and compiles it."""
    seen = [one_start(settings) for _ in range(starts + 1)][1:]
    seconds, cpu = statistics.median(one[0] for one in seen), statistics.median(one[1] for one in seen)
    with started(settings, "refresher") as refresher:
        time.sleep(3)  # until it has looked for work
        alone = memory_of(refresher.pid)
        refresher.terminate()
    return Started(database, len(load_catalogue()), seconds, cpu, seen[-1][2], alone)


def one_start(settings: Settings) -> tuple[float, float, Memory]:
    """Return seconds to the first answer, of how much processor time, and the memory then.

    Raises:
        RuntimeError: it did not answer.
    """
    port, began = free_port(), time.perf_counter()
    with started(settings, "serve", "--port", str(port)) as server:
        while not answers(port):
            if server.poll() is not None or time.perf_counter() - began > SLOWEST_SECONDS:
                server.kill()
                raise RuntimeError("evergrant did not start")
            time.sleep(LOOK_SECONDS)
        took, used, memory = time.perf_counter() - began, cpu_seconds(server.pid), memory_of(server.pid)
        server.terminate()
    return took, used, memory


def started(settings: Settings, *arguments: str) -> subprocess.Popen[bytes]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    clean.pop("PYTHONDONTWRITEBYTECODE", None)  # an installation is compiled once
    return subprocess.Popen(
        [sys.executable, "-m", "evergrant", *arguments],
        env=clean | environment_of(settings),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def table(found: list[Started]) -> str:
    lines = [
        "| database | first answer, s | CPU s | own MB | with its share | resident | a refresher, own MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {one.database} | {one.seconds:.2f} | {one.cpu_seconds:.2f} | {one.memory.own:.0f} "
        f"| {one.memory.share:.0f} | {one.memory.resident:.0f} | {one.refresher.own:.0f} |"
        for one in found
    ]
    about = machine()
    return "\n".join([*lines, "", f"{found[0].templates} templates; {about['cpus']} CPUs; Python {about['python']}."])


if __name__ == "__main__":
    main()
