"""How quickly are due grants refreshed, beside the same provider calls and row updates done without any care?

First, throughput: 1 and 3 refresher processes work off a backlog at a loopback provider, in turns with as many
processes that only POST and UPDATE (`bare.py`). What counts is the ratio of the medians. The profile of one more turn
tells where the refresher's processor time goes. Second, what it costs to find due grants among more and more that are
not due (`finding.py`). Everything stays on loopback and in a temporary folder; the exit code is not 0 when a refresh
token was sent twice, an answer was not stored, or due grants are not found through their index.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the file can be run by its path

from benchmarks.backlog import Backlog
from benchmarks.databases import DATABASES, fresh_settings
from benchmarks.fetch import cpu_seconds, machine, progress
from benchmarks.finding import Found, measure_finding
from benchmarks.finding import table as finding_table
from benchmarks.profiles import Share, where_it_goes
from benchmarks.running import Provider, Workers
from benchmarks.seed import seed

WARM_UP_SECONDS = 2.0
NOT_BEGUN_SECONDS = 60.0


@dataclass(frozen=True)
class Round:
    """One turn."""

    per_second: float
    cpu_us: float
    """Processor time of the working processes per refresh, in microseconds."""


@dataclass(frozen=True)
class Result:
    """The medians of all rounds with so many processes on one database."""

    database: str
    processes: int
    engine: Round
    bare: Round
    ratio: float
    calls: int
    """Refreshes at the provider in all turns of the engine, each stored once."""
    shares: list[Share] = field(default_factory=list)
    """Where one refresher's processor time goes."""


def main() -> None:
    options = parse()
    results: list[Result] = []
    found: list[Found] = []
    for database in options.databases:
        if options.rounds:
            with fresh_settings(database, durable=True) as settings, Provider(options.delay_ms) as provider:
                progress(f"{database}: storing {options.grants:,} grants")
                asyncio.run(seed(settings, options.grants, token_url=provider.token_url))
                backlog = Backlog(settings)
                results += [measure(database, backlog, provider, count, options) for count in options.processes]
                backlog.close()
        for one in measure_finding(database, options.sizes):
            found.append(one)
            progress(f"{database}: {one.grants:,} grants: a claim takes {one.claim_ms.median:.2f} ms")
    if options.json:
        everything = [[asdict(one) for one in these] for these in (results, found)]
        print(json.dumps({"machine": machine(), "throughput": everything[0], "finding": everything[1]}, indent=2))
    else:
        print("\n\n".join(text for text in (table(results, options), finding_table(found)) if text))
    broken = [one.problem for one in found if one.problem]
    if broken:
        sys.exit("\n".join(broken))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--grants", type=int, default=20_000, help="the backlog, full again at each turn's start")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 3], help="refresher processes (default: 1 3)")
    parser.add_argument("--in-flight", type=int, default=16, help="refreshes in flight per process (default: 16)")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="what the provider takes to answer (default: 0)")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one turn (default: 6)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each kind; 0 for none (default: 3)")
    parser.add_argument("--sizes", type=sizes, default=sizes("10k,1M,10M"), help="grants to find due ones among")
    parser.add_argument("--databases", nargs="+", default=list(DATABASES), choices=DATABASES)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


def sizes(text: str) -> list[int]:
    """Read `10k,1M`; an empty text is no size at all."""
    units = {"k": 1_000, "M": 1_000_000}
    return sorted(int(part.rstrip("kM")) * units.get(part[-1], 1) for part in text.split(",") if part)


def measure(database: str, backlog: Backlog, provider: Provider, processes: int, options: argparse.Namespace) -> Result:
    """Let both work in turns."""
    engines, bares, calls = [], [], 0
    for number in range(1, options.rounds + 1):
        backlog.empty()
        with Workers.refreshers(backlog.settings, processes, in_flight=options.in_flight) as workers:
            turn, called = one_turn(workers, backlog, provider, options.seconds, checked=True)
        engines.append(turn)
        calls += called
        backlog.empty()
        with Workers.bare(backlog.settings, processes, provider, in_flight=options.in_flight) as workers:
            bares.append(one_turn(workers, backlog, provider, options.seconds, checked=False)[0])
        progress(
            f"{database}, {processes} processes, round {number}: {engines[-1].per_second:,.0f} refreshes/s, "
            f"{bares[-1].per_second:,.0f} bare"
        )
    shares = []
    shares = profile(backlog, provider, options) if processes == 1 else []
    engine, bare = medians(engines), medians(bares)
    return Result(database, processes, engine, bare, engine.per_second / bare.per_second, calls, shares)


