"""What does a call through evergrant's proxy cost, beside reverse proxies that do nothing but pass on?

evergrant with everything on (authentication, policy, the connection's token, hygiene, scrubbing, call log), a bare
aiohttp proxy and a bare httpx2 one stand before the same API, one process each. They are asked in turns by the same
load generator, so that whatever else the machine does meets all of them; what counts is the ratio of the medians. The
exit code tells whether the floors hold. Everything stays on loopback and in a temporary folder.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the file can be run by its path

import httpx2

from benchmarks.fetch import cpu_seconds, machine, progress, wait_until_it_listens
from benchmarks.proxy_load import Orders, Seen
from benchmarks.seed import APP_ID, Seeded, seed
from evergrant.settings import Settings
from tests.infra.serving import ServerProcess, environment_of, free_port
from tests.infra.settings import settings_on

ROOT = Path(__file__).resolve().parents[1]
OUTBOUND = "/v1/mgmt/outbound"
USERS = 32
"""An agent of its own on each connection."""
STREAMS = 1000
UNREAD = 20
WARM_UP_SECONDS = 1.5
SETTLE_SECONDS = 1.0
KIB = 1024
QUIET = ("--workers", "1", "--no-refresher")
WITHOUT_LOG = (
    "import sys; from evergrant.broker.runtime.unwritten_calls import UnwrittenCalls;"
    "UnwrittenCalls.note = lambda self, call: None;"
    "from evergrant.__main__ import main; sys.argv[0] = 'evergrant'; main()"
)
"""evergrant that notes no calls."""


@dataclass(frozen=True)
class Target:
    """A proxy, or the API itself."""

    name: str
    port: int
    pid: int
    prefix: str = ""
    headers: str = ""

    def orders(self, path: str, **more: Any) -> Orders:
        return Orders(port=self.port, path=self.prefix + path, headers=self.headers, **more)


@dataclass
class Turns:
    """One target's turns at one load."""

    per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    """Of the target's process, for each answer."""

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in asdict(self).items()}


