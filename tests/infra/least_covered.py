"""The files of which the tests reach least, at the end of a run that measured it."""

import json
import tempfile
from pathlib import Path

import coverage
import pytest

HOW_MANY = 10


def write_least_covered(reporter: pytest.TerminalReporter) -> None:
    """Print the least covered files; `.venv/bin/coverage report --show-missing` has the lines."""
    if not getattr(reporter.config.option, "cov_source", None) or hasattr(reporter.config, "workerinput"):
        return
    measured = coverage.Coverage()
    measured.load()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "coverage.json"
        try:
            measured.json_report(outfile=str(file))
        except coverage.CoverageException:
            return  # the run was interrupted before a worker had sent what it measured
        files = json.loads(file.read_text())["files"]
    reporter.section(f"coverage: the {HOW_MANY} files of which the tests reach least")
    covered = sorted((one["summary"]["percent_covered"], name) for name, one in files.items())
    for percent, name in covered[:HOW_MANY]:
        reporter.write_line(f"{percent:5.1f}%  {name}")
