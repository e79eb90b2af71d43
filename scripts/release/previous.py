"""The release before this one: which it is, and its code, from the repository's history."""

import subprocess
import tarfile
import tomllib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("previous.toml")


@dataclass(frozen=True, slots=True)
class Previous:
    """A release: its last migration, and its commit or tag."""

    revision: str
    commit: str


def load_previous() -> Previous:
    """Return the release before this one, as `previous.toml` names it."""
    return Previous(**tomllib.loads(FILE.read_text(encoding="utf-8")))


def unpack(previous: Previous, folder: Path) -> Path:
    """Write a release's `src` and `migrations` into a folder, and return its `src`, for PYTHONPATH.

    Raises:
        RuntimeError: the history does not reach back so far.
    """
    command = ["git", "archive", "--format=tar", previous.commit, "src", "migrations"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"the release before this one, {previous.commit}, is not in this clone's history "
            f"({done.stderr.decode().strip()}): run 'git fetch --unshallow --tags'"
        )
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "src"