@dataclass(frozen=True)
class Finding:
    """One number with what it should be."""

    name: str
    value: float
    goal: float
    floor: float | None
    at_least: bool
    unit: str = "%"

    @property
    def verdict(self) -> str:
        if self._holds(self.goal):
            return "PASS"
        if self.floor is not None and self._holds(self.floor):
            return f"{self.value - self.goal:+.0f} {self.unit} from the goal, above the floor"
        return f"{self.value - self.goal:+.0f} {self.unit} from the goal"

    @property
    def fails(self) -> bool:
        return self.floor is not None and not self._holds(self.floor)

    def _holds(self, limit: float) -> bool:
        return self.value >= limit if self.at_least else self.value <= limit


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="evergrant-bench-") as folder, contextlib.ExitStack() as stack:
        upstream = stack.enter_context(process("proxy_upstream", "the API"))
        settings = bench_settings(Path(folder))
        seeded = asyncio.run(seed(settings, USERS, token_url="https://provider.invalid/token"))
        evergrant = stack.enter_context(ServerProcess(environment_of(settings), *QUIET, log=Path(folder) / "evergrant"))
        scrubbed, fetching = prepare(evergrant, seeded, upstream)
        silent = stack.enter_context(
            ServerProcess(environment_of(settings), *QUIET, log=Path(folder) / "silent", program=("-c", WITHOUT_LOG))
        )
        where = f"http://127.0.0.1:{upstream.port}"
        rivals = {
            kind: stack.enter_context(process("proxy_rivals", f"bare {kind}", kind, "--upstream", where))
            for kind in ("aiohttp", "httpx2")
        }
        targets = {
            "evergrant": called(evergrant, scrubbed),
            "fetching": called(evergrant, fetching),
            "silent": called(silent, scrubbed),
            **rivals,
            "upstream": upstream,
        }
        findings, measured = measure(targets, options)
    if options.json:
        told = [{**asdict(finding), "verdict": finding.verdict} for finding in findings]
        print(json.dumps({"machine": machine(), "findings": told, "measured": measured}, indent=2))
    else:
        print(table(findings, measured))
    if any(finding.fails for finding in findings):
        sys.exit("below a floor")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one turn (default: 3)")
    parser.add_argument("--rounds", type=int, default=5, help="turns at each proxy (default: 5)")
    parser.add_argument("--connections", type=int, default=32, help="requests in flight (default: 32)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def bench_settings(folder: Path) -> Settings:
    """Return settings on SQLite, with every limit on and out of the way."""
    wanted = {name: 1_000_000 for name in Settings.model_fields if name.startswith("rate_limit_per_")}
    wanted |= {name: 10_000 for name in Settings.model_fields if name.startswith("calls_at_once")}
    return settings_on(None, folder, **wanted)


def prepare(evergrant: ServerProcess, seeded: Seeded, upstream: Target) -> tuple[str, str]:
    """Give the app an API and a policy; return two credentials: one may only call, the other may fetch as well."""
    headers = {"Authorization": f"Bearer {seeded.project_id}:{seeded.management_key}"}
    with httpx2.Client(base_url=evergrant.url, headers=headers, trust_env=False) as http:

        def send(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = http.request(method, path, json=body)
            if answer.status_code != 200:
                raise RuntimeError(f"{path}: {answer.status_code} {answer.text}")
            told: dict[str, Any] = answer.json()
            return told

        base = f"http://127.0.0.1:{upstream.port}"
        app = http.get(f"{OUTBOUND}/app/{APP_ID}").json()["app"]
        send("POST", f"{OUTBOUND}/app/update", {"app": {**app, "apiBaseUrl": base}})
        rule = {"appId": APP_ID, "action": "call", "methods": ["GET"], "paths": ["/**"]}
        send("POST", f"{OUTBOUND}/policies", rule)

        def key(*permissions: str) -> str:
            wanted = {"name": permissions[-1], "permissions": list(permissions)}
            return f"{seeded.project_id}:{send('PUT', '/v1/mgmt/managementkey', wanted)['cleartext']}"

        return key("calls"), key("calls", "tokens:fetch")


def called(evergrant: ServerProcess, credential: str) -> Target:
    headers = f"Authorization: Bearer {credential}\r\nEvergrant-User: user-{{n}}\r\nAccept: application/json\r\n"
    return Target("evergrant", evergrant.port, evergrant.pid, f"/v1/proxy/{APP_ID}", headers)


@contextlib.contextmanager
def process(module: str, name: str, *arguments: str) -> Iterator[Target]:
    """Run one of the other processes."""
    port = free_port()
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, "--port", str(port)]
    # Quiet, since who hangs up on a bare proxy makes it write a page; what goes wrong, the load generator sees.
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        wait_until_it_listens(running, port, name)
        yield Target(name, port, running.pid)
    finally:
        running.kill()  # nothing of it is worth an orderly end
        running.wait(timeout=10)


def measure(targets: dict[str, Target], options: argparse.Namespace) -> tuple[list[Finding], dict[str, Any]]:
    """Ask all of them in turns, and then for what stays open."""
    loads: dict[str, tuple[str, int, Sequence[str]]] = {
        "calls": ("/small", options.connections, ("evergrant", "silent", "aiohttp", "httpx2")),
        "alone": ("/small", 1, ("evergrant", "aiohttp", "upstream")),
        "megabytes": ("/megabyte", 2, ("evergrant", "fetching", "aiohttp")),
    }
    seen: dict[str, dict[str, dict[str, float]]] = {}
    for load, (path, connections, names) in loads.items():
        turns = {name: Turns() for name in names}
        for name in names:
            one_turn(targets[name], path, connections, WARM_UP_SECONDS, Turns())
        for number in range(1, options.rounds + 1):
            for name in names:
                one_turn(targets[name], path, connections, options.seconds, turns[name])
            said = ", ".join(f"{name} {turns[name].per_second[-1]:,.0f}/s" for name in names)
            progress(f"{load}: round {number}: {said}")
        seen[load] = {name: turn.medians() for name, turn in turns.items()}
    held = {
        "stream": {name: grown(targets[name], "/open", STREAMS, unread=False) for name in ("evergrant", "aiohttp")},
        "unread": {name: grown(targets[name], "/endless", UNREAD, unread=True) for name in ("evergrant", "aiohttp")},
    }
    return findings_of(seen, held), {**seen, "kib_each": held}


def findings_of(seen: dict[str, dict[str, dict[str, float]]], held: dict[str, dict[str, float]]) -> list[Finding]:
    calls, alone, megabytes = seen["calls"], seen["alone"], seen["megabytes"]

    def share(one: float, other: float) -> float:
        return one / other * 100 if other else 0.0

    rate = {name: calls[name]["per_second"] for name in calls}
    direct = alone["upstream"]["p50_ms"]
    added = {name: alone[name]["p50_ms"] - direct for name in ("evergrant", "aiohttp")}
    cpu = {name: megabytes[name]["cpu_us"] for name in megabytes}
    log = share(calls["evergrant"]["cpu_us"] - calls["silent"]["cpu_us"], calls["evergrant"]["cpu_us"])
    scrubbing = share(cpu["evergrant"] - cpu["fetching"], cpu["fetching"])
    return [
        Finding("throughput, of a bare aiohttp proxy's", share(rate["evergrant"], rate["aiohttp"]), 75, 60, True),
        Finding("throughput, of a bare httpx2 proxy's", share(rate["evergrant"], rate["httpx2"]), 200, 150, True),
        Finding("added p50 alone, of bare aiohttp's", share(added["evergrant"], added["aiohttp"]), 150, None, False),
        Finding("CPU of a megabyte, of bare aiohttp's", share(cpu["evergrant"], cpu["aiohttp"]), 130, 160, False),
        Finding("scrubbing, of a megabyte's CPU", scrubbing, 5, None, False),
        Finding("call log, of a call's CPU", log, 10, None, False),
        Finding(f"memory of each of {STREAMS:,} open streams", held["stream"]["evergrant"], 100, None, False, "KiB"),
        Finding("memory of a reader that does not read", held["unread"]["evergrant"], 512, None, False, "KiB"),
    ]


def one_turn(target: Target, path: str, connections: int, seconds: float, turns: Turns) -> None:
    """Load one target once.

    Raises:
        RuntimeError: an answer was wrong, so there is nothing to measure.
    """
    before = cpu_seconds(target.pid)
    orders = target.orders(path, connections=connections, seconds=seconds, users=USERS)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.proxy_load"],
        input=json.dumps(asdict(orders)) + "\n",
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        timeout=seconds + 60,
        check=True,
    )
    used = cpu_seconds(target.pid) - before
    seen = Seen(**json.loads(done.stdout))
    if seen.wrong or not seen.answers:
        raise RuntimeError(f"{target.name}: {seen.wrong} of {seen.answers} wrong, the first: {seen.first_wrong}")
    turns.per_second.append(seen.answers / seen.seconds)
    turns.p50_ms.append(seen.p50_ms)
    turns.cpu_us.append(used / seen.answers * 1_000_000)


