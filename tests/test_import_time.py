"""What imports do: they read no clock (such a "now" ages with the run), and a start imports nothing in vain."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evergrant.broker.operations.setup import upgrade
from evergrant.settings import PREFIX, Settings
from tests.infra.serving import environment_of
from tests.infra.waiting import PATIENCE

ROOT = Path(__file__).parents[1]
READS = {"monotonic", "monotonic_ns", "now", "perf_counter", "time", "time_ns", "today", "utcnow"}
"""What the calls that read a clock are named, whatever module they are taken from."""


def clock_reads(source: str) -> list[str]:
    """Return the calls that read a clock when the module is imported: outside functions, in decorators, as defaults."""
    reads, waiting = [], list[ast.AST](ast.parse(source).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += _read_at_definition(node)  # and not its body, which runs when it is called
            continue
        if isinstance(node, ast.Call) and (
            ast.unparse(node.func).rpartition(".")[2] in READS or _has_the_time_in_it(node)
        ):
            reads.append(f"line {node.lineno}: {ast.unparse(node)}")
        waiting += ast.iter_child_nodes(node)
    return reads


def _has_the_time_in_it(call: ast.Call) -> bool:
    """Tell whether a call writes the time into what it returns: a test that is named after that has another name in
    each process that collects it."""
    return ast.unparse(call.func) == "gzip.compress" and "mtime" not in [keyword.arg for keyword in call.keywords]


def _read_at_definition(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Iterator[ast.AST]:
    yield from function.args.defaults
    yield from (default for default in function.args.kw_defaults if default is not None)
    if not isinstance(function, ast.Lambda):
        yield from function.decorator_list


@pytest.mark.parametrize("folder", ["src", "migrations", "tests", "benchmarks", "scripts"])
def test_no_module_reads_the_clock_when_it_is_imported(folder: str) -> None:
    found = {str(path): reads for path in (ROOT / folder).rglob("*.py") if (reads := clock_reads(path.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "END = time.time() + 600",
        "class Trip:\n    started = datetime.now(UTC)",
        "@pytest.mark.parametrize('exp', [int(time.time()) - 600])\ndef test(exp): ...",
        "def wait(until=clock.now()): ...",
        "def wait(*, until=monotonic()): ...",
        "later = lambda now=time.time(): now",
        "BODY = gzip.compress(b'x')",
    ],
)
def test_a_clock_that_is_read_too_early_is_found(source: str) -> None:
    assert len(clock_reads(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "def now():\n    return time.time()",
        "BODY = gzip.compress(b'x', mtime=0)",
        "later = lambda: time.time()",
        "at: float = field(default_factory=time.time)",
    ],
)
def test_a_clock_that_is_read_when_it_is_needed_is_not(source: str) -> None:
    assert clock_reads(source) == []


APPLICATION = """
import sys
import evergrant.web.app
from evergrant.web.api.app_answer_wire import AppBody

print("aiohttp" in sys.modules, AppBody.__pydantic_complete__)
"""


def test_an_application_imports_no_client_of_apis_and_builds_no_models_before_they_are_used() -> None:
    done = subprocess.run(
        [sys.executable, "-c", APPLICATION], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.split() == ["False"] * 2


STARTING = """
import asyncio, sys
import evergrant.cli.serve
from evergrant.broker.operations.setup import prepare_database
from evergrant.settings import load_settings

asyncio.run(prepare_database(load_settings()))
print(*sorted({name for name in sys.modules if name in sys.argv[1:]}))
"""


async def test_a_start_imports_neither_pages_for_a_refresher_nor_migrations_that_are_done(settings: Settings) -> None:
    await upgrade(settings)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    spared = ["alembic", "mako", "fastapi", "jinja2", "evergrant.web.app", "evergrant.practice", "evergrant.cli.demo"]
    done = subprocess.run(
        [sys.executable, "-c", STARTING, *spared],
        env=clean | environment_of(settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout.split() == []
