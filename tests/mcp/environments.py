"""Environments for clients that exclude what evergrant needs: beside .venv, from locks, made once and kept."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCKS = Path(__file__).parent / "environments"
ROOT = Path(sys.prefix).parent
KEPT = ROOT / ".clients"


def python_in(name: str) -> Path:
    """Return the interpreter of an environment that has exactly what the lock of this name says."""
    lock, home = LOCKS / f"{name}.txt", KEPT / name
    python = home / "bin" / "python"
    with _made_once(home, lock) as is_made:
        if not is_made:
            uv = Path(sys.prefix) / "bin" / "uv"
            _run(str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(home))
            _run(str(uv), "pip", "install", "--quiet", "--require-hashes", "--python", str(python), "-r", str(lock))
    return python


def beside_node_modules(script: Path) -> Path:
    """Return a copy of a script that finds the packages of the lock of npm."""
    home = KEPT / "node"
    with _made_once(home, LOCKS / "node" / "package-lock.json") as is_made:
        if not is_made:
            home.mkdir(parents=True, exist_ok=True)
            for file in (LOCKS / "node").iterdir():
                shutil.copy(file, home)
            _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", cwd=home)
    target = home / script.name
    draft = target.with_name(f"{script.stem}.{os.getpid()}.mjs")
    shutil.copy(script, draft)
    draft.replace(target)
    return target


@contextmanager
def _made_once(home: Path, lock: Path) -> Iterator[bool]:
    """Tell whether an environment is there and of this lock; if not, it is after the block. One process at a time."""
    KEPT.mkdir(exist_ok=True)
    mark = home / ".made-from"
    with (KEPT / f"{home.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        is_made = mark.exists() and mark.read_bytes() == lock.read_bytes()
        yield is_made
        if not is_made:
            mark.write_bytes(lock.read_bytes())


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stderr}"
