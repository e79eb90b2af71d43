"""Runs the Dockerfile's steps as commands in a folder, where there is no container engine: `make image-steps`.

The first stage is run whole: its COPY and RUN lines, with `/build` and `/opt/evergrant` below the folder, on the Python
that runs this. Then the image's ENV, ENTRYPOINT, CMD and HEALTHCHECK are tried: evergrant serves, and is healthy.

The second stage's RUN is not run: it takes the shell and the installers away from the system that it runs on.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Build in a folder, start what came out of it, and ask whether it is healthy; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to build; a temporary one without it")
    folder: Path | None = parser.parse_args(arguments).folder
    if folder is not None:
        return build_and_try(folder.resolve())
    with tempfile.TemporaryDirectory(prefix="evergrant-image-") as temporary:
        return build_and_try(Path(temporary))


def build_and_try(folder: Path) -> int:
    """Do the steps; returns 0 when the server that came of them is healthy."""
    first, second = (list(steps(stage)) for stage in re.split(r"^FROM .*$", _dockerfile(), flags=re.MULTILINE)[1:])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EVERGRANT_", "PYTHON"))}
    # Whatever the image calls `python` is the Python of this script; its own folder has pip for it.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    work = folder
    for name, value in first:
        if name == "ENV":
            environment |= _variables(value, folder)
        elif name == "WORKDIR":
            work = _inside(value, folder)
            work.mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, target = value.split()
            for source in sources:
                _copy(ROOT / source, work / target, is_folder=target.endswith("/"))
        elif name == "RUN":
            print(f"RUN {value}", flush=True)
            subprocess.run(["sh", "-c", _placed(value, folder)], cwd=work, env=environment, check=True)
    said = dict(second)
    for name, value in second:
        if name == "ENV":
            environment |= _variables(value, folder)
    Path(environment["EVERGRANT_DATA_DIR"]).mkdir(parents=True, mode=0o700)
    return _try(json.loads(said["ENTRYPOINT"]) + json.loads(said["CMD"]), said["HEALTHCHECK"], environment)


def steps(stage: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a stage: name and value, on one line."""
    text = re.sub(r"^\s*#.*\n", "", stage, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, value = line.partition(" ")
        yield name, value.strip()


def _try(command: list[str], healthcheck: str, environment: dict[str, str]) -> int:
    print(*command, flush=True)
    check = json.loads(healthcheck.partition("CMD ")[2])
    with subprocess.Popen(command, env=environment, cwd=environment["EVERGRANT_DATA_DIR"]) as server:
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while server.poll() is None and time.monotonic() < deadline:
                if subprocess.run(check, env=environment, check=False, capture_output=True).returncode == 0:
                    print("healthy", flush=True)
                    return 0
                time.sleep(0.5)
        finally:
            server.terminate()
    print("not healthy", file=sys.stderr)
    return 1


def _dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def _placed(text: str, folder: Path) -> str:
    return re.sub(r"(?<![\w./])/(?=(build|opt/evergrant|var/lib/evergrant)\b)", f"{folder}/", text)


def _inside(path: str, folder: Path) -> Path:
    return folder / path.lstrip("/")


def _variables(text: str, folder: Path) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in shlex.split(text))
    return {name: _placed(value.replace("$PATH", os.environ["PATH"]), folder) for name, _, value in pairs}


def _copy(source: Path, target: Path, *, is_folder: bool) -> None:
    target = target / source.name if is_folder else target
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


if __name__ == "__main__":
    sys.exit(main())