def profile(backlog: Backlog, provider: Provider, options: argparse.Namespace) -> list[Share]:
    """Let a refresher that is profiled work, and one that has nothing to do."""
    profiles = {}
    for name in ("idle", "working"):
        backlog.empty()
        profiles[name] = backlog.settings.data_dir / f"{name}.profile"
        with Workers.refreshers(backlog.settings, 1, in_flight=options.in_flight, profile=profiles[name]) as workers:
            if name == "working":
                one_turn(workers, backlog, provider, options.seconds, checked=True)
            else:
                workers.wait_until_quiet()
                workers.stop()
    return where_it_goes(profiles["working"], less=profiles["idle"])


def one_turn(
    workers: Workers, backlog: Backlog, provider: Provider, seconds: float, *, checked: bool
) -> tuple[Round, int]:
    """Measure the workers in full work, stop them and make sure that every answer was stored."""
    stored, began_at = backlog.stored(), provider.seen()
    workers.wait_until_quiet()
    backlog.fill()
    workers.begin()
    deadline = time.monotonic() + NOT_BEGUN_SECONDS
    while provider.seen().calls == began_at.calls:
        workers.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"no refresh within {NOT_BEGUN_SECONDS:.0f} s:\n{workers.output()}")
        time.sleep(0.05)
    time.sleep(WARM_UP_SECONDS)
    before, cpu, at = provider.seen(), sum(map(cpu_seconds, workers.pids)), time.perf_counter()
    time.sleep(seconds)
    after, used, took = provider.seen(), sum(map(cpu_seconds, workers.pids)) - cpu, time.perf_counter() - at
    workers.check()
    if checked and not backlog.waiting():
        raise RuntimeError("the backlog was worked off before the turn ended: use more --grants or fewer --seconds")
    workers.stop()
    output = workers.output()
    ended_at = provider.seen()
    calls, landed = ended_at.calls - began_at.calls, backlog.stored() - stored
    failed = backlog.failed()
    if ended_at.reused or calls != landed or failed:
        raise RuntimeError(
            f"{calls} calls, {landed} stored, {failed} failed, {ended_at.reused} tokens were sent twice:\n{output}"
        )
    refreshes = after.calls - before.calls
    return Round(refreshes / took, used / refreshes * 1_000_000), calls


def medians(rounds: Sequence[Round]) -> Round:
    return Round(*(statistics.median(asdict(turn)[name] for turn in rounds) for name in Round.__annotations__))


def table(results: Sequence[Result], options: argparse.Namespace) -> str:
    if not results:
        return ""
    lines = [
        "| database | processes | refreshes/s | bare POST + UPDATE/s | ratio | CPU us | bare CPU us |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {result.database} | {result.processes} | {result.engine.per_second:,.0f} "
        f"| {result.bare.per_second:,.0f} | {result.ratio:.0%} | {result.engine.cpu_us:,.0f} "
        f"| {result.bare.cpu_us:,.0f} |"
        for result in results
    ]
    about = machine()
    calls = sum(result.calls for result in results)
    lines.append("")
    lines.append(
        f"{options.grants:,} due grants, {options.in_flight} refreshes in flight per process; {about['cpus']} CPUs "
        f"shared by refreshers, database and provider; Python {about['python']}; {calls:,} refreshes, each stored, no "
        "refresh token sent twice."
    )
    for result in results:
        if result.shares:
            lines += ["", f"Where one refresher's processor time goes on {result.database}:", ""]
            lines += ["| what | share |", "|---|---:|"]
            lines += [f"| {share.what} | {share.part:.0%} |" for share in result.shares]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
