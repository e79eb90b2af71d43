"""Dependencies: what is imported is declared, and what is declared does something."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
OWN = {"evergrant", "evergrant_agents", "tests", "benchmarks", "scripts"}
USED_WITHOUT_IMPORT = {
    "aiosqlite",  # SQLAlchemy loads the driver that the URL names
    "httptools",  # uvicorn takes it where it is installed
    "opentelemetry-sdk",  # `imported` finds one distribution for a namespace that several are in: the exporter
    "python-multipart",  # FastAPI loads it when a route reads a form
}


def declared(requirements: Iterable[object]) -> set[str]:
    texts = [text for text in requirements if isinstance(text, str)]
    return {re.split(r"[\[<>=;~ ]", text, maxsplit=1)[0].lower().replace("_", "-") for text in texts}


def imported(*folders: str) -> set[str]:
    """Return the distributions that the code of some folders imports from.

    Programs for clients in environments of their own have locks of their own.
    """
    modules = set()
    for file in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        if file.is_relative_to(ROOT / "tests/mcp/clients"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
    distributions = packages_distributions()
    return {
        distributions[module][0].lower().replace("_", "-") for module in modules - OWN - set(sys.stdlib_module_names)
    }


RUNTIME = declared(PROJECT["project"]["dependencies"])
EXTRAS = declared(name for names in PROJECT["project"]["optional-dependencies"].values() for name in names)


def test_what_evergrant_imports_is_declared_and_nothing_else_is() -> None:
    assert imported("src", "migrations") | USED_WITHOUT_IMPORT == RUNTIME | EXTRAS


def test_what_only_tests_and_tools_import_is_declared_for_development() -> None:
    assert (
        imported("tests", "benchmarks", "scripts") - RUNTIME - EXTRAS - declared(PROJECT["dependency-groups"]["dev"])
        == set()
    )


def test_what_is_an_extra_is_not_needed_to_start() -> None:
    code = (
        "import sys, evergrant.web.app, evergrant.cli, evergrant.broker.runtime.broker;"
        "apart = ('botocore', 'mcp', 'mcp_types', 'opentelemetry.sdk', 'opentelemetry.exporter');"
        "print([name for name in sys.modules if name.startswith(apart)])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
