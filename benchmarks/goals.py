"""Every goal that evergrant has for its speed and size: what was measured, and whether it is reached.

It runs the other benchmarks one after another and reads what they say. The exit code is not 0 where a figure is below
its floor, or a benchmark failed: its answers were wrong, or a database does not use its index. A goal may be far.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the file can be run by its path

from benchmarks.fetch import ROOT, machine, progress

Told = dict[str, Any]
"""What a benchmark says with --json."""
Figures = Iterable[tuple[str, float]]
"""Where each was measured, and what."""
SETUPS = {
    "fetch": ((), ("--grants", "20000", "--rounds", "2", "--seconds", "2")),
    "sweep": ((), ("--grants", "8000", "--rounds", "1", "--seconds", "2", "--processes", "1", "--sizes", "10k")),
    "flat": ((), ("--sizes", "10k,100k", "--rounds", "2", "--seconds", "2")),
    "start": ((), ("--starts", "3")),
    "proxy": ((), ("--rounds", "2", "--seconds", "1.5")),
}
"""The benchmarks, each with its options for the whole run and for a quick look."""
WITH_DATABASES = ("fetch", "sweep", "flat", "start")


@dataclass(frozen=True)
class Goal:
    """One number that evergrant is to reach, as a benchmark finds it in one place or several."""

    what: str
    benchmark: str
    figures: Callable[[Told], Figures]
    goal: float
    floor: float | None
    """What no change may break; None where there is only a goal."""
    at_least: bool = True
    """Whether more is better."""
    unit: str = "%"


@dataclass(frozen=True)
class Measured:
    """A figure beside its goal."""

    what: str
    where: str
    value: float
    goal: float
    floor: float | None
    at_least: bool
    unit: str

    @property
    def verdict(self) -> str:
        """`PASS`, or how far it is from the goal, and whether below the floor."""
        if self._reaches(self.goal):
            return "PASS"
        digits = digits_of(self.goal)
        far = f"{self.value - self.goal:+.{digits}f} {self.unit}"
        return f"{far}, BELOW THE FLOOR" if self.fails else far

    @property
    def fails(self) -> bool:
        return self.floor is not None and not self._reaches(self.floor)

    def _reaches(self, limit: float) -> bool:
        return self.value >= limit if self.at_least else self.value <= limit


def of_results(value: Callable[[Told], float | None]) -> Callable[[Told], Figures]:
    """Read one number of each database from `fetch`; one without it says nothing."""

    def figures(told: Told) -> Figures:
        return [(one["database"], found) for one in told["results"] if (found := value(one)) is not None]

    return figures


def of_lines(what: str, value: Callable[[Told], float], *, after: int = 1) -> Callable[[Told], Figures]:
    """Read a number of lines of one kind from `flat`, of each database `after` so many."""

    def figures(told: Told) -> Figures:
        seen: dict[str, int] = {}
        for line in told["lines"]:
            if line["what"] != what:
                continue
            seen[line["database"]] = seen.get(line["database"], 0) + 1
            if seen[line["database"]] > after:
                yield f"{line['database']}, {line['where']}", value(line)

    return figures


def of_starts(value: Callable[[Told], float]) -> Callable[[Told], Figures]:
    def figures(told: Told) -> Figures:
        return [(one["database"], value(one)) for one in told["starts"]]

    return figures


def refresh_shares(told: Told) -> Figures:
    return [
        (f"{one['database']}, {one['processes']} processes", one["ratio"] * 100)
        for one in told["throughput"]
        if one["processes"] == 1
    ]


def claims_beside_smallest(told: Told) -> Figures:
    smallest: dict[str, float] = {}
    for one in told["finding"]:
        took = one["claim_ms"]["median"]
        first = smallest.setdefault(one["database"], took)
        if first != took:
            yield f"{one['database']}, {one['grants']:,} grants", took / first * 100


def hot_share(one: Told) -> float | None:
    return one["hot_ratio"] * 100 if one.get("hot_ratio") is not None else None


def rate_share(line: Told) -> float:
    return float(line["of_first"]) * 100


GOALS = (
    Goal("fetch, row read: of a constant endpoint's rate", "fetch", of_results(lambda one: one["ratio"] * 100), 65, 36),
    Goal("fetch, hot: of a constant endpoint's rate", "fetch", of_results(hot_share), 110, None),
    Goal(
        "fetch: p99, of the constant endpoint's",
        "fetch",
        of_results(lambda one: one["fetch"]["p99_ms"] / one["constant"]["p99_ms"] * 100),
        200,
        300,
        at_least=False,
    ),
    Goal("fetch, by size: of the smallest's rate", "flat", of_lines("fetch", rate_share), 90, 75),
    Goal("refresh, by size: of the smallest's rate", "flat", of_lines("refresh", rate_share), 90, 60),
    Goal(
        "fetch, by processes: CPU, of one process's",
        "flat",
        of_lines("fetch by processes", lambda line: line["cpu_of_first"] * 100),
        110,
        None,
        at_least=False,
    ),
    Goal("fetch beside a busy refresher: of the rate alone", "flat", of_lines("fetch beside", rate_share), 80, None),
    Goal(
        "memory of a process that answers, under load",
        "flat",
        of_lines("fetch by processes", lambda line: line["memory"]["own"], after=0),
        120,
        160,
        at_least=False,
        unit="MB",
    ),
    Goal(
        "start: to the first answer", "start", of_starts(lambda one: one["seconds"]), 1.5, 4, at_least=False, unit="s"
    ),
    Goal(
        "memory of a refresher",
        "start",
        of_starts(lambda one: one["refresher"]["own"]),
        120,
        160,
        at_least=False,
        unit="MB",
    ),
    Goal("refresh: of the bare work's rate", "sweep", refresh_shares, 60, 40),
    Goal("claiming 16 due grants, by size: of the smallest's time", "sweep", claims_beside_smallest, 110, 200, False),
)
"""Those of `proxy` stand in that benchmark."""


def main() -> None:
    options = parse()
    measured: list[Measured] = []
    problems = []
    for name in options.only:
        began = time.monotonic()
        told, problem = run(name, options)
        progress(f"{name}: took {(time.monotonic() - began) / 60:.0f} minutes")
        measured += read(name, told) if told else []
        problems += [f"{name}: {problem}"] if problem else []
    if options.json:
        results = [{**asdict(one), "verdict": one.verdict} for one in measured]
        print(json.dumps({"machine": machine(), "goals": results, "problems": problems}, indent=2))
    else:
        print(table(measured))
    if any(one.fails for one in measured) or problems:
        sys.exit("\n".join(problems) or "below a floor")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a look of some minutes: small tables and few turns")
    parser.add_argument("--only", nargs="+", default=list(SETUPS), choices=list(SETUPS), help="only these benchmarks")
    parser.add_argument("--databases", nargs="+", default=["postgresql", "sqlite"], choices=["postgresql", "sqlite"])
    parser.add_argument("--sizes", help="grants for `flat`, as 10k,1M,10M")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def run(name: str, options: argparse.Namespace) -> tuple[Told | None, str]:
    """Run one benchmark; return what it says, and what is wrong."""
    whole, quick = SETUPS[name]
    arguments = [*(quick if options.quick else whole), "--json"]
    if name in WITH_DATABASES:
        arguments += ["--databases", *options.databases]
    if name == "flat" and options.sizes:
        arguments += ["--sizes", options.sizes]
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    try:
        told: Told = json.loads(done.stdout)
    except ValueError:
        return None, f"ended with {done.returncode} and said nothing"
    return told, f"ended with {done.returncode}" if done.returncode else ""


def read(name: str, told: Told) -> list[Measured]:
    """Lay a benchmark's figures beside their goals."""
    if name == "proxy":
        return [
            Measured("proxy: " + one["name"], "", one["value"], one["goal"], one["floor"], one["at_least"], one["unit"])
            for one in told["findings"]
        ]
    return [
        Measured(goal.what, where, value, goal.goal, goal.floor, goal.at_least, goal.unit)
        for goal in GOALS
        if goal.benchmark == name
        for where, value in goal.figures(told)
    ]


def digits_of(goal: float) -> int:
    """Return how many digits behind the point are worth telling."""
    return 0 if goal >= 10 else 2


def table(measured: Sequence[Measured]) -> str:
    lines = ["| goal | where | measured | goal | floor | |", "|---|---|---:|---:|---:|---|"]
    for one in measured:
        digits, sign = digits_of(one.goal), "≥" if one.at_least else "≤"
        floor = "" if one.floor is None else f"{sign} {one.floor:g} {one.unit}"
        lines.append(
            f"| {one.what} | {one.where} | {one.value:.{digits}f} {one.unit} | {sign} {one.goal:g} {one.unit} "
            f"| {floor} | {one.verdict} |"
        )
    reached = sum(one.verdict == "PASS" for one in measured)
    about = machine()
    lines += ["", f"{reached} of {len(measured)} reached. {about['cpus']} CPUs; Python {about['python']}."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
