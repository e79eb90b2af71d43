"""`evergrant`, with some of its constants and its clock changed: a test starts servers with this program.

`PATCHED` is a JSON object of values by full name, for example {"evergrant.db.engine.SQLITE_BUSY_SECONDS": 3}. An
object there stands for fields of a dataclass: {"evergrant.pace.PACE": {"call": 4}}. `FASTER` is how many times as fast
it lives.
`CLOCK_OFFSET` is a file with the seconds by which this process's clock is wrong; it is read at every look at the clock,
so that a test moves the clock while the process runs. `MACHINE_CLOCK_OFFSET` are the seconds by which the clock of its
machine is wrong, which it may find out.
"""

import importlib
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from evergrant import clock, pace


def patch() -> None:
    """Apply what the environment says, before anything of evergrant has copied a constant."""
    pace.PACE = pace.Pace().faster(float(os.environ.get("FASTER", "1")))
    for place, value in json.loads(os.environ.get("PATCHED", "{}")).items():
        module_name, _, name = place.rpartition(".")
        module = importlib.import_module(module_name)
        before = getattr(module, name)  # a misspelt name must not pass for a patch
        setattr(module, name, replace(before, **value) if isinstance(value, dict) else value)
    if "MACHINE_CLOCK_OFFSET" in os.environ:
        wrong_by = timedelta(seconds=float(os.environ["MACHINE_CLOCK_OFFSET"]))
        clock.utcnow = lambda: datetime.now(UTC) + wrong_by
    if "CLOCK_OFFSET" in os.environ:
        offset = Path(os.environ["CLOCK_OFFSET"])
        clock.now = lambda: datetime.now(UTC) + timedelta(seconds=float(offset.read_text()))


if __name__ == "__main__":
    patch()
    from evergrant.cli import cli

    cli()
