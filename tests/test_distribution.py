"""The wheel and the sdist: what is in them, and that nobody's machine leaves a trace there."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def checkout(folder: Path, *, umask: int, modified: int) -> Path:
    """Return a copy of what is committed or about to be, as another machine would have it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    before = os.umask(umask)
    try:
        for name in filter(None, listed.split("\0")):
            if not (ROOT / name).is_file():
                continue
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
            os.utime(copy, (modified, modified))
    finally:
        os.umask(before)
    return folder


def build(folder: Path, **environment: str) -> dict[str, bytes]:
    command = [sys.executable, "-m", "hatchling", "build", "-d", "dist"]
    clean = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=clean | environment)
    return {file.name: file.read_bytes() for file in (folder / "dist").iterdir()}


def test_two_machines_build_the_same_bytes(tmp_path: Path) -> None:
    first = checkout(tmp_path / "one", umask=0o022, modified=1_600_000_000)
    second = checkout(tmp_path / "another" / "place", umask=0o077, modified=1_700_000_000)
    built = build(first)
    assert build(second, TZ="Pacific/Auckland", LC_ALL="C") == built
    assert sorted(name.rpartition(".")[2] for name in built) == ["gz", "whl"]
    (wheel,) = (first / "dist").glob("*.whl")
    (source,) = (first / "dist").glob("*.tar.gz")
    packed = zipfile.ZipFile(wheel).namelist()
    assert {"evergrant/py.typed", "evergrant/migrations/env.py"} <= set(packed)
    assert {name.partition("/")[0].partition("-")[0] for name in packed} == {"evergrant"}
    with tarfile.open(source) as archive:
        names = archive.getnames()
    assert not [name for name in (*packed, *names) if re.search(r"(^|/)(\.env|.*\.pyc|evergrant-data)(/|$)", name)]
