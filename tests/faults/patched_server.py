"""`evergrant`, with some of its constants and its clock changed: a test starts servers with this program.

`PATCHED` is a JSON object of values by full name, for example {"evergrant.broker.refresh.lease.LEASE_SECONDS": 3}. An
object there stands for fields of a dataclass: {"evergrant.pace.PACE": {"call": 4}}.
`CLOCK_OFFSET` is a file with the seconds by which this process's clock is wrong; it is read at every look at the clock,
so that a test moves the clock while the process runs.
"""

import importlib
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from evergrant import clock


def patch() -> None:
    """Apply what the environment says, before anything of evergrant has copied a constant."""
    for place, value in json.loads(os.environ.get("PATCHED", "{}")).items():
        module_name, _, name = place.rpartition(".")
        module = importlib.import_module(module_name)
        before = getattr(module, name)  # a misspelt name must not pass for a patch
        setattr(module, name, replace(before, **value) if isinstance(value, dict) else value)
    if "CLOCK_OFFSET" in os.environ:
        offset = Path(os.environ["CLOCK_OFFSET"])
        clock.now = lambda: datetime.now(UTC) + timedelta(seconds=float(offset.read_text()))


if __name__ == "__main__":
    patch()
    from evergrant.cli import cli

    cli()
