"""How many connections this process may have: each is an open file, and a system counts them."""

import contextlib
import resource

ENOUGH_FILES = 8_192
MOST_CONNECTIONS = 1_000
"""More calls at once are no use to one process."""
SHARE = 4
"""One in so many of the files may be a connection to a provider; callers and the database need files too."""
MOST_CALLERS = 4_000
SHARE_OF_CALLERS = 2
"""One in so many of the files may be a caller's connection."""


def connections_at_once() -> int:
    """Return how many connections to providers this process may have, raising its own limit where the system lets it.

    Systems often start processes with 1,024 files (`ulimit -n`), and let them have as many as they ask for.
    """
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_FILES if most == resource.RLIM_INFINITY else min(ENOUGH_FILES, most)
    if files != resource.RLIM_INFINITY and files < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else max(1, min(MOST_CONNECTIONS, files // SHARE))


def callers_at_once() -> int:
    """Return how many connections callers may have to this process: never so many that none could be made elsewhere."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CALLERS if files == resource.RLIM_INFINITY else max(1, min(MOST_CALLERS, files // SHARE_OF_CALLERS))
