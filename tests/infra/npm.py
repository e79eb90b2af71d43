"""Packages from npm that a browser loads, as they are published."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.infra.waiting import PATIENCE


def npm_package(name: str, folder: Path) -> Path:
    """Fetch a package, `name@version`, into a folder, and return where its files are."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("There is no npm: install Node.js, so that what browsers load can be fetched.")
    packed = subprocess.run(
        [npm, "pack", name, "--silent"], cwd=folder, capture_output=True, text=True, timeout=PATIENCE
    )
    assert packed.returncode == 0, f"npm could not fetch {name}:\n{packed.stderr}"
    with tarfile.open(folder / packed.stdout.strip()) as package:
        package.extractall(folder, filter="data")
    return folder / "package"
