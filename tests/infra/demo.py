"""`evergrant demo` as a newcomer starts it: a process of its own, on free ports."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.infra.waiting import PATIENCE, wait_until


class Demo:
    """A running demo; its temporary files are in `temporary`, what it printed in `output()`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self._log = folder / "demo.log"
        # An operator's own settings are in the environment: the demo must not touch what they name.
        environment = os.environ | {
            "TMPDIR": str(self.temporary),
            "EVERGRANT_DATABASE_URL": "postgresql://nobody:nothing@127.0.0.1:1/production",
            "EVERGRANT_PUBLIC_URL": "https://evergrant.example.com",
        }
        command = [sys.executable, "-m", "evergrant", "demo", "--port", "0", "--practice-port", "0", *arguments]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
            )

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def url(self) -> str:
        """Return the guide's address, as printed once everything answers."""
        address = re.compile(r"Only HTTP calls +(http://127\.0\.0\.1:\d+/)")
        wait_until(lambda: bool(address.search(self.output())) or self._process.poll() is not None, "it says where")
        found = address.search(self.output())
        assert found is not None, self.output()
        return found[1]

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal, wait for the end and return the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