def grown(target: Target, path: str, count: int, *, unread: bool) -> float:
    """Return by how much a process grows for each of so many answers that stay open, in KiB."""
    orders = target.orders(path, connections=count, users=USERS, hold=not unread, hold_unread=unread)
    before = resident_kib(target.pid)
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.proxy_load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            holder.stdin.write(json.dumps(asdict(orders)) + "\n")
            holder.stdin.flush()
            said = json.loads(holder.stdout.readline())
            if said["open"] != count:
                raise RuntimeError(f"{target.name}: {said['open']} of {count} open: {said['first_wrong']}")
            time.sleep(SETTLE_SECONDS)  # until what is on its way has arrived, or waits for its reader
            each = (resident_kib(target.pid) - before) / count
        finally:
            holder.stdin.close()
            holder.wait(timeout=30)
    progress(f"{target.name}: {count} open, {each:.0f} KiB each")
    return each


def resident_kib(pid: int) -> float:
    """Return how much memory a process has (0 where the system does not tell through /proc)."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / KIB


def table(findings: Sequence[Finding], measured: dict[str, Any]) -> str:
    lines = ["| what | measured | goal | floor | |", "|---|---:|---:|---:|---|"]
    for finding in findings:
        floor = "" if finding.floor is None else f"{finding.floor:.0f} {finding.unit}"
        lines.append(
            f"| {finding.name} | {finding.value:.0f} {finding.unit} | {finding.goal:.0f} {finding.unit} "
            f"| {floor} | {finding.verdict} |"
        )
    lines += [
        "",
        "| proxy | calls/s | CPU us a call | p50 alone, ms | CPU us a megabyte |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in ("evergrant", "aiohttp", "httpx2"):
        call, alone, megabyte = (measured[load].get(name, {}) for load in ("calls", "alone", "megabytes"))
        lines.append(
            f"| {name} | {call['per_second']:,.0f} | {call['cpu_us']:.0f} | {shown(alone, 'p50_ms', 2)} "
            f"| {shown(megabyte, 'cpu_us', 0)} |"
        )
    about = machine()
    lines += ["", f"{about['cpus']} CPUs shared by proxy, API and load generator; Python {about['python']}; SQLite."]
    return "\n".join(lines)


def shown(values: dict[str, float], name: str, digits: int) -> str:
    return f"{values[name]:.{digits}f}" if values else ""


if __name__ == "__main__":
    main()
