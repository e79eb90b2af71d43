"""Does anybody notice when all keys are changed? `evergrant keyring rotate` beside a steady stream of fetches.

A server answers a given number of fetches per second from PostgreSQL, each for a random one of so many connections,
while the command seals every value again under a new data key. Every answer must be a 200 with a token. The exit code
tells whether all were. Everything stays on loopback and in a temporary folder.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the file can be run by its path

import httpx2

from benchmarks.fetch import FETCH, machine, progress
from benchmarks.seed import APP_ID, SCOPES, Seeded, access_token, seed, user_id
from evergrant.settings import Settings
from tests.infra.postgres import PostgresServer
from tests.infra.serving import ServerProcess, environment_of
from tests.infra.settings import settings_on


@dataclass
class Answers:
    """What the stream of fetches saw."""

    latencies_ms: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def line(self, name: str) -> str:
        if len(self.latencies_ms) < 2:
            return f"| {name} | {len(self.latencies_ms):,} | {len(self.wrong)} | | |"
        cuts = statistics.quantiles(self.latencies_ms, n=100)
        return f"| {name} | {len(self.latencies_ms):,} | {len(self.wrong)} | {cuts[49]:.1f} | {cuts[98]:.1f} |"


def main() -> None:
    options = parse()
    server = PostgresServer()
    try:
        server.start()
        with tempfile.TemporaryDirectory(prefix="evergrant-bench-") as folder:
            settings = settings_on(server.create_database("benchmark"), Path(folder), rate_limit_per_key=1_000_000)
            progress(f"storing {options.grants:,} grants")
            seeded = asyncio.run(seed(settings, options.grants))
            progress(f"stored in {seeded.seconds:.0f} s")
            wrong = asyncio.run(measure(settings, seeded, options))
    finally:
        server.remove()
    if wrong:
        sys.exit(f"{len(wrong)} fetches failed, the first: {wrong[0]}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--grants", type=int, default=1_000_000, help="rows in the table (default: 1000000)")
    parser.add_argument("--per-second", type=int, default=200, help="fetches per second (default: 200)")
    parser.add_argument(
        "--before", type=float, default=20.0, help="seconds of fetches without a rotation (default: 20)"
    )
    return parser.parse_args()


async def measure(settings: Settings, seeded: Seeded, options: argparse.Namespace) -> list[str]:
    """Fetch all the time, first with nothing beside it, then with a rotation. Returns what went wrong."""
    environment = environment_of(settings)
    log = settings.data_dir / "evergrant.log"
    with ServerProcess(environment, "--workers", "1", "--no-refresher", log=log) as evergrant:
        limits = httpx2.Limits(max_connections=64, max_keepalive_connections=64, keepalive_expiry=2)
        headers = {"authorization": f"Bearer {seeded.project_id}:{seeded.management_key}"}
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{evergrant.port}", headers=headers, limits=limits, timeout=30, trust_env=False
        ) as http:
            alone, beside = Answers(), Answers()
            stop = asyncio.Event()
            fetching = asyncio.create_task(fetch_until(http, alone, stop, options))
            await asyncio.sleep(options.before)
            stop.set()
            await fetching
            stop.clear()
            fetching = asyncio.create_task(fetch_until(http, beside, stop, options))
            began = time.perf_counter()
            said = await rotate(environment)
            seconds = time.perf_counter() - began
            stop.set()
            await fetching
    about = machine()
    print("| fetches | answers | wrong | p50 ms | p99 ms |\n|---|---:|---:|---:|---:|")
    print(alone.line("alone"))
    print(beside.line("while rotating"))
    print(
        f"\n{options.grants:,} grants; {said} The command took {seconds:.0f} s, a minute of which it waits; "
        f"{about['cpus']} CPUs shared by server, command, database and load; Python {about['python']}."
    )
    return alone.wrong + beside.wrong


async def rotate(environment: dict[str, str]) -> str:
    """Run the command as an operator does, and return the last line of what it says."""
    command = (sys.executable, "-m", "evergrant", "keyring", "rotate")
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the rotation failed: {err.decode()[-2000:]}")
    return out.decode().strip().splitlines()[-1]


async def fetch_until(
    http: httpx2.AsyncClient, answers: Answers, stop: asyncio.Event, options: argparse.Namespace
) -> None:
    """Begin a fetch so many times per second, whatever becomes of those before."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    async with asyncio.TaskGroup() as group:
        while not stop.is_set():
            group.create_task(fetch(http, answers, random.randrange(options.grants)))
            due += 1 / options.per_second
            await asyncio.sleep(max(0.0, due - loop.time()))


async def fetch(http: httpx2.AsyncClient, answers: Answers, number: int) -> None:
    began = time.perf_counter()
    try:
        answer = await http.post(FETCH, json={"appId": APP_ID, "userId": user_id(number), "scopes": SCOPES})
        if answer.status_code != 200 or answer.json()["token"]["accessToken"] != access_token(number):
            answers.wrong.append(answer.text[:300])
    except httpx2.HTTPError as error:
        answers.wrong.append(repr(error))
    answers.latencies_ms.append((time.perf_counter() - began) * 1000)


if __name__ == "__main__":
    main()
