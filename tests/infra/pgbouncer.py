"""A real PgBouncer before a PostgreSQL server: the machine's own program."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.infra.postgres import PostgresServer
from tests.infra.serving import free_port
from tests.infra.waiting import PATIENCE, wait_until

PLACES = "/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin"

CONFIGURATION = """
[databases]
* = host={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 500
{more}
"""


def installed_pgbouncer() -> str:
    """Return the path of the machine's PgBouncer, or fail with what to do."""
    path = shutil.which("pgbouncer") or shutil.which("pgbouncer", path=PLACES)
    if path is None:
        raise RuntimeError("There is no PgBouncer: install it, on Debian with 'apt-get install pgbouncer'.")
    return path


class PgBouncer:
    """A PgBouncer before `server`, while the `with` block runs, with a few connections for all of its clients.

    `mode` is its `pool_mode`: how long it lends a connection out. `more` are further lines of its configuration.
    """

    def __init__(self, server: PostgresServer, *, mode: str, size: int = 5, more: str = "") -> None:
        self.port = free_port()
        # Not in pytest's folder, which only its owner may enter: PgBouncer refuses to run as root.
        self._folder = folder = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir=server.folder))
        self._user = "nobody" if os.geteuid() == 0 else None
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "users").write_text('"postgres" ""\n')
        configuration = CONFIGURATION.format(
            server=server.folder, port=self.port, folder=folder, mode=mode, size=size, more=more
        )
        (folder / "pgbouncer.ini").write_text(configuration)
        if self._user:
            shutil.chown(folder, self._user)

    def url(self, database: str) -> str:
        """Return the URL for `EVERGRANT_DATABASE_URL`."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def __enter__(self) -> Self:
        program = installed_pgbouncer()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(self._folder / "pgbouncer.ini")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                start_new_session=True,
            )
        wait_until(self._listens, f"PgBouncer listens:\n{self._log.read_text()}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=PATIENCE)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        return "listening on 127.0.0.1" in self._log.read_text()
