"""The wheel and the sdist: what is in them, that nobody's machine leaves a trace there, and that they run."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from io import BytesIO
from pathlib import Path

from tests.infra.installation import Backend
from tests.infra.serving import ServerProcess

ROOT = Path(__file__).parents[1]
PROJECT, KEY = "P2packedandunpackedagain", "the-key-of-a-wheel-in-32-characters-or-more"


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


def build(folder: Path, *, kind: str = "", **environment: str) -> dict[str, bytes]:
    command = [sys.executable, "-m", "hatchling", "build", "-d", "dist", *(["-t", kind] if kind else [])]
    clean = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=clean | environment)
    return {file.name: file.read_bytes() for file in (folder / "dist").iterdir()}


def test_two_machines_build_the_same_bytes(tmp_path: Path) -> None:
    first = checkout(tmp_path / "one", umask=0o022, modified=1_600_000_000)
    second = checkout(tmp_path / "another" / "place", umask=0o077, modified=1_700_000_000)
    built = build(first)
    assert build(second, TZ="Pacific/Auckland", LC_ALL="C") == built
    assert sorted(name.rpartition(".")[2] for name in built) == ["gz", "whl"]
    (wheel,) = (content for name, content in built.items() if name.endswith(".whl"))
    (source,) = (content for name, content in built.items() if name.endswith(".gz"))
    packed = zipfile.ZipFile(BytesIO(wheel)).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in packed} == {"evergrant"}
    ours = [path.relative_to(first) for folder in ("src/evergrant", "migrations") for path in files(first / folder)]
    assert {str(path).removeprefix("src/").replace("migrations/", "evergrant/migrations/", 1) for path in ours} == {
        name for name in packed if ".dist-info/" not in name
    }
    with tarfile.open(fileobj=BytesIO(source)) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert not [name for name in (*packed, *names) if re.search(r"(^|/)(\.env|.*\.pyc|evergrant-data)(/|$)", name)]
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert build(unpacked, kind="wheel").items() <= built.items(), "the sdist builds the same wheel"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def bare_environment(folder: Path) -> Path:
    """Make an environment with what the lock has, and without evergrant; return its Python.

    The packages are those of the tests' own environment, which were installed from the locks. Of a folder that is
    named like this, Python reads no `.pth` files, so the checkout is not among them.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "locked.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin/python"


def test_the_wheel_installs_and_runs_in_an_environment_that_has_the_locked_packages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    python = bare_environment(tmp_path / "environment")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*pip, "--quiet", "--disable-pip-version-check", str(wheel)], check=True, capture_output=True)
    evergrant = python.with_name("evergrant")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("EVERGRANT_", "PYTHONPATH"))}
    clean |= {"EVERGRANT_DATA_DIR": str(tmp_path / "data"), "PYTHONDONTWRITEBYTECODE": ""}  # it is compiled once

    where = [str(python), "-c", "import evergrant; print(evergrant.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=clean, check=True, capture_output=True, text=True).stdout
    assert found.startswith(str(tmp_path / "environment"))
    clean |= {"EVERGRANT_BOOTSTRAP_PROJECT_ID": PROJECT, "EVERGRANT_BOOTSTRAP_MANAGEMENT_KEY": KEY}
    program = ["-c", f"import os, sys; os.execv({str(evergrant)!r}, ['evergrant', *sys.argv[1:]])"]
    with (
        ServerProcess(clean, log=tmp_path / "log", program=program) as server,
        Backend(server.url, PROJECT, KEY).http as http,
    ):
        assert len(http.get("/v1/mgmt/outbound/templates").json()["templates"]) > 400
        for path in ("/readyz", "/docs", "/openapi.json", "/static/tokens.css", "/console"):
            assert http.get(path).status_code in (200, 303), path
        english, german = (http.get("/connect/unknown", headers={"Accept-Language": tag}).text for tag in ("en", "de"))
        assert english != german
