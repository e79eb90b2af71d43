"""How long is evergrant without its database when the primary is lost and its standby is promoted?

Two `evergrant serve` processes on a PostgreSQL primary with a synchronous standby. Callers fetch all the time: tokens
that are good, and tokens that need a refresh. Some answers of the provider are on the wire when the primary is lost:
`killed` (as if the machine had lost power), `silent` (it takes everything and answers nothing, as behind a firewall) or
`read-only` (it takes no more writes, with every connection open). Three seconds later the standby is promoted.

It prints what was answered first and when, counted from the promotion, and what became of every grant. The exit code is
not 0 when a consent was lost, or when either process took longer than ten seconds.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the file can be run by its path

from tests.faults.cluster import Cluster, Consents, cluster_of_processes
from tests.faults.ledger import Ledger
from tests.infra.cable import Cable
from tests.infra.databases import migrate
from tests.infra.pair import PostgresPair
from tests.infra.settings import settings_on

FAULTS = ("killed", "silent", "read-only")
ON_THE_WIRE = 20
DUE = 600
UNTIL_PROMOTED_SECONDS = 3.0
WITHIN_SECONDS = 10.0
GOOD, REFRESHED = "a token that was good", "a token that had to be refreshed"


@dataclass
class Caller(threading.Thread):
    """Fetches one kind of token from one server until it is told to stop; `served` are the monotonic seconds."""

    consents: Consents
    users: list[str]
    at: int
    served: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        for user in self.users:
            if self.over.is_set():
                return
            answer = self.consents.fetch(user, at=self.at)
            self.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                self.served.append(time.monotonic())
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("fault", choices=FAULTS, nargs="?", default="killed")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evergrant-failover-")))
        pair = stack.enter_context(PostgresPair("evergrant"))
        migrate(pair.url)
        cable = Cable(pair.primary)
        stack.callback(cable.remove)
        hosts = f"{cable.url('').partition('host=')[2]},{pair.standby.folder}"
        url = f"postgresql://postgres@/evergrant?host={hosts}&target_session_attrs=read-write"
        cluster = stack.enter_context(cluster_of_processes(settings_on(url, folder / "data"), 2, logs=folder))
        sys.exit(drill(options.fault, pair, cable, cluster))


def drill(fault: str, pair: PostgresPair, cable: Cable, cluster: Cluster) -> int:
    """Lose the primary, promote the standby, print what happened; return the exit code."""
    good, due = cluster.consents(1, seconds=3600), cluster.consents(DUE)
    on_the_wire = cluster.consents(ON_THE_WIRE)
    callers = {(GOOD, at): Caller(good, good.users * DUE, at) for at in (0, 1)}
    callers |= {(REFRESHED, at): Caller(due, due.users[at::2], at) for at in (0, 1)}
    for caller in callers.values():
        caller.start()
    time.sleep(2)
    cluster.state.held = True
    on_the_wire.set_off()
    lose(fault, pair, cable)
    cluster.state.held = False
    time.sleep(UNTIL_PROMOTED_SECONDS)
    promoted = time.monotonic()
    pair.standby.promote()
    journal = cluster.settings.data_dir / "journal"
    slowest = 0.0
    for (kind, at), caller in callers.items():
        while not any(moment > promoted for moment in caller.served) and time.monotonic() < promoted + 60:
            time.sleep(0.01)
        first = next((moment for moment in caller.served if moment > promoted), float("inf")) - promoted
        slowest = max(slowest, first)
        print(f"{first:6.1f} s  process {at + 1} answered with {kind}; all its answers: {dict(caller.statuses)}")
    while list(journal.glob("*.json")) and time.monotonic() < promoted + 60:
        time.sleep(0.01)
    print(f"{time.monotonic() - promoted:6.1f} s  every answer that was on the wire had landed")
    for caller in callers.values():
        caller.over.set()
        caller.join()
    ledger = on_the_wire.ledger()
    for heading, number in zip(Ledger.headings(), ledger.columns(), strict=True):
        print(f"{number:6}    {heading}")
    return int(ledger != Ledger.clean(ON_THE_WIRE) or slowest > WITHIN_SECONDS)


def lose(fault: str, pair: PostgresPair, cable: Cable) -> None:
    """Lose the primary."""
    if fault == "killed":
        pair.primary.stop(immediately=True)
    elif fault == "silent":
        cable.hang()
    else:
        pair.primary.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        pair.primary.execute("SELECT pg_reload_conf()")


if __name__ == "__main__":
    main()
