"""`make bench` says of each goal whether it is reached, and calls the benchmarks by options that they have."""

import importlib
from argparse import Namespace

import pytest

from benchmarks import goals

SLOW = {"database": "sqlite", "ratio": 0.5, "fetch": {"p99_ms": 3.0}, "constant": {"p99_ms": 2.0}}
BROKEN = SLOW | {"ratio": 0.2}
FAST = SLOW | {"ratio": 0.7, "hot_ratio": 1.2}


def verdicts(result: dict[str, object]) -> list[str]:
    return [one.verdict for one in goals.read("fetch", {"results": [result]})]


def test_a_goal_is_reached_or_has_a_distance_and_a_floor_is_named_when_it_breaks() -> None:
    assert verdicts(FAST) == ["PASS", "PASS", "PASS"]
    assert verdicts(SLOW) == ["-15 %", "PASS"]
    assert verdicts(BROKEN) == ["-45 %, BELOW THE FLOOR", "PASS"]


def test_the_first_of_a_kind_is_what_the_others_are_compared_with() -> None:
    lines = [
        {"database": "sqlite", "what": "fetch", "where": where, "of_first": share}
        for where, share in (("few", 1.0), ("many", 0.95), ("very many", 0.7))
    ]
    found = goals.read("flat", {"lines": lines})
    assert [(one.where, one.verdict) for one in found] == [
        ("sqlite, many", "PASS"),
        ("sqlite, very many", "-20 %, BELOW THE FLOOR"),
    ]


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", goals.SETUPS)
def test_each_benchmark_knows_the_options_that_it_is_called_with(
    monkeypatch: pytest.MonkeyPatch, name: str, quick: bool
) -> None:
    monkeypatch.setattr("sys.argv", [name, *goals.SETUPS[name][quick], "--json"])
    options: Namespace = importlib.import_module(f"benchmarks.{name}").parse()
    assert options.json
    assert hasattr(options, "databases") == (name in goals.WITH_DATABASES)
