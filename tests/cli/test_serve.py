"""`evergrant serve` as its operator starts it."""

from pathlib import Path

from tests.infra.serving import ServerProcess

SLOW_TO_IMPORT = """
import sys, time
if any("multiprocessing.spawn" in argument for argument in sys.orig_argv):
    time.sleep(6)  # longer than uvicorn waits for a worker by itself
"""


def test_a_worker_that_is_slow_to_start_is_not_killed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_TO_IMPORT)
    environment = {"EVERGRANT_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(tmp_path)}
    with ServerProcess(environment, "--workers", "2", log=tmp_path / "serve.log") as server:
        assert " died" not in server.output()
        assert server.output().count("Started server process") >= 1
