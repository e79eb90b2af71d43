"""The processes of a soak run, and how they are killed and come back."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from benchmarks.databases import configure
from benchmarks.fetch import ROOT
from benchmarks.soak_ledger import Kill
from evergrant.broker.operations.setup import initialise, upgrade
from evergrant.settings import PREFIX
from tests.infra.cable import Cable
from tests.infra.postgres import PostgresServer
from tests.infra.serving import ServerProcess, environment_of, free_port
from tests.infra.settings import settings_on

# A commit that was answered outlives the end of the server process; only the machine's own end is not provided for.
DATABASE = {"synchronous_commit": "on", "autovacuum": "on", "shared_buffers": "128MB"}
REVIVE_SECONDS = 1.0
"""Between two starts of a process that does not stay, as a supervisor does."""


def local_ports(pid: int, port: int) -> frozenset[int]:
    """Return our end's ports of a process's connections to `port` on this machine, as /proc has them."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            sockets.add(str(descriptor.readlink()))
    ports = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *rest = line.split()
        if int(remote.rpartition(":")[2], 16) == port and f"socket:[{rest[6]}]" in sockets:
            ports.add(int(local.rpartition(":")[2], 16))
    return frozenset(ports)


@dataclass
class Parts:
    """Everything that runs."""

    database: PostgresServer
    replicas: list[ServerProcess]
    cables: list[Cable]
    """Each replica's, to the database."""
    provider_url: str
    headers: dict[str, str]
    """What callers of evergrant send."""
    _refresher_command: list[str]
    _refresher_environment: dict[str, str]
    _refresher_log: Path
    _refresher: subprocess.Popen[bytes] | None = None
    _down: set[int] = field(default_factory=set)
    """Replicas that are not there now, or in some trouble."""

    async def kill(self, number: int) -> Kill:
        """Kill a replica with SIGKILL."""
        self._down.add(number)
        replica = self.replicas[number]
        replica.send(signal.SIGSTOP)  # so that its connections are the same at the kill
        done = Kill(time.time(), local_ports(replica.pid, int(self.provider_url.rpartition(":")[2])))
        await asyncio.to_thread(replica.kill)
        return done

    async def freeze(self, number: int, seconds: float) -> None:
        """Let a replica stand still, as a machine does that is moved or saved."""
        await self._own(number)
        self.replicas[number].send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self.replicas[number].send(signal.SIGCONT)
        self._down.discard(number)

    async def cut_off(self, number: int, seconds: float, *, hanging: bool) -> None:
        """Cut a replica off from the database: its connections end, or hang."""
        await self._own(number)
        cable = self.cables[number]
        await asyncio.to_thread(cable.hang if hanging else cable.cut)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(cable.mend)
        self._down.discard(number)

    async def _own(self, number: int) -> None:
        """Wait until a replica is there, and keep it from being killed."""
        while not self.is_up(number):  # noqa: ASYNC110 - whoever revives it tells nobody
            await asyncio.sleep(0.1)
        self._down.add(number)

    def is_up(self, number: int) -> bool:
        """Tell whether a replica is there, and in no trouble."""
        return number not in self._down

    async def revive(self, number: int, stop: asyncio.Event) -> None:
        """Start a replica again until it stays."""
        while True:
            try:
                await asyncio.to_thread(self.replicas[number].start)
            except RuntimeError:  # the database is away
                if stop.is_set():
                    return
                await asyncio.sleep(REVIVE_SECONDS)
            else:
                self._down.discard(number)
                return

    async def all_up(self) -> None:
        """Start what is not there."""
        for number in list(self._down):
            await self.revive(number, asyncio.Event())
        await self.revive_refresher()

    async def revive_refresher(self) -> int:
        """Start the refresher if it is not there; return 1 if it had ended by itself."""
        ended = self._refresher is not None and self._refresher.poll() is not None
        if self._refresher is None or ended:
            with self._refresher_log.open("ab") as log:
                self._refresher = await asyncio.to_thread(
                    subprocess.Popen,
                    self._refresher_command,
                    env=self._refresher_environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        return int(ended)

    async def stop(self) -> None:
        """End the refresher and the replicas, as an operator does."""
        if self._refresher is not None:
            self._refresher.terminate()
        for replica in self.replicas:
            await asyncio.to_thread(replica.kill)
        if self._refresher is not None:
            try:
                await asyncio.to_thread(self._refresher.wait, 15)
            except subprocess.TimeoutExpired:
                self._refresher.kill()

    async def rows(self, sql: str) -> list[list[str]]:
        """Ask the database."""
        text = await asyncio.to_thread(self.database.execute, sql, database="soak")
        return [line.split("|", 1) for line in text.splitlines()]

    async def count(self, sql: str) -> int:
        """Ask the database for one number."""
        return int((await self.rows(sql))[0][0])


@contextlib.asynccontextmanager
async def started(folder: Path, *, replicas: int, faults: float, cruel: bool) -> AsyncIterator[Parts]:
    """Start everything; each process has a data folder, and so a journal, of its own."""
    async with contextlib.AsyncExitStack() as stack:
        database = PostgresServer()
        stack.callback(database.remove)
        database.start()
        configure(database, DATABASE)
        settings = settings_on(database.create_database("soak"), folder / "first", log_level="info")
        await upgrade(settings)
        made = await initialise(settings)
        provider_port = free_port()
        stack.callback(_start_provider(provider_port, faults=faults, cruel=cruel, log=folder / "provider.log").kill)
        servers = []
        cables = [Cable(database) for _ in range(replicas)]
        for number, cable in enumerate(cables):
            stack.callback(cable.remove)
            of_replica = {"data_dir": folder / f"replica-{number}", "database_url": SecretStr(cable.url("soak"))}
            own = environment_of(settings.model_copy(update=of_replica))
            servers.append(ServerProcess(own, "--no-refresher", log=folder / f"replica-{number}.log"))
        own = environment_of(settings.model_copy(update={"data_dir": folder / "refresher"}))
        clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        parts = Parts(
            database,
            servers,
            cables,
            f"http://127.0.0.1:{provider_port}",
            {"authorization": f"Bearer {made.project_id}:{made.management_key}"},
            [sys.executable, "-m", "evergrant", "refresher"],
            clean | own,
            folder / "refresher.log",
        )
        stack.push_async_callback(parts.stop)
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
        await parts.revive_refresher()
        yield parts


def _start_provider(port: int, *, faults: float, cruel: bool, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.soak_provider", "--port", str(port), "--share", str(faults)]
    with log.open("ab") as file:
        process = subprocess.Popen([*command, *(["--cruel"] if cruel else [])], cwd=ROOT, stdout=file, stderr=file)
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"the provider did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
        else:
            return process
