"""The processes of a sweep's benchmark: the provider, and those who work."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from benchmarks.bare import Orders
from benchmarks.fetch import ROOT, cpu_seconds, wait_until_it_listens
from evergrant.settings import PREFIX, Settings
from tests.infra.serving import environment_of, free_port

QUIET_SECONDS = 0.5
QUIET_CPU = 0.03
"""A process that used no more processor time than this in so many seconds has nothing to do."""
QUIET_TIMES = 3
"""So often in a row: on a busy machine, who is starting may have to wait as well."""
NEVER_QUIET_SECONDS = 300.0
STARTED_CPU = 0.1
"""Who used less has not even read its code."""


@dataclass(frozen=True)
class Calls:
    """What the provider has seen since it started."""

    calls: int
    reused: int


class Provider:
    """`token_endpoint.py` as a process."""

    def __init__(self, delay_ms: float) -> None:
        self._port = free_port()
        self._delay_ms = delay_ms
        self.token_url = f"http://127.0.0.1:{self._port}/token"

    def seen(self) -> Calls:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", "/seen")
            return Calls(**json.loads(connection.getresponse().read()))
        finally:
            connection.close()

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.token_endpoint", "--port", str(self._port)]
        self._process = subprocess.Popen([*command, "--delay-ms", str(self._delay_ms)], cwd=ROOT)
        wait_until_it_listens(self._process, self._port, "the provider")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)


class Workers:
    """Several processes of one kind, there while the `with` block runs."""

    def __init__(
        self,
        settings: Settings,
        commands: Sequence[Sequence[str]],
        *,
        environment: dict[str, str] | None = None,
        orders: Sequence[Orders] = (),
    ) -> None:
        self._commands, self._orders = commands, orders
        self._log = settings.data_dir / "workers.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._environment = clean | environment_of(settings) | (environment or {})
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    def refreshers(cls, settings: Settings, count: int, *, in_flight: int, profile: Path | None = None) -> Self:
        """`evergrant refresher`, as an operator starts it."""
        python = [sys.executable]
        if profile is not None:
            python += ["-m", "cProfile", "-o", str(profile)]
        limit = {f"{PREFIX}REFRESH_CONCURRENCY_PER_ENDPOINT": str(in_flight)}
        return cls(settings, [[*python, "-m", "evergrant", "refresher"]] * count, environment=limit)

    @classmethod
    def bare(cls, settings: Settings, count: int, provider: Provider, *, in_flight: int) -> Self:
        """The same without any care."""
        orders = [Orders(provider.token_url, in_flight, share, count) for share in range(count)]
        return cls(settings, [[sys.executable, "-m", "benchmarks.bare"]] * count, orders=orders)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def wait_until_quiet(self) -> None:
        """Wait until all of them have started and have nothing to do."""
        before, quiet = [0.0] * len(self._processes), 0
        deadline = time.monotonic() + NEVER_QUIET_SECONDS
        while quiet < QUIET_TIMES:
            time.sleep(QUIET_SECONDS)
            now = [cpu_seconds(pid) for pid in self.pids]
            used = [after - earlier for after, earlier in zip(now, before, strict=True)]
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"not quiet after {NEVER_QUIET_SECONDS:.0f} s, CPU seconds {now}:\n{self.output()}")
            idle = max(used) <= QUIET_CPU and (min(now) >= STARTED_CPU or max(now) == 0)
            quiet = quiet + 1 if idle else 0
            before = now

    def begin(self) -> None:
        """Give their orders to those who wait for any."""
        for process, orders in zip(self._processes, self._orders, strict=False):
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(orders)).encode())
            process.stdin.close()

    def check(self) -> None:
        """Make sure that all of them are there.

        Raises:
            RuntimeError: one has ended.
        """
        if any(process.poll() is not None for process in self._processes):
            raise RuntimeError(f"a process has ended:\n{self.output()}")

    def stop(self) -> None:
        """Let them finish what they have in flight.

        Raises:
            RuntimeError: one ended otherwise than it should.
        """
        for process in self._processes:
            process.terminate()
        codes = [process.wait(timeout=60) for process in self._processes]
        if any(codes):
            raise RuntimeError(f"exit codes {codes}:\n{self.output()}")
        self._processes = []

    def output(self) -> str:
        return Path(self._log).read_text(errors="replace")[-5_000:]

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            for command in self._commands:
                self._processes.append(
                    subprocess.Popen(
                        command, cwd=ROOT, env=self._environment, stdin=subprocess.PIPE, stdout=log, stderr=log
                    )
                )
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
