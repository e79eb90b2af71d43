"""Servers on free loopback ports: evergrant as its operator starts it, and ASGI apps that play providers."""

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import uvicorn
from pydantic import SecretStr

from evergrant.cli.serve import LOOP_FACTORY
from evergrant.settings import PREFIX, Settings
from evergrant.web.protocol import HTTP_OPTIONS
from tests.infra.waiting import PATIENCE, wait_until


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the variables that make another process read these settings.

    The public URL is left out: each `ServerProcess` has its own.
    """
    return {
        f"{PREFIX}{name.upper()}": _as_text(getattr(settings, name))
        for name in settings.model_fields_set - {"public_url"}
        if getattr(settings, name) is not None
    }


def _as_text(value: object) -> str:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return ",".join(str(part) for part in value)
        case _:
            return str(value)


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = range(15_000 + _WORKER % 16 * 1_000, 16_000 + _WORKER % 16 * 1_000)
"""This worker's own. Below those that systems give to outgoing connections, one of which could take a port before its
server does."""
_turn = itertools.count(secrets.randbelow(len(_PORTS)))  # by chance, for the sake of runs beside each other


def free_port() -> int:
    """Return a port that nobody listens on right now, and that no other test of this run is told of.

    Between the moment a test is told of a port and the moment its server takes it, others ask for ports too. So each
    worker has ports of its own, and gives one again only after all others.
    """
    while True:
        port = _PORTS[next(_turn) % len(_PORTS)]
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


class ServerProcess:
    """`evergrant serve` as a process of its own, ready when the `with` block begins, gone when it ends.

    The environment is `environment` and nothing else of `EVERGRANT_*`. What it writes is in `output()`. `program` are
    Python's arguments before "serve": a test that patches evergrant gives a program of its own.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *arguments: str,
        port: int | None = None,
        log: Path,
        program: Sequence[str] = ("-m", "evergrant"),
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._arguments = arguments
        self._program = program
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("EVERGRANT_")}
        self._environment |= {"EVERGRANT_PUBLIC_URL": self.url, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id, for signals."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it, unless it runs, and wait until /healthz answers."""
        if self._process and self._process.poll() is None:
            return
        command = [sys.executable, *self._program, "serve", "--host", "127.0.0.1", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
            )
        deadline = time.monotonic() + PATIENCE
        while not _answers(f"{self.url}/healthz"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"evergrant did not start:\n{self.output()}")
            time.sleep(0.05)

    def stop(self) -> int:
        """Send SIGTERM, wait for the end and return the exit code."""
        self.send(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Send SIGKILL, as the kernel does when memory runs out."""
        if self._process and self._process.poll() is None:
            self._process.kill()
        self.wait()

    def send(self, signal_number: signal.Signals) -> None:
        """Send a signal, SIGSTOP and SIGCONT for example."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal_number)

    def wait(self) -> int:
        """Wait for the process to end and return its exit code; kill it when it does not end."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def output(self) -> str:
        """Return everything it wrote to standard output and standard error so far."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGCONT)
        self.stop()


class LiveApp:
    """An ASGI app under uvicorn in a thread, at `url`, while the `with` block runs.

    Give a `port` where a provider is to come back at the same address; otherwise a free one is taken.
    """

    def __init__(self, app: Any, *, port: int = 0) -> None:
        # Bound here, so that no other process can take the port in between. With the protocol, without which asyncio
        # leaves Nagle's algorithm on and every answer takes 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", port))
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = _PromptServer(uvicorn.Config(app, log_level="error", access_log=False, **HTTP_OPTIONS))
        self._thread = threading.Thread(target=self._run, name=f"live-app-{self.port}", daemon=True)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._thread.start()
        wait_until(lambda: self._server.started or not self._thread.is_alive(), "the app has started")
        if not self._thread.is_alive():
            raise RuntimeError("the app did not start")

    @property
    def connections(self) -> set[Any]:
        """The protocols of the callers that are connected."""
        return set(self._server.server_state.connections)

    def stop(self) -> None:
        """Stop it; requests in flight have a second to end."""
        self._server.tell_to_stop()
        self._thread.join(timeout=PATIENCE)
        self._socket.close()
        if self._thread.is_alive():
            raise RuntimeError("the app did not stop")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=LOOP_FACTORY) as runner:
            runner.run(self._server.serve(sockets=[self._socket]))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _PromptServer(uvicorn.Server):
    """A server that stops as soon as it may.

    uvicorn looks ten times a second whether it is to stop, and then waits a tenth of a second whatever is left to do.
    The tests start and stop thousands of servers.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def tell_to_stop(self) -> None:
        """Have it stop; from another thread than its own."""
        self.should_exit = True
        if self._loop is not None:
            # The loop is closed where the app did not start, or has stopped by itself.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._told.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), 1)  # for the Date header, which has whole seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while state.connections or state.tasks:
                    await asyncio.sleep(0.002)
        for task in state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return int(response.status) == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
