"""The faults' ledgers at the end of a test run, passing or not: one line per fault."""

import pytest

PROPERTY = "ledger"
"""Under this name a test's report carries its ledger: numbers by heading."""


def write_ledgers(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every ledger that a test wrote."""
    ledgers: dict[str, tuple[dict[str, int], str]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, ledger in getattr(report, "user_properties", ()):
                if name == PROPERTY and report.when == "call":
                    ledgers[report.nodeid] = ledger, "" if outcome == "passed" else "FAILED: "
    if not ledgers:
        return
    headings = list(next(iter(ledgers.values()))[0])
    terminalreporter.section("faults: what became of every grant")
    terminalreporter.write_line("  ".join([*headings, "fault"]))
    for nodeid, (ledger, mark) in sorted(ledgers.items()):
        cells = [str(ledger[heading]).rjust(len(heading)) for heading in headings]
        terminalreporter.write_line("  ".join([*cells, mark + as_a_sentence(nodeid)]))


def as_a_sentence(nodeid: str) -> str:
    """Turn "tests/faults/test_x.py::test_a_thing_holds[sqlite]" into "a thing holds [sqlite]"."""
    name = nodeid.rpartition("::")[2].removeprefix("test_")
    name, bracket, parameters = name.partition("[")
    return name.replace("_", " ") + (f" [{parameters}" if bracket else "")
