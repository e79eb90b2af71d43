"""What an installation of some size needs, worked out from what was measured: docs/scale.md has the table.

This measures nothing. The figures are those of docs/performance.md and of the database in `MEASURED`; the prices are
round numbers of 2026, to be replaced by your own.
"""

import argparse
from dataclasses import dataclass, fields
from math import ceil


@dataclass(frozen=True)
class Measured:
    """Measured in November 2026, on PostgreSQL 18 with Python 3.11."""

    fetch_us: int = 98
    """Processor time of a fetch in the server, in microseconds: benchmarks/fetch.py."""
    fetch_database_us: int = 23
    """The same in the database, over a local socket, all rows in memory."""
    refresh_us: int = 3068
    """Processor time of a refresh in the refresher: benchmarks/sweep.py."""
    refreshes_of_a_process: int = 280
    """Per second, at a provider that answers at once, two cores for refresher, database and provider together."""
    update_database_us: int = 46
    """Processor time of one UPDATE as a refresh does, in the database."""
    update_log_bytes: int = 607
    """What it writes to PostgreSQL's log, without the images of whole pages that follow each checkpoint."""
    grant_bytes: int = 997
    """A row of `grants` with its indexes; an access token of 180 characters, and a short refresh token."""
    directory_bytes: int = 1334
    """A row of `grant_directory` with its indexes, which lists and the console search."""
    connections_of_a_process: int = 39
    """To the database, at most: docs/deploy.md."""


@dataclass(frozen=True)
class Size:
    """What is asked for."""

    grants: int = 100_000_000
    fetches: int = 50_000
    """Per second."""
    token_minutes: int = 60
    in_use: int = 10
    """Of how many grants in a hundred somebody fetched the token within 30 days."""


MEASURED = Measured()
UPDATES_OF_A_REFRESH = 2
"""The lease, and the landing."""
AHEAD_MINUTES = 6.25
"""How long before the end of a token of an hour the background refreshes it, on average: docs/refresh.md."""
IDLE_DAYS = 7
"""How often an idle grant is refreshed only to stay alive."""
BUSY = 0.6
"""How much of each core is used at most, so that one that is lost leaves the others room."""
CORE_MONTH, GIGABYTE_MONTH = 30, 0.10
"""Dollars."""
COPIES = 3
"""A primary, a synchronous standby, a read replica."""


def rows(size: Size, measured: Measured = MEASURED) -> list[tuple[str, str]]:
    """Return what is needed, each with its number."""
    every_seconds = (size.token_minutes - AHEAD_MINUTES) * 60
    used = size.grants * size.in_use / 100
    refreshes = used / every_seconds + (size.grants - used) / (IDLE_DAYS * 86_400)
    at_worst = size.grants / every_seconds
    servers = _cores(size.fetches * measured.fetch_us)
    refreshers = max(_cores(refreshes * measured.refresh_us), ceil(refreshes / measured.refreshes_of_a_process))
    reads = size.fetches * measured.fetch_database_us
    writes = refreshes * UPDATES_OF_A_REFRESH * measured.update_database_us
    database = _cores(reads + writes)
    gigabytes = size.grants * (measured.grant_bytes + measured.directory_bytes) / 1e9
    log = refreshes * UPDATES_OF_A_REFRESH * measured.update_log_bytes / 1e6
    processes = servers + refreshers
    cores = processes + COPIES * database
    cost = cores * CORE_MONTH + COPIES * gigabytes * GIGABYTE_MONTH
    return [
        ("rows of `grants`, and as many of `grant_directory`", f"{size.grants:,}"),
        ("bytes of `grants` with indexes", f"{size.grants * measured.grant_bytes / 1e9:,.0f} GB"),
        ("bytes of `grant_directory` with indexes", f"{size.grants * measured.directory_bytes / 1e9:,.0f} GB"),
        ("fetches a second", f"{size.fetches:,}"),
        ("server processes, one core each", f"{servers}"),
        (f"refreshes a second, {size.in_use}% of the connections in use", f"{refreshes:,.0f}"),
        ("refreshes a second, if all were in use", f"{at_worst:,.0f}"),
        ("refresher processes, one core each", f"{refreshers}"),
        ("cores of the primary for fetches and refreshes", f"{database}"),
        ("PostgreSQL's log", f"{log:,.1f} MB/s"),
        ("connections to the primary at most, without a pooler", f"{processes * measured.connections_of_a_process:,}"),
        ("cost a month: processes, and three copies of the database", f"${cost:,.0f}"),
    ]


def _cores(microseconds: float) -> int:
    """Return how many cores do so much a second, none of them too busy."""
    return ceil(microseconds / 1e6 / BUSY)


def main() -> None:
    """Print the table for a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Size):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    size = Size(**vars(parser.parse_args()))
    print("| what | how much |\n|---|---:|")
    for what, much in rows(size):
        print(f"| {what} | {much} |")


if __name__ == "__main__":
    main()
